//! Start and stop of a fleet.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorRef};
use thiserror::Error;
use tracing::warn;
use umbel_core::ids::ShardId;
use umbel_storage::{ledger::Ledger, nodes::Nodes};

use crate::{
    common::Common,
    config::Config,
    fleet::Fleet,
    ports::{Clock, Outbox},
    shard::Shard,
    supervisor::Root,
    timer::Clockwork,
};

/// What runs behind a [`Fleet`]. Shut it down; dropping it stops the clockwork only.
pub struct Running {
    fleet: Fleet,
    clockwork: Clockwork,
    root: ActorRef<()>,
}

/// The fleet could not start.
#[derive(Debug, Error)]
#[error("the supervisors could not start")]
pub struct StartError(#[from] ractor::SpawnErr);

impl Fleet {
    /// Starts supervisors and clockwork of a fleet that is alone: every connection is held by this process, which does
    /// not tell its lives apart. No command is taken before [`Fleet::recover`].
    pub async fn start(
        config: Config,
        ledger: Arc<dyn Ledger>,
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Running), StartError> {
        Self::begin(config, (ledger, None), outbox, clock).await
    }

    /// Starts the fleet of a node among others. Its face is a [`crate::Realm`]. No command is taken before
    /// [`Fleet::recover`].
    pub async fn start_among(
        config: Config,
        ledger: Arc<dyn Ledger>,
        nodes: Arc<dyn Nodes>,
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Running), StartError> {
        Self::begin(config, (ledger, Some(nodes)), outbox, clock).await
    }

    async fn begin(
        config: Config,
        (ledger, nodes): (Arc<dyn Ledger>, Option<Arc<dyn Nodes>>),
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Running), StartError> {
        let count = ledger.shards().max(1);
        let common = Common::new(config, (ledger, nodes), outbox, clock);
        let shards: Arc<[Arc<Shard>]> = (0..count)
            .map(|number| Shard::new(ShardId(number), &common))
            .collect();
        let (root, _task) = Actor::spawn(None, Root, shards.to_vec()).await?;
        let clockwork = Clockwork::start(Arc::clone(&common), Arc::clone(&shards));
        let fleet = Self { common, shards };
        let running = Running {
            fleet: fleet.clone(),
            clockwork,
            root,
        };
        Ok((fleet, running))
    }
}

impl Running {
    /// Refuses new commands, waits for those in flight, and stops everything. What could not be finished in
    /// time has an unknown outcome, as after a crash.
    pub async fn shutdown(self, patience: Duration) {
        let Self {
            fleet,
            clockwork,
            root,
        } = self;
        fleet.common.stop();
        clockwork.stop().await;
        let until = tokio::time::Instant::now() + patience;
        while fleet.common.in_flight.taken() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = fleet.common.in_flight.taken();
        if left > 0 {
            warn!(commands = left, "stopping with commands in flight");
        }
        if root.stop_and_wait(None, Some(patience)).await.is_err() {
            warn!("the actors did not stop in time");
        }
        fleet.common.forget_idle();
        fleet.common.feed.close();
        for shard in fleet.shards.iter() {
            shard.set_supervisor(None);
        }
    }
}
