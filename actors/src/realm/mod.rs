//! The cluster-wide face of the fleet: the same verbs, sent to whoever owns the device.
//!
//! A verb whose device lives on this node goes straight to its actor: nothing is encoded, no task is made. Otherwise it
//! goes to the owner as a [`crate::remote::Verb`]. What this node holds as a gateway stands in `gateway.rs`; what it
//! does about it now and then, in `rounds.rs`.

mod edits;
mod gateway;
mod holds;
mod lists;
mod rounds;
mod route;
mod turns;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use umbel_core::{
    device::{Connect, Disconnect, DisconnectReason},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShadowName, ShardId},
    shadow::{self, Origin, Request},
    time::Tick,
};
use umbel_storage::nodes::Nodes;

pub(crate) use gateway::{Beat, Totals};
pub use rounds::Rounds;

use self::{
    gateway::{Disclaimed, Gateway},
    route::Orphans,
    turns::Turns,
};
use crate::{
    feed::Events,
    fleet::{Fleet, Opened, Pulse},
    metrics::ForwardMeters,
    ports::Peers,
    query::NamedPage,
    refused::Refused,
    remote::{self, Answer, Call, Opening, RequestId, Verb},
    view::DeviceView,
};

/// How long things may take between nodes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A question is answered or given up within this. A shard that loses its owner has another after 1.5 s at the
    /// median, so most requests survive a failover; longer would hold a client's window up for requests that are late.
    pub deadline: Duration,
    /// A shard that nobody has served for so long is refused at once: two election timeouts at their longest.
    pub nobody_within: Duration,
    /// Signs of life are reported to owners so often. They are for people; what depends on silence, the gateway sees.
    pub touches_every: Duration,
    /// Everything this node holds is compared with its owners once in this time, whatever happened.
    pub compare_all_every: Duration,
    /// Between two tries of what could not be told.
    pub retry_every: Duration,
    /// A command that was given up so long ago is not on its way any more: three times the deadline, because what was
    /// sent last may have waited in queues.
    pub sure_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            nobody_within: Duration::from_millis(1_800),
            touches_every: Duration::from_secs(5),
            compare_all_every: Duration::from_mins(5),
            retry_every: Duration::from_secs(1),
            sure_after: Duration::from_secs(6),
        }
    }
}

/// Every device and application of the cluster, by name. Cheap to clone.
#[derive(Clone)]
pub struct Realm(Arc<Inner>);

pub(crate) struct Inner {
    fleet: Fleet,
    nodes: Arc<dyn Nodes>,
    peers: Arc<dyn Peers>,
    me: NodeId,
    boot: u64,
    timing: Timing,
    gateway: Gateway,
    orphans: Orphans,
    turns: Turns,
    /// Shards to compare with their owner although nothing moved.
    dirty: Mutex<BTreeSet<ShardId>>,
    prompt: Notify,
    numbers: AtomicU64,
    meters: ForwardMeters,
}

impl Realm {
    /// The face of a cluster, on the node of this fleet. The fleet was started with [`Fleet::start_among`]; the rounds
    /// begin when this returns.
    pub fn start(fleet: Fleet, peers: Arc<dyn Peers>, timing: Timing) -> (Self, Rounds) {
        let common = Arc::clone(&fleet.common);
        let nodes = common
            .nodes
            .as_ref()
            .map_or_else(|| Self::alone(&fleet), Arc::clone);
        let shards = fleet.shards.len();
        let realm = Self(Arc::new(Inner {
            me: nodes.me(),
            boot: nodes.boot().0,
            nodes,
            peers,
            timing,
            gateway: Gateway::new(shards),
            orphans: Orphans::new(shards),
            turns: Turns::new(shards),
            dirty: Mutex::default(),
            prompt: Notify::new(),
            numbers: AtomicU64::new(0),
            meters: ForwardMeters::new(),
            fleet,
        }));
        common.join(&realm.0);
        let rounds = Rounds::start(Arc::clone(&realm.0));
        (realm, rounds)
    }

    fn alone(fleet: &Fleet) -> Arc<dyn Nodes> {
        let ledger = Arc::clone(&fleet.common.ledger);
        Arc::new(umbel_storage::memory::OneNode::new(NodeId(0), ledger))
    }

    /// The devices of this node.
    pub fn local(&self) -> &Fleet {
        &self.0.fleet
    }

    /// Answers another node.
    pub async fn serve(&self, from: NodeId, verb: Verb) -> Answer {
        remote::serve(&self.0.fleet, from, verb).await
    }

