//! A fleet that only counts epochs.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::Mutex;
use umbel_actors::ports::{BoxFuture, EvictReason, Outbox};
use umbel_core::{
    device,
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShardId},
    message::Message,
    shadow,
};
use umbel_storage::{Ledger, Table, Write, memory::MemoryLedger};

use super::super::net::Links;
use crate::broker::{Broker, End, FleetError, FleetPort, Opened, Pulse};

#[derive(Clone, Debug, Default)]
pub(in super::super) struct Record {
    epoch: u64,
    gateway: u64,
    expiry: u32,
    connected: bool,
    exists: bool,
    will: Option<Message>,
}

/// Keeps the fleet's promises to the broker, and nothing else.
#[derive(Default)]
pub(in super::super) struct TestFleet {
    pub(super) records: Arc<Mutex<BTreeMap<ClientId, Record>>>,
    pub(super) broker: OnceLock<Weak<Broker>>,
    pub(super) ledger: OnceLock<MemoryLedger>,
    pub(in super::super) ends: Mutex<Vec<(String, u64, End)>>,
    /// Whose connection was given up without an end, because its client comes back.
    pub(in super::super) moved: Mutex<Vec<String>>,
    pub(in super::super) requests: Mutex<Vec<shadow::Request>>,
    /// Shadow requests wait until a permit is there.
    pub(in super::super) gate: Option<Arc<tokio::sync::Semaphore>>,
    /// The node of this part of the fleet, if it has more than one.
    pub(super) net: Option<(NodeId, Arc<Links>)>,
}

impl TestFleet {
    fn wipe(&self, client: &ClientId) {
        let (Some(ledger), prefix) = (self.ledger.get(), format!("{client}\0")) else {
            return;
        };
        let shard = ShardId::of(client.as_str(), ledger.shards());
        let writes = [Table::Subscription, Table::Queue, Table::Inbound]
            .map(|table| Write::delete_prefix(table, prefix.as_bytes()));
        let term = ledger.term(shard).expect("owned");
        drop(ledger.propose(shard, term, writes.into()));
    }

    /// Where the client's actor is.
    fn broker_of(&self, client: &ClientId) -> Arc<Broker> {
        if let Some((_, links)) = &self.net {
            let shards = self.ledger.get().expect("attached").shards();
            return links.owner_of(client, shards).expect("an owner").1;
        }
        self.broker.get().and_then(Weak::upgrade).expect("attached")
    }

    /// The part of a fleet that lives on one node of several.
    pub(in super::super) fn in_net(
        records: &Arc<Mutex<BTreeMap<ClientId, Record>>>,
        net: (NodeId, Arc<Links>),
        broker: &Arc<Broker>,
        ledger: &MemoryLedger,
    ) -> Self {
        Self {
            records: Arc::clone(records),
            broker: OnceLock::from(Arc::downgrade(broker)),
            ledger: OnceLock::from(ledger.clone()),
            net: Some(net),
            ..Self::default()
        }
    }
}

/// The trait's methods on a shared test fleet.
pub(in super::super) struct Port(pub(in super::super) Arc<TestFleet>);

impl FleetPort for Port {
    fn connect(
        &self,
        client: ClientId,
        connect: device::Connect,
    ) -> BoxFuture<'static, Result<Opened, FleetError>> {
        let fleet = Arc::clone(&self.0);
        Box::pin(async move {
            let before = fleet
                .records
                .lock()
                .get(&client)
                .cloned()
                .unwrap_or_default();
            let session_present = before.exists && before.expiry > 0 && !connect.clean_start;
            let epoch = before.epoch + 1;
            if before.exists && !session_present {
                fleet.wipe(&client);
                fleet
                    .broker_of(&client)
                    .end_session(&client, SessionEpoch(before.epoch));
            }
            if before.connected {
                let old = SessionEpoch(before.epoch);
                let gateway = NodeId(before.gateway);
                let broker = fleet.broker_of(&client);
                broker.evict(&client, old, gateway, EvictReason::TakenOver);
            }
            let record = Record {
                epoch,
                gateway: connect.gateway.0,
                expiry: connect.expiry,
                connected: true,
                exists: true,
                will: connect.will.map(|will| will.message),
            };
            fleet.records.lock().insert(client, record);
            Ok(Opened {
                epoch: SessionEpoch(epoch),
                session_present,
                pulse: Pulse::none(),
            })
        })
    }

    fn disconnect(
        &self,
        client: ClientId,
        epoch: SessionEpoch,
        end: End,
    ) -> BoxFuture<'static, ()> {
        let fleet = Arc::clone(&self.0);
        Box::pin(async move {
            fleet.ends.lock().push((client.to_string(), epoch.0, end));
            let (is_over, will) = {
                let mut records = fleet.records.lock();
                let Some(record) = records
                    .get_mut(&client)
                    .filter(|record| record.epoch == epoch.0)
                else {
                    return;
                };
                record.connected = false;
                record.expiry = end.expiry.unwrap_or(record.expiry);
                record.exists = record.expiry > 0;
                (!record.exists, record.will.take().filter(|_| end.with_will))
            };
            if let Some(will) = will {
                fleet.broker_of(&client).publish(Arc::new(will)).await;
            }
            if is_over {
                fleet.wipe(&client);
                fleet.broker_of(&client).end_session(&client, epoch);
            }
        })
    }

    fn moved(&self, client: ClientId, epoch: SessionEpoch) -> BoxFuture<'static, ()> {
        self.0.moved.lock().push(client.to_string());
        if let Some(record) = self.0.records.lock().get_mut(&client)
            && record.epoch == epoch.0
        {
            record.connected = false;
        }
        Box::pin(std::future::ready(()))
    }

    fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        let (me, links) = self.0.net.as_ref()?;
        let shards = self.0.ledger.get()?.shards();
        let (owner, _) = links.owner_of(client, shards)?;
        let records = self.0.records.lock();
        let record = records.get(client)?;
        (owner == *me && record.connected).then_some(NodeId(record.gateway))
    }

    fn shadow(
        &self,
        _device: DeviceId,
        request: shadow::Request,
    ) -> BoxFuture<'static, Result<(), FleetError>> {
        let fleet = Arc::clone(&self.0);
        Box::pin(async move {
            fleet.requests.lock().push(request);
            if let Some(gate) = &fleet.gate {
                gate.acquire().await.expect("open").forget();
            }
            Ok(())
        })
    }
}
