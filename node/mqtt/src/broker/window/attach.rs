//! A window finds its home, and finds it again when it moved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use umbel_core::ids::{NodeId, SessionEpoch, ShardId, Term};
use umbel_storage::nodes::Owner;

use super::{Link, Way};
use crate::broker::{
    Broker,
    home::NotAttached,
    mailbox::{Inbound, Mailbox},
    peers::{
        self,
        home::{Acked, Ask, Attach, Held, Reply, Speaker},
    },
};

/// How long a home may take to attach a window.
const ATTACH_WITHIN: Duration = Duration::from_secs(2);

/// How long a client that connects waits for its home: an election and the reading of a shard.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);

/// Between two attempts: at first, and at most.
const BACKOFF: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Windows that are compared with their homes by one question.
const HELD_MAX: usize = 1_000;

/// What came of an attempt.
enum Attempt {
    Attached(Vec<(std::num::NonZeroU16, Inbound)>),
    /// The home is not there, or not yet.
    Again,
    /// A newer connection speaks for the client.
    Stale,
    Full,
    /// The connection is gone.
    Gone,
}

/// Why a new connection gets no home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHome {
    /// Nobody serves the client's shard now.
    Unavailable,
    /// A newer connection was quicker.
    Stale,
    /// Its home has too many.
    Full,
}

