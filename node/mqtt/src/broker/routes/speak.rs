//! Telling the other nodes what is wanted here, and hearing it from them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time};
use umbel_core::{
    ids::{NodeId, ShardId, Term},
    topic::Filter,
};
use umbel_storage::{Peer, PeerError, Reach};

use super::{
    Routes,
    local::{Cursor, Said},
    table::Applied,
};
use crate::broker::{
    Broker,
    mailbox::Mailbox,
    metrics,
    peers::{
        Ask, Reply,
        routes::{self as words, Advertisement, Dest},
    },
    ticket::{Outcome, Pending, start},
};

/// How long a subscription waits until every connected node knows it.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// How long a peer may take to hear one message.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// How often a peer is asked whether it still knows what it was told, when there is nothing new.
const REMIND_EVERY: Duration = Duration::from_secs(5);

/// Before a peer that did not hear is spoken to again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

impl Broker {
    /// Starts to speak and to listen. Once, and not for a broker that is alone.
    pub(crate) fn start_routes(self: &Arc<Self>) {
        if self.routes.is_some() {
            tokio::spawn(follow(Weak::clone(&self.this), self.nodes.changes()));
        }
    }

    /// Takes what another node's sessions want.
    pub(crate) fn hear(&self, from: NodeId, said: &Advertisement) -> words::Reply {
        let Some(routes) = &self.routes else {
            return words::Reply::Heard;
        };
        let applied = routes.table.write().hear(from, said);
        match applied {
            Applied::Yes => words::Reply::Heard,
            Applied::Missed => words::Reply::Missed,
        }
    }

    /// Whose sessions a mailbox counts among; `None` for what no other node has to know.
    fn dest(&self, filter: &Filter, mailbox: &Mailbox) -> Option<Dest> {
        if filter.is_own(mailbox.client()) {
            return None;
        }
        Some(if mailbox.is_home() {
            Dest::Shard(mailbox.shard())
        } else {
            Dest::Node(self.nodes.me())
        })
    }

    /// A session wants this; done when every node that is connected knows, or after a second. May be called under the
    /// mailbox's lock.
    pub(crate) fn advertise(&self, filter: &Filter, mailbox: &Mailbox, is_new: bool) -> Pending {
        let Some(routes) = &self.routes else {
            return Pending::Ready(Outcome::Done);
        };
        let Some(dest) = self.dest(filter, mailbox) else {
            return Pending::Ready(Outcome::Done);
        };
        let version = routes.change(|local| {
            if is_new {
                local.add(dest, filter);
            }
        });
        self.known(routes, version)
    }

    /// A session does not want this any more.
    pub(crate) fn withdraw(&self, filter: &Filter, mailbox: &Mailbox) {
        if let Some(routes) = &self.routes
            && let Some(dest) = self.dest(filter, mailbox)
        {
            routes.change(|local| local.remove(dest, filter));
        }
    }

    /// Says whether a member of a shared group is connected.
    pub(crate) fn refresh_group(&self, filter: &Filter, mailbox: &Mailbox) {
        if filter.group().is_none() || !mailbox.is_home() {
            return;
        }
        if let Some(routes) = &self.routes {
            let shard = mailbox.shard();
            let is_connected = self
                .router
                .has_connected(filter, |other| other.is_home() && other.shard() == shard);
            routes.change(|local| {
                local.set_connected(Dest::Shard(shard), filter, is_connected);
            });
        }
    }

    fn known(&self, routes: &Routes, version: u64) -> Pending {
        let peers = self.nodes.peers();
        if is_known(&routes.heard.borrow(), &peers, version) {
            return Pending::Ready(Outcome::Done);
        }
        let nodes = Arc::clone(&self.nodes);
        let mut heard = routes.heard.subscribe();
        start(Box::pin(async move {
            let mut changes = nodes.changes();
            let waiting = async {
                while !is_known(&heard.borrow_and_update(), &nodes.peers(), version) {
                    tokio::select! {
                        news = heard.changed() => if news.is_err() { return },
                        news = changes.changed() => if news.is_err() { return },
                    }
                }
            };
            if time::timeout(KNOWN_WITHIN, waiting).await.is_err() {
                tracing::debug!("a node takes long to hear of a subscription");
            }
            Outcome::Done
        }))
    }

