//! The face of the actors: verbs for the edges. Senders, actors and locks never leave this room.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::info;
use umbel_core::{
    device::{self, Connect, Disconnect, DisconnectReason, Input, Kind, Presence, Reply},
    ids::{ClientId, DeviceId, SessionEpoch, ShadowName},
    shadow::{self, Origin, Request, ShadowError},
    time::Tick,
};

use crate::{
    alarms::Alarm,
    census::ByPresence,
    common::Common,
    device::{Answer, Work},
    feed::{Events, FleetEventKind},
    metrics::{self, CommandKind},
    query::{self, Filter, NamedPage, Page},
    realm::Beat,
    recover::{self, Recovered},
    refused::Refused,
    remote::Call,
    shard::Shard,
    slot::{Mode, Slot},
    timer,
    troubles::Quarantined,
    view::DeviceView,
};

/// Every device and application of this node, by name. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    pub(crate) common: Arc<Common>,
    pub(crate) shards: Arc<[Arc<Shard>]>,
}

/// An open session.
#[derive(Clone)]
pub struct Opened {
    /// Of this connection.
    pub epoch: SessionEpoch,
    /// Whether an older session goes on.
    pub session_present: bool,
    /// The open connection that was taken over.
    pub taken_over: Option<SessionEpoch>,
    /// For [`Fleet::touch`].
    pub pulse: Pulse,
}

/// Where signs of life of one client are noted.
#[derive(Clone)]
pub struct Pulse {
    /// At the owner, if that is this node.
    slot: Option<Arc<Slot>>,
    /// At the gateway, which reports them to whoever owns the client.
    beat: Option<Arc<Beat>>,
}

/// Numbers of the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Devices.
    pub devices: ByPresence,
    /// Other clients.
    pub apps: ByPresence,
    /// Actors awake.
    pub awake: usize,
    /// Devices in quarantine.
    pub quarantined: usize,
}

impl Opened {
    pub(crate) const fn new(opened: device::Opened, pulse: Pulse) -> Self {
        Self {
            epoch: opened.epoch,
            session_present: opened.session_present,
            taken_over: opened.taken_over,
            pulse,
        }
    }
}

impl Pulse {
    pub(crate) const fn new(slot: Option<Arc<Slot>>, beat: Option<Arc<Beat>>) -> Self {
        Self { slot, beat }
    }

    /// Notes a sign of life: a store, nobody is woken.
    pub fn touch(&self, now: Tick) {
        if let Some(slot) = &self.slot {
            slot.touch(now);
        }
        if let Some(beat) = &self.beat {
            beat.touch(now);
        }
    }
}

impl Fleet {
    /// Reads what is stored, marks sessions that were connected as stale and schedules what is due. Shards that
    /// come to this node later are recovered by the clockwork.
    pub async fn recover(&self) -> Recovered {
        let mut total = Recovered::default();
        for shard in self.shards.iter() {
            total += recover::shard(shard).await;
        }
        self.common.serve();
        let Recovered {
            clients,
            changed,
            failed,
        } = total;
        info!(clients, changed, failed, "fleet recovered");
        total
    }

    /// Opens a session. Its epoch is committed before this returns.
    pub async fn connect(&self, client: &ClientId, connect: Connect) -> Result<Opened, Refused> {
        let opened = self.open(client, connect, None).await?;
        let pulse = Pulse::new(self.touched_slot(client), None);
        Ok(Opened::new(opened, pulse))
    }

    /// The client's record, touched. Gone already only if it was deleted meanwhile.
    pub(crate) fn touched_slot(&self, client: &ClientId) -> Option<Arc<Slot>> {
        let slot = self.shard(client).find(client)?;
        slot.touch(self.common.clock.tick());
        Some(slot)
    }

    /// Opens a session.
    pub(crate) async fn open(
        &self,
        client: &ClientId,
        connect: Connect,
        call: Option<Call>,
    ) -> Result<device::Opened, Refused> {
        let is_again = call.is_some_and(|call| call.again);
        if !is_again && self.is_thrown_about(client, &connect) {
            self.common.meters.refused(Refused::Overloaded);
            return Err(Refused::Overloaded);
        }
        let work = Work::Input(Box::new(Input::Connect(Box::new(connect))));
        let asked = self.ask_call(client, CommandKind::Connect, work, call);
        match asked.await? {
            Some(Reply::Opened(opened)) => Ok(opened),
            Some(Reply::NotListed) => {
                self.common.meters.refused(Refused::NotListed);
                Err(Refused::NotListed)
            },
            other => Err(unexpected(client, other.as_ref())),
        }
    }

