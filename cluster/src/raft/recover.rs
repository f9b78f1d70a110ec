//! What has to fit together before a group may run: vote, log, state and snapshot.
//!
//! The log is believed. The state can be rebuilt, from a snapshot and the log behind it; where the log has been
//! purged beyond what is left to rebuild from, the shard does not serve, and says what is missing.

use bincode::error::EncodeError;
use openraft::EntryPayload;
use umbel_core::ids::ShardId;
use umbel_storage::{
    log::{GroupId, GroupLog, Meta},
    snapshot::Snapshot,
    state::{Digest, Health, Mark, State},
};

use crate::{
    codec::{self, CodecError},
    raft::{
        Damage,
        log_store::LogStore,
        types::{self, Applied, Id},
    },
};

/// What the state made durable, as remembered in the log: a state that comes back as less lost rows without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    index: u64,
    digest: Digest,
}

impl Checkpoint {
    /// Of a mark that the state just made durable.
    pub(crate) fn of(mark: &Mark) -> Self {
        Self {
            index: mark.index,
            digest: mark.digest,
        }
    }

    /// The bytes for the log.
    pub(crate) fn encode(self) -> Result<Vec<u8>, EncodeError> {
        codec::encode_meta((self.index, self.digest.0))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (index, digest) = codec::decode_meta("checkpoint mark", bytes)?;
        Ok(Self {
            index,
            digest: Digest(digest),
        })
    }
}

/// Where a group goes on from.
pub(crate) struct Recovered {
    /// What the state holds.
    pub(crate) applied: Applied,
    /// The shard's latest snapshot.
    pub(crate) snapshot: Option<Snapshot>,
}

/// Checks vote, log and state of a shard against each other, and rebuilds the state where that is needed.
///
/// Blocks: reads records, and restores a snapshot when there is damage.
pub(crate) fn recover(
    shard: ShardId,
    state: &dyn State,
    log: &dyn GroupLog,
    store: &LogStore,
) -> Result<Recovered, Damage> {
    check_vote(store)?;
    let snapshot = state
        .latest_snapshot(shard)
        .map_err(|error| Damage::new(format!("find the latest snapshot: {error}")));
    let found = inspect(shard, state, log, store)?;
    let applied = match found {
        Found::Sound(applied) => applied,
        Found::Rebuild(why) => {
            tracing::warn!(shard = shard.0, %why, "the state is rebuilt from snapshot and log");
            rebuild(
                shard,
                state,
                store,
                snapshot.as_ref().map(Option::as_ref),
                &why,
            )?
        },
    };
    // A snapshot that cannot be found is not needed when the state is sound: the next one replaces it.
    Ok(Recovered {
        applied,
        snapshot: snapshot.ok().flatten(),
    })
}

/// What became of a leader's snapshot before the node stopped.
pub(crate) enum Received {
    /// Nothing is open.
    Settled,
    /// What it holds was committed, and the log has it too.
    Committed(Id),
    /// It was adopted, and is installed now: the log has been cleared up to it and has to be looked at again.
    Installed,
}

/// Finishes the installing of a leader's snapshot that a crash interrupted: adopted, but the rows not or not all
/// replaced, or the log not cleared. Only for a member of a group of several: a node that is alone is sent nothing, and a
/// log that ends before its snapshot has lost entries.
pub(crate) fn finish_install(
    shard: ShardId,
    state: &dyn State,
    log: &dyn GroupLog,
    store: &LogStore,
) -> Result<Received, Damage> {
    let Ok(Some(snapshot)) = state.latest_snapshot(shard) else {
        return Ok(Received::Settled);
    };
    let applied = Applied::decode(&snapshot.mark.meta)
        .map_err(|error| Damage::of_record("snapshot", &error))?;
    let Some(id) = applied.id else {
        return Ok(Received::Settled);
    };
    if store
        .purged()
        .is_some_and(|purged| purged.index >= id.index)
    {
        return Ok(Received::Settled);
    }
    let reaches = store.last().is_some_and(|last| last.index >= id.index);
    if reaches && store.entry(id.index)?.log_id == id {
        return Ok(Received::Committed(id));
    }
    tracing::warn!(shard = shard.0, %id, "the installing of a snapshot was interrupted: it is finished now");
    let behind = match state.health(shard) {
        Health::Damaged(_) => true,
        Health::Sound => state
            .applied(shard)
            .map_or(true, |mark| mark.index < id.index),
    };
    if behind {
        state
            .restore(&snapshot)
            .map_err(|error| Damage::new(error.to_string()))?;
    }
    let group = GroupId(u64::from(shard.0));
    let upto = log.range(group).end.saturating_sub(1).max(id.index);
    let mark = types::encode_id(&id).map_err(|error| Damage::new(error.to_string()))?;
    let (sender, receiver) = std::sync::mpsc::channel();
    // Nobody waits if this thread has ended.
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    log.purge(group, upto, mark.into(), done);
    match receiver.recv() {
        Ok(Ok(())) => Ok(Received::Installed),
        Ok(Err(error)) => Err(Damage::new(format!("clear the log: {error}"))),
        Err(error) => Err(Damage::new(format!("clear the log: {error}"))),
    }
}

enum Found {
    Sound(Applied),
    Rebuild(String),
}

/// A vote is never behind the log: it was durable before the first entry of its term.
fn check_vote(store: &LogStore) -> Result<(), Damage> {
    let Some(last) = store.last() else {
        return Ok(());
    };
    let vote = store.stored_vote()?.map(|vote| vote.leader_id);
    // The entry a new group begins with is written before any vote.
    let first = last.index == 0;
    if !first && vote.is_none_or(|vote| vote < last.leader_id) {
        return Err(Damage::new(format!(
            "the vote ({}) is behind the last log entry ({last}): the log lost a vote",
            vote.map_or_else(|| "none".to_owned(), |vote| vote.to_string()),
        )));
    }
    Ok(())
}

