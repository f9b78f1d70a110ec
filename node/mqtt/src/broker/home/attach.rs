//! Who a home pushes to: windows come, go and are replaced, by epoch and then by attempt.

use std::{collections::BTreeSet, sync::Arc};

use umbel_core::ids::{ClientId, NodeId, SessionEpoch, ShardId};

use super::{Attachment, Gateway, Sink};
use crate::broker::{
    Broker, Drop,
    delivery::cost,
    mailbox::{Mailbox, State},
    metrics,
    outbound::Row,
    peers::{
        self,
        home::{Attach, Speaker, Tell},
    },
};

/// Rows read at a time when a window comes back.
const RESUME_PAGE: usize = 256;

/// Why a window was not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAttached {
    /// This node is not the home, or not yet.
    NotHere,
    /// A newer connection, or a newer attempt of this one, was quicker.
    Stale,
    /// There are too many sessions.
    Full,
}

impl Broker {
    /// Attaches a window of this node. Nothing is pushed before [`Self::feed`] is called.
    pub(crate) fn attach_here(
        self: &Arc<Self>,
        request: &Attach,
        window: &Arc<Mailbox>,
    ) -> Result<Attachment, NotAttached> {
        self.attach_window(request, Sink::Here(Arc::downgrade(window)))
    }

    /// Attaches a window of another node. Nothing is pushed before [`Self::feed`] is called.
    pub(super) fn attach_there(
        self: &Arc<Self>,
        request: &Attach,
        node: NodeId,
    ) -> Result<Attachment, NotAttached> {
        self.attach_window(request, Sink::There(node))
    }

    fn attach_window(
        self: &Arc<Self>,
        request: &Attach,
        sink: Sink,
    ) -> Result<Attachment, NotAttached> {
        let Speaker { client, epoch } = &request.speaker;
        if !self.home_ready(ShardId::of(client.as_str(), self.ledger.shards())) {
            return Err(NotAttached::NotHere);
        }
        if self.is_over(client, *epoch) {
            return Err(NotAttached::Stale);
        }
        let home = self.home_for(request)?;
        // whoever was attached is not any more; what comes meanwhile waits in storage
        let deleting = {
            let mut state = home.lock();
            check(&home, &state, request)?;
            let before = state.gateway.take();
            self.supersede(&home, before.filter(|_| home.epoch() < *epoch).as_deref());
            home.close_window(&mut state, None);
            home.listen_to(*epoch);
            if let Some(sent) = request.sent {
                state.outbound().set_sent(sent);
            }
            let outbound = state.outbound_if_any();
            outbound.map_or_else(BTreeSet::new, |outbound| outbound.deleting())
        };
        let rows = self.rows_up_to(&home, request.highest);
        let mut state = home.lock();
        check(&home, &state, request)?;
        if state.gateway.is_some() {
            return Err(NotAttached::NotHere); // another attempt came in between: what was read is not what is left
        }
        let mut done = Vec::new();
        if request.highest > 0 {
            done =
                state
                    .outbound()
                    .resume(&rows, &deleting, &request.unacknowledged, request.highest);
        }
        home.open_window(&mut state, Box::new(Gateway::new(request, sink)));
        let ids: Vec<_> = state.inbound.keys().copied().collect();
        let inbound = ids
            .into_iter()
            .filter_map(|id| Some((id, state.inbound(id)?)))
            .collect();
        let subscriptions = state.subscriptions.len();
        drop(state);
        for sequence in done {
            self.delete_soon(&home, sequence);
        }
        self.groups_changed(&home);
        Ok(Attachment {
            home,
            inbound,
            subscriptions,
        })
    }

    /// Whether the fleet's record of a client is of a later connection than this.
    fn is_over(&self, client: &ClientId, epoch: SessionEpoch) -> bool {
        self.fleet
            .get()
            .and_then(|fleet| fleet.current_epoch(client))
            .is_some_and(|current| current > epoch)
    }