    /// Opens a session of a connection to this node. Its epoch is committed before this returns.
    pub async fn connect(&self, client: &ClientId, connect: Connect) -> Result<Opened, Refused> {
        let inner = &self.0;
        let shard = inner.fleet.shard(client);
        let opening = inner.gateway.opening(shard.id, client);
        let ended = opening.ended();
        let local = match shard.term() {
            Ok(_) => match self.connect_here(client, connect.clone(), ended).await {
                Err(Refused::NotOwner) => None,
                done => Some(done),
            },
            Err(_elsewhere) => None,
        };
        let is_local = local.is_some();
        let opened = if let Some(opened) = local {
            opened
        } else {
            let verb = Verb::Connect(Box::new(Opening {
                call: inner.call(),
                client: client.clone(),
                connect,
                ended,
            }));
            match inner.route(shard, verb).await {
                Ok(Answer::Opened(opened)) => Ok(opened),
                Ok(other) => Err(odd(client, &other)),
                Err(why) => Err(why),
            }
        };
        let held = opened.and_then(|opened| {
            let now = inner.fleet.common.clock.tick();
            match opening.opened(opened.epoch, now) {
                Ok(beat) => Ok((opened, beat)),
                // A newer connection has its place.
                Err(Disclaimed) => Err(Refused::Unknown),
            }
        });
        match held {
            Ok((opened, beat)) => {
                let slot = is_local.then(|| inner.fleet.touched_slot(client)).flatten();
                Ok(Opened::new(opened, Pulse::new(slot, Some(beat))))
            },
            Err(why) => {
                // It may be recorded as connected here.
                let is_in_doubt = matches!(why, Refused::Unknown | Refused::Restarting);
                if is_in_doubt && !opening.doubt(Instant::now()) {
                    drop(opening);
                    inner.soil(shard.id);
                }
                Err(why)
            },
        }
    }

    async fn connect_here(
        &self,
        client: &ClientId,
        connect: Connect,
        ended: Option<Disconnect>,
    ) -> Result<umbel_core::device::Opened, Refused> {
        let fleet = &self.0.fleet;
        let _turn = self.0.turns.take(fleet.shard(client).id).await?;
        if let Some(end) = ended {
            fleet.end(client, end).await?;
        }
        fleet.open(client, connect, None).await
    }

    /// Records that a connection of this node ended. An end that cannot be recorded now is kept and told again until
    /// it is, so the caller need not repeat it.
    pub async fn disconnect(
        &self,
        client: &ClientId,
        epoch: SessionEpoch,
        reason: DisconnectReason,
        expiry: Option<u32>,
        with_will: bool,
    ) -> Result<(), Refused> {
        let inner = &self.0;
        let end = Disconnect {
            epoch,
            reason,
            expiry,
            with_will,
        };
        let shard = inner.fleet.shard(client);
        if !inner.gateway.end(shard.id, client, end) {
            return Ok(());
        }
        let told = match shard.term() {
            Ok(_) => inner.fleet.end(client, end).await,
            Err(_elsewhere) => {
                let ends = vec![(client.clone(), end)];
                let shard_id = shard.id;
                let verb = Verb::Ended {
                    shard: shard_id,
                    ends,
                };
                match inner.route(shard, verb).await {
                    Ok(Answer::Recorded(recorded)) if recorded.is_empty() => {
                        Err(Refused::Overloaded)
                    },
                    Ok(Answer::Recorded(_)) => Ok(()),
                    Ok(other) => Err(odd(client, &other)),
                    Err(why) => Err(why),
                }
            },
        };
        if told.is_ok() {
            inner.gateway.recorded(shard.id, client, epoch);
        }
        told
    }

    /// Gives a connection of this node up without a word: its client is stale, and offline only if it does not come
    /// back, here or elsewhere, within its grace. For a node that sends its clients away.
    pub async fn lost(&self, client: &ClientId, epoch: SessionEpoch) -> Result<(), Refused> {
        let inner = &self.0;
        let shard = inner.fleet.shard(client);
        inner.gateway.forget(shard.id, client, epoch);
        let client = client.clone();
        match inner.route(shard, Verb::Lost { client, epoch }).await {
            Ok(_) => Ok(()),
            Err(why) => {
                inner.soil(shard.id);
                Err(why)
            },
        }
    }

    /// An owner wants a connection of this node ended that is not there, or not yet: what is held of its shard is
    /// compared with the owner soon.
    pub fn missed(&self, client: &ClientId) {
        let inner = &self.0;
        let shard = inner.fleet.shard(client).id;
        if inner.gateway.knows(shard, client) {
            // At the next look around, which bounds what a peer can make this node do.
            inner.dirty.lock().insert(shard);
        }
    }

    /// Whether anything is remembered of a client here.
    #[cfg(test)]
    pub(crate) fn knows(&self, client: &ClientId) -> bool {
        let shard = self.0.fleet.shard(client).id;
        self.0.gateway.knows(shard, client)
    }

    /// Notes a sign of life.
    pub fn touch(&self, pulse: &Pulse, now: Tick) {
        self.0.fleet.touch(pulse, now);
    }

