//! A replica that may have forgotten something does not vote until it has caught up.
//!
//! That is one on a disk that went back in time or was wiped ([`crate::lives`]), and every one that begins with nothing:
//! it may have been a voter before. Probation survives a restart. It ends when the replica has applied everything up to
//! an entry that a leader committed in its own term: before that entry come all that were ever committed, those that this
//! replica acknowledged and forgot among them.

use std::sync::{Arc, atomic::Ordering};

use openraft::LeaderId;
use umbel_storage::log::Meta;

use super::Group;
use crate::{codec::encode_meta, identity, raft::types::Id};

impl Group {
    /// Whether the replica may neither vote nor campaign.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.probation.load(Ordering::Acquire)
    }

    /// From now on the replica neither votes nor campaigns, also after a restart. Nothing changes where this node is the
    /// only voter: nobody else has more.
    pub(crate) async fn begin_probation(&self) -> Result<(), String> {
        let alone = {
            let server = self.server.borrow();
            let mut voters = server.membership_config.membership().voter_ids();
            voters.next() == Some(self.node) && voters.next().is_none()
        };
        if alone {
            return Ok(());
        }
        self.probation.store(true, Ordering::Release);
        self.remember_probation(true).await
    }

    async fn remember_probation(&self, on: bool) -> Result<(), String> {
        let bytes = encode_meta(on).map_err(|error| error.to_string())?;
        identity::set(self.log.as_ref(), self.id, Meta::Probation, bytes).await
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
