//! Events on their way between nodes. Who listens asks again and again, and is answered when something happens: there is
//! nothing to end when a listener dies, and after a broken link it goes on where it was.

use std::{collections::BTreeMap, time::Duration};

use futures_util::stream;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use umbel_actors::{Delivery, Fleet};
use umbel_core::ids::NodeId;
use umbel_http::{
    carried,
    port::{EventStream, Feed},
};
use umbel_storage::nodes::Reach;

use super::{
    gather::Operations,
    service::{Answer, Ask, Events},
};

/// How long a node waits for something to happen before it says that nothing did.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// What asking takes besides.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Before a node that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Events of one answer.
const EVENTS_MAX: usize = 256;
/// Events that wait here for their readers; then the asking waits, and the other node's ring keeps them.
const WAITING_MAX: usize = 1024;

/// Answers another node.
pub(super) async fn answer(fleet: &Fleet, from: Option<u64>) -> Events {
    let mut feed = fleet.events(from.map(|next| next.saturating_sub(1)));
    let mut answer = Events {
        told: Vec::new(),
        next: feed.position(),
        has_gap: false,
    };
    let mut patience = QUIET_MAX;
    while answer.told.len() < EVENTS_MAX {
        match timeout(patience, feed.next()).await {
            Ok(Delivery::Event(event)) => answer.told.push(carried(&event)),
            Ok(Delivery::Lagged { .. }) => {
                answer.has_gap = true;
                // Those before the gap are told first; there are none in an answer that begins with it.
                answer.told.clear();
            },
            Ok(Delivery::Closed) | Err(_) => break,
        }
        answer.next = feed.position();
        // The rest of what is there already, and no more.
        patience = Duration::ZERO;
    }
    answer
}

/// What happens on all other nodes, those that come later included.
pub(super) fn of_others(operations: Operations) -> EventStream {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let mut listening = JoinSet::new();
    listening.spawn(listen(operations, sender));
    // With the stream go its tasks.
    let state = (receiver, listening);
    Box::pin(stream::unfold(state, async |(mut receiver, listening)| {
        let feed = receiver.recv().await?;
        Some((feed, (receiver, listening)))
    }))
}

async fn listen(operations: Operations, sender: mpsc::Sender<Feed>) {
    let mut changes = operations.0.nodes.changes();
    let mut tasks = JoinSet::new();
    let mut asked: BTreeMap<NodeId, AbortHandle> = BTreeMap::new();
    loop {
        asked.retain(|_, task| !task.is_finished());
        for peer in operations.0.nodes.peers() {
            if peer.reach == Reach::Connected && !asked.contains_key(&peer.node) {
                let task = follow(operations.clone(), peer.node, sender.clone());
                asked.insert(peer.node, tasks.spawn(task));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Follows one node until it leaves the cluster or nobody listens any more.
async fn follow(operations: Operations, node: NodeId, sender: mpsc::Sender<Feed>) {
    let mut from = None;
    loop {
        let answer = operations
            .ask_one(node, Ask::Events { from }, ANSWER_WITHIN)
            .await;
        let Ok(Answer::Events(answer)) = answer else {
            let is_known = operations
                .0
                .nodes
                .peers()
                .iter()
                .any(|peer| peer.node == node);
            if !is_known || sender.is_closed() {
                return;
            }
            sleep(PAUSE).await;
            continue;
        };
        from = Some(answer.next);
        let gap = answer.has_gap.then_some(Feed::Lagged { next: answer.next });
        let events = answer.told.into_iter().filter_map(|event| event.event(0));
        for feed in gap.into_iter().chain(events.map(Feed::Event)) {
            if sender.send(feed).await.is_err() {
                return;
            }
        }
    }
}