fn inspect(
    shard: ShardId,
    state: &dyn State,
    log: &dyn GroupLog,
    store: &LogStore,
) -> Result<Found, Damage> {
    if let Health::Damaged(detail) = state.health(shard) {
        return Ok(Found::Rebuild(detail));
    }
    let mark = match state.applied(shard) {
        Ok(mark) => mark,
        Err(error) => return Ok(Found::Rebuild(error.to_string())),
    };
    let applied = match Applied::decode(&mark.meta) {
        Ok(applied) => applied,
        Err(error) => return Ok(Found::Rebuild(error.to_string())),
    };
    let checkpoint = log
        .meta(GroupId(u64::from(shard.0)), Meta::Checkpoint)
        .map(|bytes| Checkpoint::decode(&bytes))
        .transpose()
        .map_err(|error| Damage::of_record("checkpoint mark", &error))?;
    // Only the index: behind it, part of a later batch may be in the rows, which the state itself accounts for.
    if let Some(checkpoint) = checkpoint.filter(|checkpoint| mark.index < checkpoint.index) {
        return Ok(Found::Rebuild(format!(
            "the state is at {} with digest {}, though {} with digest {} was made durable",
            mark.index, mark.digest, checkpoint.index, checkpoint.digest
        )));
    }
    fits(&applied, store)
}

/// Whether the log goes on where the state ends.
fn fits(applied: &Applied, store: &LogStore) -> Result<Found, Damage> {
    let (purged, last) = (store.purged(), store.last());
    let next = applied.next_index();
    if purged.is_some_and(|purged| next <= purged.index) {
        return Ok(Found::Rebuild(format!(
            "the state ends at {}, and the log has been purged up to {}",
            index_of(applied.id),
            index_of(purged)
        )));
    }
    let Some(id) = applied.id else {
        return Ok(Found::Sound(applied.clone()));
    };
    if last.is_none_or(|last| last.index < id.index) {
        // Applied means durable in the log first. If the log ends before, it lost what was acknowledged.
        return Err(Damage::new(format!(
            "the log ends at {}, but entries up to {} were applied: the log lost acknowledged entries",
            index_of(last),
            id.index
        )));
    }
    let in_log = if purged == Some(id) {
        id
    } else {
        store.entry(id.index)?.log_id
    };
    if in_log != id {
        return Ok(Found::Rebuild(format!(
            "the state holds {id}, the log {in_log}"
        )));
    }
    Ok(Found::Sound(applied.clone()))
}

fn rebuild(
    shard: ShardId,
    state: &dyn State,
    store: &LogStore,
    snapshot: Result<Option<&Snapshot>, &Damage>,
    why: &str,
) -> Result<Applied, Damage> {
    let purged = store.purged();
    let failure = match restore(state, store, snapshot) {
        Ok(Some(applied)) => return Ok(applied),
        Ok(None) => "there is no snapshot".to_owned(),
        Err(damage) => damage.to_string(),
    };
    let Some(purged) = purged else {
        // The log is whole: it alone rebuilds everything.
        tracing::warn!(shard = shard.0, %failure, "the state is rebuilt from the log alone");
        state
            .drop_shard(shard)
            .map_err(|error| Damage::new(format!("drop the damaged state: {error}")))?;
        return Ok(Applied::default());
    };
    Err(Damage::new(format!(
        "state: {why}; snapshot: {failure}; the log begins after {}, so what came before is missing",
        purged.index
    )))
}

/// Restores the snapshot, if there is one and the log goes on from it.
fn restore(
    state: &dyn State,
    store: &LogStore,
    snapshot: Result<Option<&Snapshot>, &Damage>,
) -> Result<Option<Applied>, Damage> {
    let Some(snapshot) = snapshot.map_err(Clone::clone)? else {
        return Ok(None);
    };
    let applied = Applied::decode(&snapshot.mark.meta)
        .map_err(|error| Damage::of_record("snapshot", &error))?;
    match fits(&applied, store)? {
        Found::Sound(_) => {},
        Found::Rebuild(why) => return Err(Damage::new(format!("the snapshot is too old: {why}"))),
    }
    state
        .restore(snapshot)
        .map_err(|error| Damage::new(error.to_string()))?;
    Ok(Some(applied))
}

/// Whether this node alone decides what the group's log is: it is the only voter of the last membership. Then
/// every entry in its log is committed, because no other node could ever overwrite one.
///
/// A node that is alone and not even a member has somebody else's data. Where there are peers, it may have been removed,
/// or not have heard yet that it was added.
pub(crate) fn sole_voter(
    node: u64,
    applied: &Applied,
    store: &LogStore,
    with_peers: bool,
) -> Result<bool, Damage> {
    let end = store.last().map_or(0, |last| last.index + 1);
    let mut members = applied.members.membership().clone();
    for index in applied.next_index()..end {
        if let EntryPayload::Membership(newer) = store.entry(index)?.payload {
            members = newer;
        }
    }
    let nodes: Vec<u64> = members.nodes().map(|(node, _)| *node).collect();
    if !with_peers && !nodes.is_empty() && !nodes.contains(&node) {
        return Err(Damage::new(format!(
            "this is node {node}, but the group's members are {nodes:?}"
        )));
    }
    let mut voters = members.voter_ids();
    Ok(voters.next() == Some(node) && voters.next().is_none())
}

fn index_of(id: Option<Id>) -> String {
    id.map_or_else(|| "the beginning".to_owned(), |id| id.index.to_string())
}