    /// Whether a client is taken over from node to node too often.
    fn is_thrown_about(&self, client: &ClientId, connect: &Connect) -> bool {
        let Some(slot) = self.shard(client).find(client) else {
            return false;
        };
        let held = self.common.lives.of(slot.life()).map(|life| life.node);
        let is_elsewhere = held.is_some_and(|node| node != connect.gateway);
        is_elsewhere
            && slot.presence() == Presence::Online
            && !self
                .common
                .take_overs
                .admit(client, self.common.clock.tick())
    }

    /// Records that a connection ended. A refusal that passes is tried again by itself until it is recorded, so
    /// the caller need not repeat it.
    pub async fn disconnect(
        &self,
        client: &ClientId,
        epoch: SessionEpoch,
        reason: DisconnectReason,
        expiry: Option<u32>,
        with_will: bool,
    ) -> Result<(), Refused> {
        let end = Alarm::Ended(Disconnect {
            epoch,
            reason,
            expiry,
            with_will,
        });
        let shard = self.shard(client);
        // The actor itself sees to refusals after admission; only admission and crashes are ours.
        let lost = match shard.send(client, CommandKind::Disconnect, Work::Alarm(end)) {
            Ok(answer) => match answer.await {
                Ok(answer) => return answer.map(|_| ()),
                Err(_crashed) => Refused::Restarting,
            },
            Err(why) => why,
        };
        timer::retry(shard, client, end, lost);
        Err(lost)
    }

