//! The owner's side: one question of another node, one answer.

use std::{sync::Arc, time::Duration};

use umbel_core::{
    device::{Disconnect, Input, Kind},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShardId},
    shadow,
};

use super::{Answer, Call, Edit, Opening, Verb, resync};
use crate::{
    device::Work,
    fleet::{Counts, Fleet},
    metrics::CommandKind,
    query::{self, Filter},
    records,
    refused::Refused,
    registry::EditError,
    shard::Shard,
};

/// How long a question waits for a shard that has just come to this node and is being read. A shard of two thousand
/// devices is read in 20 ms; whoever waits longer asks again.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Answers another node, or this one. Takes its place in the order of its device at the first poll, unless the shard
/// has only just come here.
pub async fn serve(fleet: &Fleet, from: NodeId, verb: Verb) -> Answer {
    if let Some(shard) = subject(fleet, &verb)
        && let Err(why) = ready(&shard).await
    {
        return refuse(&shard, why);
    }
    match verb {
        Verb::Connect(opening) => connect(fleet, *opening).await,
        Verb::Ended { shard, ends } => Answer::Recorded(fleet.end_all(shard, ends).await),
        Verb::Lost { client, epoch } => done(fleet, &client, fleet.lost(&client, epoch).await),
        Verb::Shadow {
            call,
            device,
            request,
        } => {
            // A read has nothing to remember.
            let call = (request.verb != shadow::Verb::Get).then_some(call);
            match fleet.ask_shadow(&device, request, call).await {
                Ok(reply) => Answer::Shadow(reply),
                Err(why) => refuse(fleet.shard(&device.into()), why),
            }
        },
        Verb::Glance { device, request } => match fleet.glance(&device, &request) {
            Ok(reply) => Answer::Shadow(reply),
            Err(why) => Answer::Refused(why),
        },
        Verb::Edit { call, device, edit } => change(fleet, call, &device, edit).await,
        Verb::Client { client } => match fleet.client(&client) {
            Ok(view) => Answer::Client(view.map(Box::new)),
            Err(why) => refuse(fleet.shard(&client), why),
        },
        Verb::Named {
            device,
            after,
            limit,
        } => match fleet.list_named(&device, after.as_ref(), limit as usize) {
            Ok(page) => Answer::Named(page),
            Err(why) => refuse(fleet.shard(&device.into()), why),
        },
        Verb::Devices {
            shards,
            filter,
            after,
            limit,
        } => devices(fleet, shards, filter, after, limit as usize).await,
        Verb::Counts { shards } => match fleet.counts_of(&shards) {
            Ok(counts) => Answer::Counts(counts),
            Err(why) => Answer::from_refusal(why),
        },
        Verb::Quarantined { shards } => match fleet.owned(&shards) {
            Ok(shards) => Answer::Quarantined(query::quarantined(&shards)),
            Err(why) => Answer::from_refusal(why),
        },
        Verb::Release { client } => Answer::Released(fleet.release(&client)),
        Verb::Touched { clients } => {
            fleet.touched(clients);
            Answer::Done
        },
        Verb::Resync(part) => resync::serve(fleet, from, *part).await,
        Verb::Holds { client, epoch } => match fleet.common.realm() {
            Some(realm) => Answer::Held(realm.held_here(&client, epoch)),
            None => Answer::Refused(Refused::Stopping),
        },
        Verb::Review { shard, clients } => {
            Answer::Recorded(fleet.review(shard, from, clients).await)
        },
    }
}

async fn connect(fleet: &Fleet, opening: Opening) -> Answer {
    let Opening {
        call,
        client,
        connect,
        ended,
    } = opening;
    if let Some(end) = ended
        && let Err(why) = fleet.end(&client, end).await
    {
        return refuse(fleet.shard(&client), why);
    }
    match fleet.open(&client, connect, Some(call)).await {
        Ok(opened) => {
            fleet.touched_slot(&client);
            Answer::Opened(opened)
        },
        Err(why) => refuse(fleet.shard(&client), why),
    }
}

async fn devices(
    fleet: &Fleet,
    shards: Vec<ShardId>,
    filter: Filter,
    after: Option<DeviceId>,
    limit: usize,
) -> Answer {
    match fleet.devices_of(&shards, filter, after, limit).await {
        Ok(mut page) => {
            query::shorten(&mut page);
            Answer::Devices(page)
        },
        Err(why) => Answer::from_refusal(why),
    }
}

