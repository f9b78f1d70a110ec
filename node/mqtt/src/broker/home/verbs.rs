//! What a home does when a gateway asks. The gateway may be this node: the questions are the same.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::{NodeId, ShardId},
    topic::{Filter, Limits},
};
use umbel_storage::{Table, Write};

use super::{NotAttached, Sink};
use crate::broker::{
    Asked, Broker,
    mailbox::{Inbound, Mailbox, Options},
    peers::home::{Acked, Ask, Attach, Attached, Held, Reply, Speaker, Wanted},
    rows,
    ticket::{Outcome, Pending},
};

impl Broker {
    /// Answers a gateway. What has a place in an order takes it before this returns.
    pub(crate) fn serve_home(
        self: &Arc<Self>,
        from: NodeId,
        ask: Ask,
    ) -> BoxFuture<'static, Reply> {
        let answer = match ask {
            Ask::Attach(request) => Err(self.serve_attach(from, &request)),
            Ask::Received(speaker, sequence) => self.received(&speaker, sequence),
            Ask::Remember(speaker, id) => self.remember(&speaker, id),
            Ask::Free(speaker, id) => self.free(&speaker, id),
            Ask::Subscribe(speaker, wanted) => return self.serve_subscribe(&speaker, wanted),
            Ask::Unsubscribe(speaker, filters) => {
                return self.serve_unsubscribe(&speaker, &filters);
            },
            Ask::Hold(held) => Err(Reply::Lost(self.compare(from, &held))),
        };
        Box::pin(async move {
            match answer {
                Ok(pending) => Reply::Settled(pending.outcome().await.into()),
                Err(reply) => reply,
            }
        })
    }

    fn serve_attach(self: &Arc<Self>, from: NodeId, request: &Attach) -> Reply {
        match self.attach_there(request, from) {
            Ok(attachment) => {
                let settled = |(id, entry)| matches!(entry, Inbound::Received).then_some(id);
                let attached = Attached {
                    inbound: attachment.inbound.into_iter().filter_map(settled).collect(),
                    subscriptions: attachment.subscriptions,
                };
                self.feed(&attachment.home);
                Reply::Attached(Box::new(attached))
            },
            Err(NotAttached::NotHere) => Reply::NotHere,
            Err(NotAttached::Stale) => Reply::Stale,
            Err(NotAttached::Full) => Reply::Full,
        }
    }

    /// The home that listens to this connection, or what its gateway has to be told.
    fn listening(&self, speaker: &Speaker) -> Result<Arc<Mailbox>, Reply> {
        let home = self.homes.get(&speaker.client).ok_or(Reply::NotAttached)?;
        if home.epoch() > speaker.epoch {
            return Err(Reply::Stale);
        }
        let is_attached = home
            .lock_as(speaker.epoch)
            .is_some_and(|state| state.gateway.is_some());
        if is_attached {
            Ok(home)
        } else {
            Err(Reply::NotAttached)
        }
    }

    /// PUBREC came: the row says that only PUBREL is left.
    fn received(self: &Arc<Self>, speaker: &Speaker, sequence: u64) -> Result<Pending, Reply> {
        let home = self.listening(speaker)?;
        let mut state = home.lock_as(speaker.epoch).ok_or(Reply::NotAttached)?;
        let is_due = state
            .outbound_if_any()
            .is_some_and(|outbound| outbound.awaits_release(sequence));
        if !is_due {
            return Ok(Pending::Ready(Outcome::Done)); // the row says so already
        }
        // under the lock: the row does not come behind the deletions of a session that ends now
        let key = rows::queue_key(home.client(), sequence);
        let row = Write::put(Table::Queue, key, rows::encode_released());
        let written = self.write(&home, vec![row]);
        drop(state);
        Ok(written.then(move |outcome| {
            if outcome.is_done()
                && let Some(outbound) = home.lock().outbound_if_any()
            {
                outbound.release(sequence);
            }
            outcome
        }))
    }

    /// The effect of a QoS 2 message is done. It is the session's and not the connection's: also one that was taken over
    /// may say so. Under the lock, and not if the session is over: the row would come behind the deletions of the
    /// session's end, and a message of the client's next session would be taken for one that came before.
    fn remember(self: &Arc<Self>, speaker: &Speaker, id: NonZeroU16) -> Result<Pending, Reply> {
        let shard = ShardId::of(speaker.client.as_str(), self.ledger.shards());
        if !self.home_ready(shard) {
            return Err(Reply::NotHere);
        }
        let over = || Ok(Pending::Ready(Outcome::Done));
        let Some(home) = self.homes.get(&speaker.client) else {
            return over();
        };
        let state = home.lock();
        if state.ended || speaker.epoch < home.began() {
            return over();
        }
        let key = rows::inbound_key(home.client(), id);
        let row = Write::put(Table::Inbound, key, rows::encode_inbound());
        let written = self.write(&home, vec![row]);
        drop(state);
        Ok(written.then(move |outcome| {
            if outcome.is_done() {
                home.lock().inbound.insert(id, Inbound::Received);
            }
            outcome
        }))
    }

    /// PUBREL came: the identifier is free once its row is gone.
    fn free(self: &Arc<Self>, speaker: &Speaker, id: NonZeroU16) -> Result<Pending, Reply> {
        let home = self.listening(speaker)?;
        let row = Write::delete(Table::Inbound, rows::inbound_key(home.client(), id));
        Ok(self.write(&home, vec![row]).then(move |outcome| {
            if outcome.is_done() {
                home.lock().inbound.remove(&id);
            }
            outcome
        }))
    }

    fn serve_subscribe(
        self: &Arc<Self>,
        speaker: &Speaker,
        wanted: Vec<Wanted>,
    ) -> BoxFuture<'static, Reply> {
        let asked: Vec<_> = wanted.into_iter().map(Asked::try_from).collect();
        let kept = self.listening(speaker).and_then(|home| {
            // the gateway judged them: only a broken one sends what does not parse
            let valid: Vec<_> = asked.iter().flatten().cloned().collect();
            self.keep(&home, speaker.epoch, &valid)
                .map(|(granted, kept)| {
                    let mut granted = granted.into_iter();
                    let of = |one: &Result<_, _>| one.is_ok() && granted.next().unwrap_or(false);
                    let granted: Vec<_> = asked.iter().map(of).collect();
                    (home, granted, kept)
                })
                .ok_or(Reply::NotAttached)
        });
        let broker = Arc::clone(self);
        let (home, granted, kept) = match kept {
            Ok(kept) => kept,
            Err(reply) => return Box::pin(std::future::ready(reply)),
        };
        broker.feed(&home);
        Box::pin(async move { Reply::Subscribed(granted, kept.outcome().await.into()) })
    }

    fn serve_unsubscribe(
        self: &Arc<Self>,
        speaker: &Speaker,
        filters: &[String],
    ) -> BoxFuture<'static, Reply> {
        let filters: Vec<_> = filters
            .iter()
            .map(|text| Filter::parse(text, &Limits::default()).ok())
            .collect();
        let forgotten = self.listening(speaker).and_then(|home| {
            self.forget(&home, speaker.epoch, &filters)
                .ok_or(Reply::NotAttached)
        });
        match forgotten {
            Ok((existed, forgotten)) => {
                Box::pin(
                    async move { Reply::Unsubscribed(existed, forgotten.outcome().await.into()) },
                )
            },
            Err(reply) => Box::pin(std::future::ready(reply)),
        }
    }

    /// A window of this node has these acknowledged.
    pub(crate) fn acked_here(self: &Arc<Self>, home: &Arc<Mailbox>, acked: &Acked) {
        let Some(mut state) = home.lock_as(acked.speaker.epoch) else {
            return;
        };
        let Some(gateway) = state
            .gateway
            .as_mut()
            .filter(|gateway| gateway.generation == acked.generation)
        else {
            return;
        };
        gateway.acked += acked.sequences.len() as u64;
        let Some(outbound) = state.outbound_if_any() else {
            return;
        };
        let mut done = Vec::new();
        for sequence in &acked.sequences {
            if outbound.finish_sequence(*sequence) {
                outbound.begin_delete(*sequence);
                done.push(*sequence);
            }
        }
        drop(state);
        for sequence in done {
            self.delete_soon(home, sequence);
        }
        self.feed(home);
    }

    /// A gateway has these acknowledged.
    pub(crate) fn acked_from(self: &Arc<Self>, acked: &Acked) {
        if let Some(home) = self.homes.get(&acked.speaker.client) {
            self.acked_here(&home, acked);
        }
    }

    /// Which windows of a gateway have to attach again: those nobody pushes to, and those that miss what was pushed, or
    /// whose acknowledgements are missed, since the gateway asked last.
    fn compare(&self, from: NodeId, held: &[Held]) -> Vec<u32> {
        let mut lost = Vec::new();
        for (index, held) in (0..).zip(held) {
            let home = self.homes.get(&held.speaker.client);
            let is_whole = home.is_some_and(|home| {
                home.lock_as(held.speaker.epoch).is_some_and(|mut state| {
                    state
                        .gateway
                        .as_mut()
                        .is_some_and(|gateway| gateway.is_whole(from, held))
                })
            });
            if !is_whole {
                lost.push(index);
            }
        }
        lost
    }
}