impl Broker {
    /// Attaches the window of a new connection.
    pub(crate) async fn attach_first(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
    ) -> Result<(), NoHome> {
        let deadline = Instant::now() + CONNECT_PATIENCE;
        let mut pause = BACKOFF;
        loop {
            match self.attach_once(window, epoch).await {
                Attempt::Attached(inbound) => {
                    let mut state = window.lock();
                    for (id, entry) in inbound {
                        state.inbound.entry(id).or_insert(entry);
                    }
                    return Ok(());
                },
                Attempt::Stale | Attempt::Gone => return Err(NoHome::Stale),
                Attempt::Full => return Err(NoHome::Full),
                Attempt::Again if Instant::now() + pause > deadline => {
                    return Err(NoHome::Unavailable);
                },
                Attempt::Again => {},
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// The way to the home is lost: looks for it until it is found, or the connection ends.
    pub(crate) fn attach_again(self: &Arc<Self>, window: &Arc<Mailbox>, epoch: SessionEpoch) {
        {
            let Some(mut state) = window.lock_as(epoch) else {
                return;
            };
            match &mut state.link {
                Some(link) if link.way != Way::Attaching => link.way = Way::Attaching,
                _ => return, // somebody does so already
            }
        }
        let (broker, window) = (Arc::clone(self), Arc::clone(window));
        tokio::spawn(async move {
            let mut pause = BACKOFF;
            loop {
                let attempt = match broker.windows.attaching.acquire().await {
                    Ok(_permit) => broker.attach_once(&window, epoch).await,
                    Err(_closed) => return,
                };
                match attempt {
                    Attempt::Attached(_) if broker.is_where_it_was(&window, epoch) => return,
                    Attempt::Gone => return,
                    Attempt::Stale => {
                        let client = window.client().clone();
                        return broker.window_ended(&Speaker { client, epoch });
                    },
                    Attempt::Attached(_) | Attempt::Again | Attempt::Full => {},
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        });
    }

    /// Who has the home of a shard, as far as is known.
    pub(super) fn home_of(&self, shard: ShardId) -> Option<Owner> {
        if self.homes.is_following() {
            return self.nodes.owner(shard);
        }
        Some(Owner {
            node: self.nodes.me(),
            term: Term::default(),
        })
    }

    async fn attach_once(self: &Arc<Self>, window: &Arc<Mailbox>, epoch: SessionEpoch) -> Attempt {
        let Some(owner) = self.home_of(window.shard()) else {
            return Attempt::Again;
        };
        let Some(request) = self.attach_request(window, epoch, owner) else {
            return Attempt::Gone;
        };
        if owner.node == self.nodes.me() {
            return match self.attach_here(&request, window) {
                Ok(attachment) => {
                    let home = Arc::clone(&attachment.home);
                    if self.open_way(window, epoch, request.generation, Some(attachment.home)) {
                        self.feed(&home);
                    }
                    Attempt::Attached(attachment.inbound)
                },
                Err(NotAttached::NotHere) => Attempt::Again,
                Err(NotAttached::Stale) => Attempt::Stale,
                Err(NotAttached::Full) => Attempt::Full,
            };
        }
        let generation = request.generation;
        let ask = peers::Ask::Home(Ask::Attach(Box::new(request)));
        match self.peers.ask(owner.node, ask, ATTACH_WITHIN).await {
            Ok(peers::Reply::Home(Reply::Attached(attached))) => {
                self.open_way(window, epoch, generation, None);
                let received = attached.inbound.into_iter();
                Attempt::Attached(received.map(|id| (id, Inbound::Received)).collect())
            },
            Ok(peers::Reply::Home(Reply::Stale)) => Attempt::Stale,
            Ok(peers::Reply::Home(Reply::Full)) => Attempt::Full,
            Ok(_) => Attempt::Again,
            Err(error) => {
                tracing::debug!(%error, "a home is out of reach");
                Attempt::Again
            },
        }
    }

    /// Begins an attempt: what is pushed for an older one is not taken from here on.
    fn attach_request(
        &self,
        window: &Mailbox,
        epoch: SessionEpoch,
        owner: Owner,
    ) -> Option<Attach> {
        let mut state = window.lock_as(epoch)?;
        let unacknowledged = state
            .outbound_if_any()
            .map_or(Vec::new(), |outbound| outbound.unacknowledged());
        let highest = state.next_sequence() - 1; // a window's is one above what came
        let link = state.link.as_mut()?;
        link.way = Way::Attaching;
        link.node = owner.node;
        link.term = owner.term;
        link.home = None;
        link.generation = self.windows.next_generation();
        link.received = 0;
        link.acked = 0;
        link.late.clear(); // told by not being unacknowledged
        Some(Attach {
            speaker: Speaker {
                client: window.client().clone(),
                epoch,
            },
            generation: link.generation,
            boot: self.nodes.boot(),
            fresh: std::mem::take(&mut link.is_fresh),
            window: link.window,
            unacknowledged,
            highest,
            sent: link.sent,
        })
    }

    /// A home listens. False if this attempt is over.
    fn open_way(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        generation: u64,
        home: Option<Arc<Mailbox>>,
    ) -> bool {
        let Some(mut state) = window.lock_as(epoch) else {
            // the connection ended meanwhile, and told a home that did not know it yet
            self.forget_attached(window, epoch, home.as_ref());
            return false;
        };
        let Some(link) = state
            .link
            .as_mut()
            .filter(|link| link.generation == generation)
        else {
            return false;
        };
        let sequences = std::mem::take(&mut link.late);
        link.acked += sequences.len() as u64;
        link.home.clone_from(&home);
        // a push may have shown a gap before the answer was here
        let is_whole = link.way == Way::Attaching;
        link.way = Way::Open;
        let node = link.node;
        drop(state);
        let acked = Acked {
            speaker: Speaker {
                client: window.client().clone(),
                epoch,
            },
            generation,
            sequences,
        };
        match home {
            _ if acked.sequences.is_empty() => {},
            Some(home) => self.acked_here(&home, &acked),
            None => self.tell_acked(node, acked),
        }
        if !is_whole {
            self.attach_again(window, epoch);
        }
        true
    }

    fn forget_attached(&self, window: &Mailbox, epoch: SessionEpoch, home: Option<&Arc<Mailbox>>) {
        if let Some(home) = home {
            self.detach_here(home, epoch, None);
        } else if let Some(owner) = self.home_of(window.shard()) {
            let speaker = Speaker {
                client: window.client().clone(),
                epoch,
            };
            let tell = peers::home::Tell::Detach(speaker, None);
            drop(self.tell_home(owner.node, tell));
        }
    }

    /// Windows whose home is elsewhere by now attach there.
    pub(crate) fn attach_moved(self: &Arc<Self>) {
        let mut moved = Vec::new();
        self.sessions.for_each(|window| {
            let epoch = window.epoch();
            if window.is_window() && !self.is_where_it_was(window, epoch) {
                moved.push((Arc::clone(window), epoch));
            }
        });
        for (window, epoch) in moved {
            self.attach_again(&window, epoch);
        }
    }

    /// Whether the home is where this window attached to it, as far as is known. A window without a way is where it was.
    fn is_where_it_was(&self, window: &Mailbox, epoch: SessionEpoch) -> bool {
        let Some(owner) = self.home_of(window.shard()) else {
            return true;
        };
        window.lock_as(epoch).is_none_or(|state| {
            state
                .link
                .as_ref()
                .is_none_or(|link| (owner.node, owner.term) == (link.node, link.term))
        })
    }

    /// Compares the windows of this node with their homes on others.
    pub(crate) fn compare_windows(self: &Arc<Self>) {
        let mut held: BTreeMap<NodeId, Vec<(Arc<Mailbox>, Held)>> = BTreeMap::new();
        self.sessions.for_each(|window| {
            let state = window.lock();
            let open = |link: &&Link| link.way == Way::Open && link.home.is_none();
            if let Some(link) = state.link.as_deref().filter(open) {
                let one = Held {
                    speaker: Speaker {
                        client: window.client().clone(),
                        epoch: window.epoch(),
                    },
                    generation: link.generation,
                    received: link.received,
                    acked: link.acked,
                };
                held.entry(link.node)
                    .or_default()
                    .push((Arc::clone(window), one));
            }
        });
        for (node, held) in held {
            let broker = Arc::clone(self);
            tokio::spawn(async move {
                for page in held.chunks(HELD_MAX) {
                    broker.compare_with(node, page).await;
                }
            });
        }
    }

    async fn compare_with(self: &Arc<Self>, node: NodeId, page: &[(Arc<Mailbox>, Held)]) {
        let held = page.iter().map(|(_, held)| held.clone()).collect();
        let ask = peers::Ask::Home(Ask::Hold(held));
        let answer = self.peers.ask(node, ask, ATTACH_WITHIN).await;
        let Ok(peers::Reply::Home(Reply::Lost(lost))) = answer else {
            return; // a node that is out of reach is asked again
        };
        for index in lost {
            let Some((window, held)) = page.get(index as usize) else {
                continue;
            };
            let is_same = window
                .lock_as(held.speaker.epoch)
                .and_then(|state| Some(state.link.as_ref()?.generation))
                == Some(held.generation);
            if is_same {
                self.attach_again(window, held.speaker.epoch);
            }
        }
    }
}
