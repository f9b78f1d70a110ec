//! A replica that may have forgotten something does not vote until it has caught up.
//!
//! That is one on a disk that went back in time or was wiped ([`crate::lives`]), and every one that begins with nothing:
//! it may have been a voter before. Probation survives a restart. It ends when the replica has applied everything up to
//! an entry that a leader committed in its own term: before that entry come all that were ever committed, those that this
//! replica acknowledged and forgot among them.

use std::sync::{Arc, atomic::Ordering};

use openraft::LeaderId;
use umbel_core::ids::{NodeId, ShardId};
use umbel_storage::{
    Reach,
    log::{GroupId, GroupLog, Meta},
};

use super::Group;
use crate::{
    codec::encode_meta,
    identity,
    raft::{mux::Lost, rpc::Ask, types::Id},
};

/// Writes down whether a replica is on probation, also of one that does not run.
pub(crate) async fn remember(log: &dyn GroupLog, shard: ShardId, on: bool) -> Result<(), String> {
    let bytes = encode_meta(on).map_err(|error| error.to_string())?;
    identity::set(log, GroupId(u64::from(shard.0)), Meta::Probation, bytes).await
}

impl Group {
    /// Whether the replica may neither vote nor campaign.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.probation.load(Ordering::Acquire)
    }

    /// From now on the replica neither votes nor campaigns, also after a restart. One that knows of no other voter stops
    /// serving, and campaigns when nobody says that there are some: see [`Group::is_alone_indeed`].
    pub(crate) async fn begin_probation(&self) -> Result<(), String> {
        self.probation.store(true, Ordering::Release);
        if self.knows_no_other_voter() {
            let vote = self.server.borrow().vote;
            if vote.committed && vote.leader_id.node_id == self.node {
                // The conductor ends a leadership that may not speak.
                self.lease.yielded(vote.leader_id);
            }
        }
        self.remember_probation(true).await
    }

    /// Whether this node is the only voter, as far as its disk remembers.
    pub(super) fn knows_no_other_voter(&self) -> bool {
        let server = self.server.borrow();
        let mut voters = server.membership_config.membership().voter_ids();
        voters.next() == Some(self.node) && voters.next().is_none()
    }

    /// An only voter on probation: its disk may be older than the membership of the others. Who has a replica of the group
    /// would show that; if everybody who can be asked has none, nobody has more than this node.
    pub(super) async fn is_alone_indeed(&self) -> bool {
        let Some(mux) = &self.mux else { return true };
        let others: Vec<NodeId> = {
            let peers = mux.transport().peers();
            let peers = peers.borrow();
            let connected = peers.iter().filter(|peer| peer.reach == Reach::Connected);
            connected.map(|peer| peer.node).collect()
        };
        if others.is_empty() {
            return false;
        }
        for other in others {
            let within = self.config.election_min;
            let asked = mux.ask(other, self.id.0, &Ask::Ready, None, within);
            if !matches!(asked.await, Err(Lost::NoGroup)) {
                return false;
            }
        }
        let forgotten = self.remember_probation(false).await.is_ok();
        if forgotten {
            self.probation.store(false, Ordering::Release);
        }
        forgotten
    }

    async fn remember_probation(&self, on: bool) -> Result<(), String> {
        remember(self.log.as_ref(), self.machine.shard(), on).await
    }

    /// A leader said what it has committed.
    pub(super) fn look_at_probation(
        self: &Arc<Self>,
        leader: LeaderId<u64>,
        committed: Option<Id>,
    ) {
        if !self.is_on_probation() {
            return;
        }
        let own = committed.filter(|id| id.leader_id == leader);
        let applied = self.machine.progress().applied;
        if own.is_none_or(|id| applied < id.index) {
            return;
        }
        // In memory only when it is forgotten on disk: a crash in between costs another catching up.
        let group = Arc::clone(self);
        tokio::spawn(async move {
            if group.remember_probation(false).await.is_ok() {
                group.probation.store(false, Ordering::Release);
                tracing::info!(shard = group.id.0, "the replica has caught up and may vote");
            }
        });
    }
}