impl super::Gateway {
    fn is_whole(&mut self, from: NodeId, held: &Held) -> bool {
        let is_it = self.generation == held.generation
            && matches!(self.sink, Sink::There(node) if node == from);
        let is_whole =
            is_it && held.received >= self.pushed_before && self.acked >= self.acked_before;
        self.pushed_before = self.pushed;
        self.acked_before = held.acked;
        is_whole
    }
}

impl TryFrom<Wanted> for Asked {
    type Error = umbel_core::topic::TopicError;

    fn try_from(wanted: Wanted) -> Result<Self, Self::Error> {
        Ok(Self {
            filter: Filter::parse(&wanted.filter, &Limits::default())?,
            options: Options {
                qos: wanted.qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
                id: wanted.id,
            },
            retained_if_known: wanted.retained_if_known,
            retained_if_new: wanted.retained_if_new,
        })
    }
}

impl From<&Asked> for Wanted {
    fn from(asked: &Asked) -> Self {
        let id: Option<NonZeroU32> = asked.options.id;
        Self {
            filter: asked.filter.as_str().to_owned(),
            qos: asked.options.qos,
            no_local: asked.options.no_local,
            retain_as_published: asked.options.retain_as_published,
            id,
            retained_if_known: asked.retained_if_known,
            retained_if_new: asked.retained_if_new,
        }
    }
}