    /// The home of a session, a new one if it has none. What an older session left goes when a new one begins.
    fn home_for(self: &Arc<Self>, request: &Attach) -> Result<Arc<Mailbox>, NotAttached> {
        let Speaker { client, epoch } = &request.speaker;
        let mut place = self.homes.lock(client);
        if let Some(known) = place.get(client).cloned() {
            if known.epoch() > *epoch {
                return Err(NotAttached::Stale);
            }
            let is_over = request.fresh && known.epoch() < *epoch || known.lock().ended;
            if !is_over {
                return Ok(known);
            }
            place.remove(client);
            self.dispose(&known, Some(*epoch));
        } else if self.homes.len() >= self.config.sessions_max {
            return Err(NotAttached::Full);
        }
        let shard = ShardId::of(client.as_str(), self.ledger.shards());
        let (term, floor) = (self.term_in_office(shard), self.homes.floor(shard));
        let began = if request.fresh {
            *epoch
        } else {
            SessionEpoch::default()
        };
        let home = Arc::new(Mailbox::home(client.clone(), shard, term, began, floor));
        place.insert(Arc::clone(&home));
        Ok(home)
    }

    /// Tells the window of an older connection that it is over. The fleet does so, too: whoever comes first.
    fn supersede(&self, home: &Mailbox, before: Option<&Gateway>) {
        if let Some(Sink::There(node)) = before.map(|before| &before.sink) {
            let speaker = Speaker {
                client: home.client().clone(),
                epoch: home.epoch(),
            };
            // lost with the link, it closes when it attaches again
            drop(self.tell_home(*node, Tell::Ended(speaker)));
        }
    }

    fn rows_up_to(&self, home: &Mailbox, highest: u64) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut after = 0;
        while after < highest {
            let (page, is_last) = self.read_queue(home, after, RESUME_PAGE);
            after = page.last().map_or(highest, |last| last.sequence);
            let known = page.into_iter().filter(|row| row.sequence <= highest);
            rows.extend(known.map(|row| Row {
                sequence: row.sequence,
                cost: cost(&row.message),
                qos: row.qos,
                released: row.released,
            }));
            if is_last {
                break;
            }
        }
        rows
    }

    /// A window of this node is gone.
    pub(crate) fn detach_here(&self, home: &Arc<Mailbox>, epoch: SessionEpoch, sent: Option<u64>) {
        let Some(mut state) = home.lock_as(epoch) else {
            return;
        };
        let lost = home.close_window(&mut state, sent);
        drop(state);
        metrics::dropped(Drop::ConnectionEnded, lost);
        self.groups_changed(home);
    }

    /// A gateway says that a connection is gone.
    pub(crate) fn detached(&self, speaker: &Speaker, sent: Option<u64>) {
        if let Some(home) = self.homes.get(&speaker.client) {
            self.detach_here(&home, speaker.epoch, sent);
        }
    }

    /// Detaches the windows of gateways that are gone.
    pub(super) fn detach_lost(&self, is_lost: impl Fn(NodeId, umbel_storage::nodes::Boot) -> bool) {
        let mut lost = Vec::new();
        self.homes.for_each(|home| {
            let mut state = home.lock();
            let gone = state
                .gateway
                .as_ref()
                .is_some_and(|gateway| match gateway.sink {
                    Sink::There(node) => is_lost(node, gateway.boot),
                    Sink::Here(_) => false,
                });
            if gone {
                home.close_window(&mut state, None);
                drop(state);
                lost.push(Arc::clone(home));
            }
        });
        for home in &lost {
            self.groups_changed(home);
        }
        if !lost.is_empty() {
            tracing::info!(
                sessions = lost.len(),
                "sessions detached from gateways that are gone"
            );
        }
    }

    /// Says something to the broker of another node about homes and windows.
    pub(crate) fn tell_home(
        &self,
        node: NodeId,
        tell: Tell,
    ) -> Result<(), umbel_storage::PeerError> {
        self.peers.tell(node, peers::Tell::Home(tell))
    }
}

/// Whether this attempt still counts.
fn check(home: &Mailbox, state: &State, request: &Attach) -> Result<(), NotAttached> {
    if state.ended {
        return Err(NotAttached::NotHere);
    }
    let is_over = home.epoch() > request.speaker.epoch
        || home.epoch() == request.speaker.epoch
            && state
                .gateway
                .as_ref()
                .is_some_and(|gateway| gateway.generation > request.generation);
    if is_over {
        return Err(NotAttached::Stale);
    }
    Ok(())
}

impl Gateway {
    fn new(request: &Attach, sink: Sink) -> Self {
        Self {
            sink,
            boot: request.boot,
            generation: request.generation,
            window: usize::from(request.window),
            pushed: 0,
            pushed_before: 0,
            acked: 0,
            acked_before: 0,
        }
    }
}