    /// Whether anybody would get a message of this topic, here or elsewhere.
    pub(crate) fn is_wanted(&self, topic: &str) -> bool {
        let elsewhere = |routes: &Routes| routes.table.read().is_wanted(topic);
        self.router.is_wanted(topic) || self.routes.as_ref().is_some_and(elsewhere)
    }

    /// Whether every node and shard told once what its sessions want. Until then messages go everywhere: a node that was
    /// just started had better not be given clients.
    pub fn knows_routes(&self) -> bool {
        let knows = |routes: &Routes| {
            if !routes.is_oriented.load(Ordering::Acquire) && routes.table.read().blind() == 0 {
                routes.is_oriented.store(true, Ordering::Release);
            }
            routes.is_oriented.load(Ordering::Acquire)
        };
        self.routes.as_ref().is_none_or(knows)
    }

    /// Whether somebody would be known here who wants a message: a node that cannot be spoken to may have been asked for
    /// it meanwhile.
    pub(crate) fn sees_everybody(&self) -> bool {
        let sees_all = |routes: &Routes| routes.sees_all.load(Ordering::Acquire);
        self.routes.as_ref().is_none_or(sees_all)
    }

    fn can_speak_to_all(&self, peers: &[Peer]) -> bool {
        let is_told = |peer: &Peer| matches!(peer.reach, Reach::Connected | Reach::Gone);
        let me = self.nodes.me();
        let is_near = |node: NodeId| {
            let mut there = peers.iter().filter(|peer| peer.reach == Reach::Connected);
            node == me || there.any(|peer| peer.node == node)
        };
        let mut shards = (0..self.ledger.shards()).map(ShardId);
        peers.iter().all(is_told)
            && shards.all(|shard| {
                let owner = self.nodes.owner(shard);
                owner.is_some_and(|owner| is_near(owner.node))
            })
    }

    /// Sets the gauges of what is known of other nodes.
    pub(crate) fn record_routes(&self) {
        if let Some(routes) = &self.routes {
            let (elsewhere, blind) = {
                let table = routes.table.read();
                (table.len(), table.blind())
            };
            metrics::record_routes(&metrics::Known {
                elsewhere,
                blind,
                here: routes.local.lock().len(),
                waiting: routes.lanes.len(),
            });
        }
    }

    /// All durable sessions of a shard are here, in this term.
    pub(crate) fn shard_ready(&self, shard: ShardId, term: Term) {
        if let Some(routes) = &self.routes {
            Arc::make_mut(&mut *routes.homes.write()).insert(shard, term);
            routes.table.write().gained(shard, term);
            routes.change(|local| local.claim(Dest::Shard(shard), term));
        }
    }

    /// The durable sessions of a shard are not here any more, or soon will not be.
    pub(crate) fn shard_lost(&self, shard: ShardId) {
        if let Some(routes) = &self.routes {
            let dest = Dest::Shard(shard);
            routes.change(|local| {
                routes.table.write().lost(shard, local.wanted(dest));
                local.renounce(dest);
            });
            Arc::make_mut(&mut *routes.homes.write()).remove(&shard);
            routes.recent.forget(shard);
        }
        self.retained.lose(shard);
    }
}

#[cfg(test)]
impl Broker {
    /// Whether every connected node knows what is wanted here, and this one what is wanted there.
    pub(crate) fn is_all_told(&self) -> bool {
        let Some(routes) = &self.routes else {
            return true;
        };
        let version = routes.local.lock().version();
        is_known(&routes.heard.borrow(), &self.nodes.peers(), version)
            && routes.table.read().blind() == 0
    }

    /// How many messages wait for an owner.
    pub(crate) fn waiting_for_owners(&self) -> usize {
        self.routes.as_ref().map_or(0, |routes| routes.lanes.len())
    }

    /// How many filters of other nodes are known here.
    pub(crate) fn routes_len(&self) -> usize {
        let routes = self.routes.as_ref();
        routes.map_or(0, |routes| routes.table.read().len())
    }
}

fn is_known(heard: &std::collections::BTreeMap<NodeId, u64>, peers: &[Peer], version: u64) -> bool {
    peers
        .iter()
        .filter(|peer| peer.reach == Reach::Connected)
        .all(|peer| heard.get(&peer.node).is_some_and(|upto| *upto >= version))
}