    /// Works on a shadow request. It is on its way, in order, at the first poll. Answers over MQTT, refusals included,
    /// are published before this returns.
    pub async fn shadow(
        &self,
        device: &DeviceId,
        request: Request,
    ) -> Result<shadow::Reply, Refused> {
        let kept = matches!(request.origin, Origin::Mqtt { .. }).then(|| request.clone());
        let refused = match self.0.ask_shadow(device, request).await {
            Ok(reply) => return Ok(reply),
            Err(why) => why,
        };
        if let Some(request) = kept {
            self.0.fleet.reject(device, &request, refused).await;
        }
        Err(refused)
    }

    /// A shadow as any node has it that keeps a copy: quick, and maybe a moment old. The request is a get.
    pub async fn shadow_stale(
        &self,
        device: &DeviceId,
        request: Request,
    ) -> Result<shadow::Reply, Refused> {
        let inner = &self.0;
        match inner.fleet.glance(device, &request) {
            Err(Refused::NotOwner) => inner.glance_elsewhere(device, request).await,
            told => told,
        }
    }

    /// One device, as it is committed. Wakes nobody.
    pub async fn device(&self, device: &DeviceId) -> Result<Option<DeviceView>, Refused> {
        let view = self.client(&device.clone().into()).await?;
        Ok(view.filter(remote::is_device))
    }

    /// One client, device or not. Wakes nobody.
    pub async fn client(&self, client: &ClientId) -> Result<Option<DeviceView>, Refused> {
        let inner = &self.0;
        match inner.fleet.client(client) {
            Err(Refused::NotOwner) => {},
            read => return read,
        }
        let shard = inner.fleet.shard(client);
        let client = client.clone();
        let answer = inner.route(shard, Verb::Client { client }).await?;
        if let Answer::Client(view) = answer {
            Ok(view.map(|view| *view))
        } else {
            Err(odd(&"client", &answer))
        }
    }

    /// A page of the names of a device's shadows. Wakes nobody.
    pub async fn list_named(
        &self,
        device: &DeviceId,
        after: Option<&ShadowName>,
        limit: usize,
    ) -> Result<NamedPage, Refused> {
        let inner = &self.0;
        match inner.fleet.list_named(device, after, limit) {
            Err(Refused::NotOwner) => {},
            read => return read,
        }
        let verb = Verb::Named {
            device: device.clone(),
            after: after.cloned(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let shard = inner.fleet.shard(&device.clone().into());
        let answer = inner.route(shard, verb).await?;
        if let Answer::Named(page) = answer {
            Ok(page)
        } else {
            Err(odd(device, &answer))
        }
    }

    /// Lets a device out of quarantine; false when it was not in it.
    pub async fn release(&self, client: &ClientId) -> Result<bool, Refused> {
        let inner = &self.0;
        let shard = inner.fleet.shard(client);
        let client = client.clone();
        let answer = inner.route(shard, Verb::Release { client }).await?;
        if let Answer::Released(released) = answer {
            Ok(released)
        } else {
            Err(odd(&"client", &answer))
        }
    }

    /// The node that holds a client's connection, or may, if this node owns the client.
    pub fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        self.0.fleet.gateway_of(client)
    }

    /// The epoch of a client's last connection, if this node owns the client and knows it.
    pub fn current_epoch(&self, client: &ClientId) -> Option<SessionEpoch> {
        self.0.fleet.current_epoch(client)
    }

    /// What happens from now on to the devices of this node, or since the event `after`.
    pub fn events(&self, after: Option<u64>) -> Events {
        self.0.fleet.events(after)
    }
}

impl Inner {
    /// A command that was not sent before.
    fn call(&self) -> Call {
        Call {
            id: RequestId {
                gateway: self.me,
                boot: self.boot,
                number: self.numbers.fetch_add(1, Ordering::Relaxed),
            },
            again: false,
        }
    }

    /// What is held of a shard has to be compared with its owner.
    fn soil(&self, shard: ShardId) {
        self.dirty.lock().insert(shard);
        self.prompt.notify_one();
    }

    async fn ask_shadow(
        &self,
        device: &DeviceId,
        request: Request,
    ) -> Result<shadow::Reply, Refused> {
        let client = ClientId::from(device.clone());
        let shard = self.fleet.shard(&client);
        if shard.term().is_ok() {
            match self.fleet.ask_shadow(device, request.clone(), None).await {
                Err(Refused::NotOwner) => {},
                done => return done,
            }
        }
        let verb = Verb::Shadow {
            call: self.call(),
            device: device.clone(),
            request,
        };
        let answer = self.route(shard, verb).await?;
        if let Answer::Shadow(reply) = answer {
            Ok(reply)
        } else {
            Err(odd(device, &answer))
        }
    }
}

/// Another node answered something else than was asked: a fault of ours, and the outcome is what it says.
fn odd(subject: &dyn std::fmt::Display, answer: &Answer) -> Refused {
    tracing::error!(%subject, ?answer, "an owner gave an answer that does not fit");
    Refused::Unknown
}