    /// Notes a sign of life: one store, nobody is woken.
    #[expect(
        clippy::unused_self,
        reason = "the verb belongs to the fleet, whoever keeps the number"
    )]
    pub fn touch(&self, pulse: &Pulse, now: Tick) {
        pulse.touch(now);
    }

    /// Works on a shadow request. It is admitted and in order at the first poll. Answers over MQTT, refusals
    /// included, are published before this returns.
    pub async fn shadow(
        &self,
        device: &DeviceId,
        request: Request,
    ) -> Result<shadow::Reply, Refused> {
        let kept = matches!(request.origin, Origin::Mqtt { .. }).then(|| request.clone());
        let refused = match self.ask_shadow(device, request, None).await {
            Ok(reply) => return Ok(reply),
            Err(why) => why,
        };
        if let Some(request) = kept {
            self.reject(device, &request, refused).await;
        }
        Err(refused)
    }

    /// Works on a shadow request; a refusal is the caller's to tell.
    pub(crate) async fn ask_shadow(
        &self,
        device: &DeviceId,
        request: Request,
        call: Option<Call>,
    ) -> Result<shadow::Reply, Refused> {
        let client = ClientId::from(device.clone());
        let verb = request.verb;
        let work = Work::Shadow(request);
        let asked = self.ask_call(&client, CommandKind::Shadow, work, call);
        match asked.await? {
            Some(Reply::Shadow(reply)) => {
                metrics::count_shadow(verb, &reply);
                Ok(reply)
            },
            other => Err(unexpected(&client, other.as_ref())),
        }
    }

    /// Tells an MQTT client that its request was refused.
    pub(crate) async fn reject(&self, device: &DeviceId, request: &Request, why: Refused) {
        let error = match why {
            Refused::TooManyInFlight => ShadowError::too_many_requests(),
            Refused::TooLarge => ShadowError::too_large(),
            Refused::NotOwner | Refused::Stopping | Refused::Unavailable => {
                ShadowError::unavailable()
            },
            Refused::Overloaded
            | Refused::StorageFull
            | Refused::Quarantined
            | Refused::Restarting
            | Refused::NotListed
            | Refused::Unreadable
            | Refused::Unknown => ShadowError::internal(),
        };
        let now = self.common.clock.wall();
        let (reply, message) = shadow::reject(device, request, error, now);
        metrics::count_shadow(request.verb, &reply);
        if let Some(message) = message {
            self.common.outbox.publish(Arc::new(message)).await;
        }
    }

    /// One device, as it is committed. Wakes nobody.
    pub fn device(&self, device: &DeviceId) -> Result<Option<DeviceView>, Refused> {
        let client = ClientId::from(device.clone());
        let view = query::device(self.shard(&client), &client)?;
        Ok(view.filter(|view| view.record.kind == Kind::Device))
    }

    /// One client, device or not. Wakes nobody.
    pub fn client(&self, client: &ClientId) -> Result<Option<DeviceView>, Refused> {
        query::device(self.shard(client), client)
    }

    /// A page of devices in id order. Wakes nobody; reads on a thread where waiting harms nobody.
    pub async fn devices(
        &self,
        filter: Filter,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Page, Refused> {
        let fleet = self.clone();
        let read = move || query::devices(&fleet.common, &fleet.shards, &filter, after, limit);
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or(Err(Refused::Stopping))
    }

    /// A page of the names of a device's shadows. Wakes nobody.
    pub fn list_named(
        &self,
        device: &DeviceId,
        after: Option<&ShadowName>,
        limit: usize,
    ) -> Result<NamedPage, Refused> {
        let client = ClientId::from(device.clone());
        query::named(self.shard(&client), &client, after, limit)
    }

    /// The devices in quarantine.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        query::quarantined(&self.shards)
    }

    /// Lets a device out of quarantine; false when it was not in it.
    pub fn release(&self, client: &ClientId) -> bool {
        let shard = self.shard(client);
        if !shard.troubles.lock().release(client) {
            return false;
        }
        let slot = shard.slot(client);
        {
            let mut gate = slot.gate.lock();
            if gate.mode == Mode::Quarantined {
                gate.mode = Mode::Open;
            }
        }
        info!(device = %client, "device released from quarantine");
        self.common.feed.tell(
            self.common.clock.wall(),
            client.clone(),
            FleetEventKind::Released,
        );
        // Timers that came due meanwhile were lost; the machine schedules them anew.
        timer::send(shard, client, Alarm::Restart);
        true
    }

    /// Numbers of the fleet.
    pub fn counts(&self) -> Counts {
        Counts {
            devices: self.common.census.devices(),
            apps: self.common.census.apps(),
            awake: self.common.awake.taken(),
            quarantined: self
                .shards
                .iter()
                .map(|shard| shard.troubles.lock().quarantined_count())
                .sum(),
        }
    }

    /// What happens from now on, or since the event `after`.
    pub fn events(&self, after: Option<u64>) -> Events {
        Events::new(&self.common.feed, after)
    }

    /// How many compact records there are.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.slots_after(None, usize::MAX).len())
            .sum()
    }

    /// Kills the supervisor of a client's shard, and with it every actor of the shard.
    #[cfg(test)]
    pub(crate) fn kill_supervisor(&self, client: &ClientId) {
        if let Some(supervisor) = self.shard(client).supervisor() {
            supervisor.kill();
        }
    }

    pub(crate) fn shard(&self, client: &ClientId) -> &Arc<Shard> {
        let count = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let id = umbel_core::ids::ShardId::of(client.as_str(), count);
        self.shards
            .get(usize::from(id.0))
            .expect("the id is taken modulo the number of shards")
    }

    /// Sends at the first poll, then waits.
    pub(crate) async fn ask_call(
        &self,
        client: &ClientId,
        kind: CommandKind,
        work: Work,
        call: Option<Call>,
    ) -> Answer {
        let sent = self.shard(client).send_call(client, kind, work, call);
        let answer: oneshot::Receiver<Answer> = sent?;
        answer.await.unwrap_or_else(|_crashed| {
            self.common.meters.refused(Refused::Restarting);
            Err(Refused::Restarting)
        })
    }
}

/// The machine answered something else than was asked: a fault of ours, and the outcome is what it says.
pub(crate) fn unexpected(client: &ClientId, reply: Option<&Reply>) -> Refused {
    tracing::error!(device = %client, ?reply, "the device machine gave an answer that does not fit");
    Refused::Unknown
}
