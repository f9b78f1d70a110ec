//! What a window asks of its home. While the home moves, a question waits a little and is asked again: each may be done
//! twice without harm.

use std::{
    num::NonZeroU16,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;
use umbel_core::{
    ids::{NodeId, SessionEpoch},
    topic::Filter,
};

use super::Way;
use crate::broker::{
    Asked, Broker,
    mailbox::Mailbox,
    peers::{
        self,
        home::{Ask, Reply, Settled, Speaker, Wanted},
    },
    ticket::{Outcome, Pending, start},
};

/// How long a question waits for a home. As long as a publish waits for one that moves.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a home may take for an answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What the home says of each filter, once it has said something.
pub(crate) type Verdicts = Arc<OnceLock<Vec<bool>>>;

/// Where a question goes.
enum Route {
    Here,
    There(NodeId),
    Nowhere,
}

impl Broker {
    /// PUBREC came: the row has to say so before PUBREL is sent.
    pub(crate) fn ask_received(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        sequence: u64,
    ) -> Pending {
        self.ask_settled(window, epoch, |speaker| Ask::Received(speaker, sequence))
    }

    /// The effect of a QoS 2 message is done: its identifier has to be remembered, also if the connection that sent it is
    /// gone by now.
    pub(crate) async fn ask_remember(
        self: &Arc<Self>,
        window: &Mailbox,
        epoch: SessionEpoch,
        id: NonZeroU16,
    ) -> Outcome {
        let began = Instant::now();
        let speaker = speaker(window, epoch);
        loop {
            let ask = Ask::Remember(speaker.clone(), id);
            let reply = match self.home_of(window.shard()) {
                Some(owner) if owner.node == self.nodes.me() => {
                    Some(self.serve_home(owner.node, ask).await)
                },
                Some(owner) => self.ask_node(owner.node, ask).await,
                None => None,
            };
            match reply {
                Some(Reply::Settled(settled)) if !self.is_worth_asking_again(settled) => {
                    return settled.into();
                },
                _ if began.elapsed() > PATIENCE => return Outcome::Unavailable,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// PUBREL came: the identifier has to be free before PUBCOMP is sent.
    pub(crate) fn ask_free(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        id: NonZeroU16,
    ) -> Pending {
        self.ask_settled(window, epoch, |speaker| Ask::Free(speaker, id))
    }

    /// Subscribes; the verdicts say which filters found room.
    pub(crate) fn ask_subscribe(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        asked: &[Asked],
    ) -> (Verdicts, Pending) {
        let wanted: Vec<_> = asked.iter().map(Wanted::from).collect();
        self.ask_verdicts(window, epoch, |speaker| Ask::Subscribe(speaker, wanted))
    }

    /// Unsubscribes; the verdicts say which subscriptions existed.
    pub(crate) fn ask_unsubscribe(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        filters: &[Filter],
    ) -> (Verdicts, Pending) {
        let filters = filters.iter().map(|filter| filter.as_str().to_owned());
        let filters = filters.collect();
        self.ask_verdicts(window, epoch, |speaker| Ask::Unsubscribe(speaker, filters))
    }

    fn ask_settled(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        ask: impl FnOnce(Speaker) -> Ask,
    ) -> Pending {
        let answer = self.ask_until(window, epoch, ask(speaker(window, epoch)));
        start(Box::pin(async move {
            match answer.await {
                Some(Reply::Settled(settled)) => settled.into(),
                _ => Outcome::Unavailable,
            }
        }))
    }

    fn ask_verdicts(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        ask: impl FnOnce(Speaker) -> Ask,
    ) -> (Verdicts, Pending) {
        let answer = self.ask_until(window, epoch, ask(speaker(window, epoch)));
        let verdicts = Verdicts::default();
        let said = Arc::clone(&verdicts);
        let settled = start(Box::pin(async move {
            let (each, settled) = match answer.await {
                Some(Reply::Subscribed(each, settled) | Reply::Unsubscribed(each, settled)) => {
                    (each, settled)
                },
                _ => (Vec::new(), Settled::Unavailable),
            };
            // said once: this is the only answer
            said.get_or_init(|| each);
            settled.into()
        }));
        (verdicts, settled)
    }

    /// Asks until a home answers, the connection is gone, or it took too long.
    fn ask_until(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        ask: Ask,
    ) -> impl Future<Output = Option<Reply>> + Send + 'static + use<> {
        let (broker, window) = (Arc::clone(self), Arc::clone(window));
        let began = Instant::now();
        async move {
            loop {
                match broker.ask_once(&window, epoch, ask.clone()).await? {
                    Some(Reply::Stale) => {
                        let client = window.client().clone();
                        broker.window_ended(&Speaker { client, epoch });
                        return None;
                    },
                    Some(Reply::NotHere | Reply::NotAttached) => {
                        broker.attach_again(&window, epoch);
                    },
                    Some(
                        Reply::Settled(settled)
                        | Reply::Subscribed(_, settled)
                        | Reply::Unsubscribed(_, settled),
                    ) if broker.is_worth_asking_again(settled) => {},
                    Some(reply) => return Some(reply),
                    None => {},
                }
                if began.elapsed() > PATIENCE {
                    return None;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A home that could not write may have lost its shard: the next one can.
    fn is_worth_asking_again(&self, settled: Settled) -> bool {
        settled == Settled::Unavailable && self.homes.is_following()
    }

    /// `Some(None)`: no home answers now. `None`: the connection is gone.
    async fn ask_once(
        self: &Arc<Self>,
        window: &Mailbox,
        epoch: SessionEpoch,
        ask: Ask,
    ) -> Option<Option<Reply>> {
        let route = {
            let state = window.lock_as(epoch)?;
            let link = state.link.as_ref()?;
            match (link.way, &link.home) {
                (Way::Open, Some(_)) => Route::Here,
                (Way::Open, None) => Route::There(link.node),
                (Way::Attaching | Way::Lost, _) => Route::Nowhere,
            }
        };
        Some(match route {
            Route::Here => Some(self.serve_home(self.nodes.me(), ask).await),
            Route::There(node) => self.ask_node(node, ask).await,
            Route::Nowhere => None,
        })
    }

    async fn ask_node(&self, node: NodeId, ask: Ask) -> Option<Reply> {
        match self.peers.ask(node, peers::Ask::Home(ask), WITHIN).await {
            Ok(peers::Reply::Home(reply)) => Some(reply),
            Ok(peers::Reply::Routes(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "a home is out of reach");
                None
            },
        }
    }
}

fn speaker(window: &Mailbox, epoch: SessionEpoch) -> Speaker {
    Speaker {
        client: window.client().clone(),
        epoch,
    }
}
