//! Names for openraft's generic types, and the way between them and what is on disk.

use std::collections::BTreeSet;

use bincode::error::EncodeError;
use bytes::Bytes;
use openraft::{
    CommittedLeaderId, EmptyNode, EntryPayload, LeaderId, LogId, Membership, StoredMembership,
    TokioRuntime, Vote, impls::OneshotResponder,
};
use serde::{Deserialize, Serialize};
use umbel_storage::snapshot::Snapshot;

use crate::codec::{self, CodecError, StoredBody, StoredEntry, StoredLogId, StoredMembers};

/// The types of a shard's group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Payload;
    type R = Verdict;
    type NodeId = u64;
    // Where a node is reached is not the group's business: gossip and the meta group know.
    type Node = EmptyNode;
    type Entry = openraft::Entry<Types>;
    type SnapshotData = SnapshotBody;
    type AsyncRuntime = TokioRuntime;
    type Responder = OneshotResponder<Types>;
}

pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type Id = LogId<u64>;
pub(crate) type Members = StoredMembership<u64, EmptyNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;

/// An encoded [`codec::Batch`]. Encoded once by the owner; cheap to clone on its way to the log and to peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload(pub(crate) Bytes);

/// Where a snapshot's bytes are; `None` while one is expected from a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotBody(pub(crate) Option<Snapshot>);

/// Bits of an owner's term that hold the node.
const NODE_BITS: u32 = 24;
/// The highest node id a group can have, so that [`owner_term`] holds it.
pub(crate) const NODE_MAX: u64 = (1 << NODE_BITS) - 1;

/// The number of a leadership: unique in the group's history, and higher for every later one.
///
/// The Raft term alone is not: openraft orders leaders by (term, node), and lets a higher node lead in the same
/// term after a lower one. 40 bits are left for the term, 34,000 years of one election a second.
pub(crate) fn owner_term(leader: LeaderId<u64>) -> u64 {
    leader.term.saturating_mul(NODE_MAX + 1) | (leader.node_id & NODE_MAX)
}

/// What became of an entry when it was applied. The same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// Its writes are in the state.
    Applied,
    /// Its proposers owned the shard in another term: nothing was written.
    Fenced,
}

/// What the state keeps beside its rows: the last applied entry, and the membership then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The last applied entry, `None` before the first.
    pub(crate) id: Option<Id>,
    /// The last membership that was applied.
    pub(crate) members: Members,
}

impl Applied {
    /// The bytes kept as the `meta` of a [`umbel_storage::state::Mark`].
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        codec::encode_meta((
            self.id.as_ref().map(stored_id),
            self.members.log_id().as_ref().map(stored_id),
            stored_members(self.members.membership()),
        ))
    }

    /// Reads them back; no bytes at all mean a state that was never touched.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        type Disk = (Option<StoredLogId>, Option<StoredLogId>, StoredMembers);
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (id, members_id, members): Disk = codec::decode_meta("applied mark", bytes)?;
        Ok(Self {
            id: id.map(id_of),
            members: Members::new(members_id.map(id_of), members_of(members)),
        })
    }

    /// The index of the entry that is applied next.
    pub(crate) fn next_index(&self) -> u64 {
        self.id.map_or(0, |id| id.index + 1)
    }
}

/// The bytes of an entry in the log.
pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, EncodeError> {
    let body = match &entry.payload {
        EntryPayload::Blank => StoredBody::Blank,
        EntryPayload::Normal(Payload(bytes)) => StoredBody::Batch(bytes.to_vec()),
        EntryPayload::Membership(members) => StoredBody::Membership(stored_members(members)),
    };
    StoredEntry {
        id: stored_id(&entry.log_id),
        body,
    }
    .encode()
}

/// Reads an entry of the log back.
pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    let StoredEntry { id, body } = StoredEntry::decode(bytes)?;
    let payload = match body {
        StoredBody::Blank => EntryPayload::Blank,
        StoredBody::Batch(bytes) => EntryPayload::Normal(Payload(bytes.into())),
        StoredBody::Membership(members) => EntryPayload::Membership(members_of(members)),
    };
    Ok(Entry {
        log_id: id_of(id),
        payload,
    })
}

/// The bytes of a log id.
pub(crate) fn encode_id(id: &Id) -> Result<Vec<u8>, EncodeError> {
    codec::encode_meta(stored_id(id))
}

/// Reads a log id back.
pub(crate) fn decode_id(bytes: &[u8]) -> Result<Id, CodecError> {
    codec::decode_meta("log id", bytes).map(id_of)
}

/// The bytes of a vote.
pub(crate) fn encode_vote(vote: &Vote<u64>) -> Result<Vec<u8>, EncodeError> {
    codec::encode_meta((vote.leader_id.term, vote.leader_id.node_id, vote.committed))
}

/// Reads a vote back.
pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote<u64>, CodecError> {
    let (term, node, committed) = codec::decode_meta("vote", bytes)?;
    Ok(if committed {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    })
}

fn stored_id(id: &Id) -> StoredLogId {
    StoredLogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

fn id_of(id: StoredLogId) -> Id {
    LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
}

fn stored_members(members: &Membership<u64, EmptyNode>) -> StoredMembers {
    StoredMembers {
        voters: members
            .get_joint_config()
            .iter()
            .map(|voters| voters.iter().copied().collect())
            .collect(),
        nodes: members.nodes().map(|(id, _)| *id).collect(),
    }
}

fn members_of(members: StoredMembers) -> Membership<u64, EmptyNode> {
    let voters: Vec<BTreeSet<u64>> = members
        .voters
        .into_iter()
        .map(|voters| voters.into_iter().collect())
        .collect();
    let nodes: BTreeSet<u64> = members.nodes.into_iter().collect();
    Membership::new(voters, nodes)
}