async fn change(fleet: &Fleet, call: Call, device: &DeviceId, edit: Edit) -> Answer {
    let input = match edit {
        Edit::Create { patch } => Input::Create { patch },
        Edit::SetAttributes { patch, if_match } => Input::SetAttributes { patch, if_match },
        Edit::Delete { if_match } => {
            let deleted = fleet.delete(device, if_match, Some(call)).await;
            return edited(fleet, device, deleted.map(|()| Answer::Done));
        },
    };
    let view = fleet.edit(device, input, Some(call)).await;
    let answer = view.map(|view| Answer::Edited(Box::new(view)));
    edited(fleet, device, answer)
}

fn edited(fleet: &Fleet, device: &DeviceId, edited: Result<Answer, EditError>) -> Answer {
    match edited {
        Ok(answer) => answer,
        Err(EditError::Refused(why)) => refuse(fleet.shard(&device.clone().into()), why),
        Err(why) => Answer::NotEdited(why),
    }
}

fn done(fleet: &Fleet, client: &ClientId, done: Result<(), Refused>) -> Answer {
    match done {
        Ok(()) => Answer::Done,
        Err(why) => refuse(fleet.shard(client), why),
    }
}

/// The shard whose owner has to answer; none for what many may answer.
fn subject(fleet: &Fleet, verb: &Verb) -> Option<Arc<Shard>> {
    let of = |client: &ClientId| Some(Arc::clone(fleet.shard(client)));
    match verb {
        Verb::Connect(opening) => of(&opening.client),
        Verb::Lost { client, .. } | Verb::Client { client } | Verb::Release { client } => {
            of(client)
        },
        Verb::Shadow { device, .. } | Verb::Edit { device, .. } | Verb::Named { device, .. } => {
            of(&device.clone().into())
        },
        Verb::Ended { shard, .. } | Verb::Review { shard, .. } => fleet.numbered(*shard),
        Verb::Resync(part) => fleet.numbered(part.shard),
        Verb::Glance { .. }
        | Verb::Devices { .. }
        | Verb::Counts { .. }
        | Verb::Quarantined { .. }
        | Verb::Touched { .. }
        | Verb::Holds { .. } => None,
    }
}

/// Waits a little for a shard that has just come to this node.
pub(super) async fn ready(shard: &Shard) -> Result<(), Refused> {
    let Err(why) = shard.term() else {
        return Ok(());
    };
    if why != Refused::NotOwner || !shard.is_owned() {
        return Err(why);
    }
    let mut moves = shard.common.moves.subscribe();
    let recovered = async {
        while shard.term().is_err() {
            if moves.changed().await.is_err() {
                return;
            }
        }
    };
    match tokio::time::timeout(READY_WITHIN, recovered).await {
        Ok(()) | Err(_) => shard.term().map(|_term| ()),
    }
}

/// A refusal, with a hint for those who asked the wrong node.
fn refuse(shard: &Shard, why: Refused) -> Answer {
    if why != Refused::NotOwner {
        return Answer::Refused(why);
    }
    let nodes = shard.common.nodes.as_ref();
    Answer::NotOwner {
        hint: nodes.and_then(|nodes| nodes.owner(shard.id)),
    }
}

impl Answer {
    fn from_refusal(why: Refused) -> Self {
        if why == Refused::NotOwner {
            Self::NotOwner { hint: None }
        } else {
            Self::Refused(why)
        }
    }
}

impl Fleet {
    /// Records that a connection ended. Nothing is tried again: the gateway keeps the end until it is recorded.
    pub(crate) async fn end(&self, client: &ClientId, end: Disconnect) -> Result<(), Refused> {
        let work = Work::Input(Box::new(Input::Disconnect(end)));
        let asked = self.ask_call(client, CommandKind::Disconnect, work, None);
        asked.await.map(|_reply| ())
    }

    /// Records many ends that share log entries; gives back whose.
    pub(crate) async fn end_all(
        &self,
        shard: ShardId,
        ends: Vec<(ClientId, Disconnect)>,
    ) -> Vec<ClientId> {
        let works = ends.into_iter().map(|(client, end)| {
            let work = Work::Input(Box::new(Input::Disconnect(end)));
            (client, work)
        });
        self.send_all(shard, works).await
    }

    /// Has connects looked at that a gateway gave up; gives back whose are settled.
    async fn review(
        &self,
        shard: ShardId,
        gateway: NodeId,
        clients: Vec<ClientId>,
    ) -> Vec<ClientId> {
        let works = clients
            .into_iter()
            .map(|client| (client, Work::Review(gateway)));
        self.send_all(shard, works).await
    }

