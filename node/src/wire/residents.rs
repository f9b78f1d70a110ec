//! Fleet and broker, which know each other.

use std::{sync::Arc, time::Duration};

use umbel_actors::{
    Fleet, Realm, Rounds, Running, Timing,
    ports::{Clock, Outbox},
};
use umbel_core::device;
use umbel_mqtt::broker::{self, Broker};
use umbel_storage::{Ledger, nodes::Nodes};

use super::{StartError, company::Company, disk::Disk};
use crate::config::{Admission, Config};

/// Everything that serves devices.
pub(super) struct Residents {
    pub(super) broker: Arc<Broker>,
    /// The broker reaches the fleets through this as long as the node is there.
    pub(super) realm: Arc<Realm>,
    rounds: Rounds,
    running: Running,
}

impl Residents {
    /// Starts fleet and broker, and takes up what was stored: at once in a cluster of one, and else shard by shard,
    /// whenever one comes.
    pub(super) async fn move_in(
        config: &Config,
        disk: &Disk,
        company: &mut Company,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let ledger = Arc::clone(&disk.shards) as Arc<dyn Ledger>;
        let broker = company.broker(broker_config(config), &ledger, clock);
        let outbox = Arc::clone(&broker) as Arc<dyn Outbox>;
        let (settings, time) = (fleet_config(config), Arc::clone(clock));
        let (fleet, running) = if company.is_alone() {
            Fleet::start(settings, ledger, outbox, time).await?
        } else {
            let nodes: Arc<dyn Nodes> = Arc::clone(&company.nodes);
            Fleet::start_among(settings, ledger, nodes, outbox, time).await?
        };
        let (realm, rounds) = Realm::start(fleet, company.fleets(), Timing::default());
        let realm = Arc::new(realm);
        broker.attach(Arc::new(Arc::downgrade(&realm)));
        if company.is_alone() {
            recover_alone(realm.local(), &broker).await?;
        } else {
            realm.local().recover().await;
            broker.start();
            company.serve(config, disk, &broker, &realm);
        }
        Ok(Self {
            broker,
            realm,
            rounds,
            running,
        })
    }

    /// Finishes what is in flight.
    pub(super) async fn move_out(self, patience: Duration) {
        self.rounds.shutdown().await;
        self.running.shutdown(patience).await;
    }
}

/// Takes up what was stored, before the first connection.
async fn recover_alone(fleet: &Fleet, broker: &Arc<Broker>) -> Result<(), StartError> {
    let recovering = Arc::clone(broker);
    tokio::task::spawn_blocking(move || recovering.recover())
        .await
        .map_err(|panic| StartError::Open(panic.to_string()))?;
    fleet.recover().await;
    let (known, recovered) = (fleet.clone(), Arc::clone(broker));
    tokio::task::spawn_blocking(move || {
        recovered.end_orphans(|client| {
            let view = known.client(client).ok()?;
            Some(view.is_some_and(|view| view.record.session.is_some()))
        })
    })
    .await
    .map_err(|panic| StartError::Open(panic.to_string()))?;
    Ok(())
}

fn fleet_config(config: &Config) -> umbel_actors::Config {
    let mut rules = device::Rules {
        grace: config.actors.reconnect_grace,
        ..Default::default()
    };
    rules.admission = match config.devices.admission {
        Admission::Open => device::Admission::Open,
        Admission::Listed => device::Admission::Listed,
    };
    rules.shadow.document_bytes = config.shadows.max_document_size;
    rules.shadow.depth = config.shadows.max_depth;
    umbel_actors::Config {
        sleep_after: config.actors.sleep_after.unwrap_or_default(),
        awake_max: config.actors.awake_max,
        rules,
        ..Default::default()
    }
}

fn broker_config(config: &Config) -> broker::Config {
    let mqtt = &config.mqtt;
    broker::Config {
        session_expiry_max: mqtt.session_expiry_max,
        keep_alive_max: mqtt.keep_alive_max,
        receive_maximum: mqtt.receive_maximum,
        packet_bytes_max: mqtt.max_packet_size,
        topic_alias_max: mqtt.topic_alias_maximum,
        subscriptions_max: mqtt.subscriptions_max,
        queue_messages_max: mqtt.queue_messages_max,
        queue_bytes_max: mqtt.queue_bytes_max,
        stored_messages_max: mqtt.queue_messages_max as u64,
        stored_bytes_max: mqtt.queue_bytes_max as u64,
        retained_messages_max: mqtt.retained_messages_max,
        retained_bytes_max: mqtt.retained_bytes_max as u64,
        ..Default::default()
    }
}