/// Keeps an eye on who is there, and speaks to whoever appears.
async fn follow(broker: Weak<Broker>, mut changes: watch::Receiver<u64>) {
    let mut spoken_to = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        {
            let Some(broker) = broker.upgrade() else {
                return;
            };
            let Some(routes) = &broker.routes else { return };
            let peers = broker.nodes.peers();
            routes.table.write().peers(&peers);
            let sees_all = broker.can_speak_to_all(&peers);
            routes.sees_all.store(sees_all, Ordering::Release);
            for peer in peers {
                if spoken_to.insert(peer.node) {
                    tokio::spawn(speak(Weak::clone(&broker.this), peer.node));
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What is to be done for one peer.
enum Next {
    Say(Said),
    Rest,
    /// It is not there.
    Wait,
}

/// Tells one peer what it does not know, one message at a time: what changes meanwhile goes together in the next.
async fn speak(broker: Weak<Broker>, to: NodeId) {
    let (mut cursor, mut stream, mut sequence) = (Cursor::default(), 0, 0);
    let (mut changes, mut news) = {
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let Some(routes) = &broker.routes else { return };
        (broker.nodes.changes(), routes.version.subscribe())
    };
    // after a break the peer may have forgotten what it was told
    let mut is_reminder_due = false;
    loop {
        changes.mark_unchanged();
        news.mark_unchanged();
        let next = {
            let Some(broker) = broker.upgrade() else {
                return;
            };
            next_for(&broker, to, &mut cursor)
        };
        let said = match next {
            Next::Say(said) => said,
            Next::Wait => {
                is_reminder_due = true;
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            },
            Next::Rest if is_reminder_due => remind(),
            Next::Rest => tokio::select! {
                heard = news.changed() => match heard {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                around = changes.changed() => match around {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = time::sleep(REMIND_EVERY) => remind(),
            },
        };
        is_reminder_due = false;
        if said.is_first {
            (stream, sequence) = (stream + 1, 0);
        }
        let Some(heard) = say(&broker, to, (stream, sequence), said).await else {
            return;
        };
        if heard {
            sequence += 1;
        } else {
            cursor.restart();
        }
    }
}

/// Nothing, said to find out whether the peer still knows the rest.
const fn remind() -> Said {
    Said {
        items: Vec::new(),
        is_first: false,
    }
}

fn next_for(broker: &Broker, to: NodeId, cursor: &mut Cursor) -> Next {
    let Some(routes) = &broker.routes else {
        return Next::Wait;
    };
    let is_connected = |peer: &Peer| peer.node == to && peer.reach == Reach::Connected;
    if !broker.nodes.peers().iter().any(is_connected) {
        return Next::Wait;
    }
    // what was read before is heard by now
    let covered = cursor.covered();
    routes.heard.send_if_modified(|heard| {
        let before = heard.insert(to, covered);
        before != Some(covered)
    });
    // read first: what follows takes the lock again
    let read = cursor.read(&routes.local.lock());
    match read {
        Some(said) => Next::Say(said),
        None if cursor.covered() > covered => next_for(broker, to, cursor),
        None => Next::Rest,
    }
}

/// Says it until it is heard; false if the peer missed something before it, `None` if this node is gone.
async fn say(
    broker: &Weak<Broker>,
    to: NodeId,
    (stream, sequence): (u64, u64),
    said: Said,
) -> Option<bool> {
    let mut advertisement = Advertisement {
        boot: umbel_storage::Boot::default(),
        stream,
        sequence,
        items: said.items,
    };
    let mut pause = AGAIN_AFTER;
    loop {
        let (asked, mut changes) = {
            let broker = broker.upgrade()?;
            advertisement.boot = broker.routes.as_ref()?.boot;
            let ask = Ask::Routes(words::Ask::Advertise(advertisement.clone()));
            let changes = broker.nodes.changes();
            (broker.peers.ask(to, ask, HEARD_WITHIN), changes)
        };
        match asked.await {
            Ok(Reply::Routes(words::Reply::Heard)) => return Some(true),
            Ok(_) => return Some(false),
            Err(PeerError::Refused { why, .. }) => {
                // a node that is starting listens soon
                if pause == HEARD_WITHIN {
                    tracing::warn!(%to, why, "a node does not listen to what is wanted here");
                }
                time::sleep(pause).await;
                pause = (pause * 2).min(HEARD_WITHIN);
            },
            Err(PeerError::NotConnected(_)) => {
                // what is said to it waits here until it is back
                drop(time::timeout(HEARD_WITHIN, changes.changed()).await);
            },
            Err(PeerError::Busy(_) | PeerError::Unknown(_)) => time::sleep(AGAIN_AFTER).await,
        }
    }
}