    /// Hands work to many clients of one shard; gives back whose was done.
    async fn send_all(
        &self,
        shard: ShardId,
        works: impl ExactSizeIterator<Item = (ClientId, Work)>,
    ) -> Vec<ClientId> {
        let mut sent = Vec::with_capacity(works.len());
        for (client, work) in works {
            let of = self.shard(&client);
            if of.id == shard
                && let Ok(answer) = of.send(&client, CommandKind::Disconnect, work)
            {
                sent.push((client, answer));
            }
        }
        let mut recorded = Vec::with_capacity(sent.len());
        for (client, answer) in sent {
            if answer.await.is_ok_and(|answer| answer.is_ok()) {
                recorded.push(client);
            }
        }
        recorded
    }

    /// A connection is given up: its client is stale until it comes back, or its grace is over.
    pub async fn lost(&self, client: &ClientId, epoch: SessionEpoch) -> Result<(), Refused> {
        let work = Work::Input(Box::new(Input::GatewayLost { epoch }));
        let asked = self.ask_call(client, CommandKind::Disconnect, work, None);
        asked.await.map(|_reply| ())
    }

    /// Notes signs of life that a gateway reports: milliseconds ago.
    pub(crate) fn touched(&self, clients: Vec<(ClientId, u32)>) {
        let now = self.common.clock.tick();
        for (client, ago) in clients {
            if let Some(slot) = self.shard(&client).find(&client) {
                let at = now.millis().saturating_sub(ago.into());
                slot.touched(umbel_core::time::Tick::from_millis(at));
            }
        }
    }

    /// A shadow as the local replica has it: maybe a moment old.
    pub(crate) fn glance(
        &self,
        device: &DeviceId,
        request: &shadow::Request,
    ) -> Result<shadow::Reply, Refused> {
        let client = ClientId::from(device.clone());
        let shard = self.shard(&client);
        if !self.common.ledger.hosts(shard.id) || request.verb != shadow::Verb::Get {
            return Err(Refused::NotOwner);
        }
        let current = records::load_shadow(shard, &client, &request.shadow)?;
        let now = self.common.clock.wall();
        let limits = &self.common.config.rules.shadow;
        Ok(shadow::handle(device, &current, request, now, limits).reply)
    }

    /// The node that holds a client's connection, or may, if this node owns the client.
    pub fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        let shard = self.shard(client);
        shard.term().ok()?;
        let slot = shard.find(client)?;
        Some(self.common.lives.of(slot.life())?.node)
    }

    /// The epoch of a client's last connection, if this node owns the client and knows it.
    pub fn current_epoch(&self, client: &ClientId) -> Option<SessionEpoch> {
        let view = self.client(client).ok()??;
        Some(view.record.epoch)
    }

    /// The shards of these numbers, if this node owns them all.
    pub(crate) fn owned(&self, shards: &[ShardId]) -> Result<Vec<Arc<Shard>>, Refused> {
        shards
            .iter()
            .map(|id| {
                let shard = self.numbered(*id).ok_or(Refused::NotOwner)?;
                shard.term()?;
                Ok(shard)
            })
            .collect()
    }

    pub(crate) fn numbered(&self, shard: ShardId) -> Option<Arc<Shard>> {
        self.shards.get(usize::from(shard.0)).map(Arc::clone)
    }

    /// Numbers of some shards of this node.
    pub(crate) fn counts_of(&self, shards: &[ShardId]) -> Result<Counts, Refused> {
        let shards = self.owned(shards)?;
        let mut counts = Counts {
            awake: self.common.awake.taken(),
            ..Counts::default()
        };
        for shard in &shards {
            for slot in shard.slots_after(None, usize::MAX) {
                if let Some((is_device, presence)) = slot.standing() {
                    let by = if is_device {
                        &mut counts.devices
                    } else {
                        &mut counts.apps
                    };
                    by.count(presence);
                }
            }
            counts.quarantined += shard.troubles.lock().quarantined_count();
        }
        Ok(counts)
    }

    /// A page of devices of some shards of this node.
    pub(crate) async fn devices_of(
        &self,
        shards: &[ShardId],
        filter: Filter,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<query::Page, Refused> {
        let shards = self.owned(shards)?;
        let common = Arc::clone(&self.common);
        let read = move || {
            let terms: Vec<_> = shards.iter().map(|shard| shard.term()).collect();
            let page = query::devices(&common, &shards, &filter, after, limit)?;
            for (shard, term) in shards.iter().zip(terms) {
                shard.still(term?)?;
            }
            Ok(page)
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or(Err(Refused::Stopping))
    }
}

/// Whether a view is of a device.
pub(crate) fn is_device(view: &crate::DeviceView) -> bool {
    view.record.kind == Kind::Device
}
