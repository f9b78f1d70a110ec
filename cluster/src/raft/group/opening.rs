//! What is looked at on disk before a group starts.

use std::sync::Arc;

use tokio::sync::watch;
use umbel_core::ids::ShardId;
use umbel_storage::{
    log::{GroupId, GroupLog, Meta},
    state::State,
};

use crate::{
    codec,
    raft::{
        Damage, Fatal,
        log_store::LogStore,
        machine::Machine,
        recover::{self, Received},
    },
};

/// What is looked at before a group starts.
pub(super) struct Opening {
    pub(super) shard: ShardId,
    pub(super) node: u64,
    pub(super) log: Arc<dyn GroupLog>,
    pub(super) state: Arc<dyn State>,
    pub(super) fatal: Fatal,
    pub(super) with_peers: bool,
    pub(super) told: watch::Sender<u64>,
}

/// What was found.
pub(super) struct Opened {
    pub(super) store: LogStore,
    pub(super) machine: Machine,
    /// Whether the group ever had a leader, as far as this node knows.
    pub(super) had_leader: bool,
    pub(super) probation: bool,
    pub(super) sole_voter: bool,
}

impl Opening {
    /// Blocks: reads records, and restores a snapshot where that is needed.
    pub(super) fn open(self) -> Result<Opened, Damage> {
        let mut store = self.log_store()?;
        let (shard, state, log) = (self.shard, self.state.as_ref(), self.log.as_ref());
        if self.with_peers {
            match recover::finish_install(shard, state, log, &store)? {
                Received::Settled => {},
                Received::Committed(id) => store.trust_upto(id),
                Received::Installed => store = self.log_store()?,
            }
        }
        let recovered = recover::recover(shard, state, log, &store)?;
        // On probation an only voter has perhaps forgotten that there are others: nothing is taken for granted then.
        let probation = self.with_peers && self.is_on_probation()?;
        let sole_voter =
            recover::sole_voter(self.node, &recovered.applied, &store, self.with_peers)?
                && !probation;
        if sole_voter {
            store.trust_whole_log();
        }
        let machine = Machine::new(
            shard,
            self.state,
            store.common(),
            recovered.applied,
            recovered.snapshot,
            self.told,
        )?;
        Ok(Opened {
            had_leader: store.stored_vote()?.is_some(),
            probation,
            store,
            machine,
            sole_voter,
        })
    }

    fn is_on_probation(&self) -> Result<bool, Damage> {
        let id = GroupId(u64::from(self.shard.0));
        let noted = self.log.meta(id, Meta::Probation);
        noted.map_or(Ok(false), |bytes| {
            codec::decode_meta("probation", &bytes)
                .map_err(|error| Damage::of_record("probation", &error))
        })
    }

    fn log_store(&self) -> Result<LogStore, Damage> {
        let id = GroupId(u64::from(self.shard.0));
        LogStore::open(
            id,
            self.node,
            Arc::clone(&self.log),
            Arc::clone(&self.fatal),
        )
    }
}
