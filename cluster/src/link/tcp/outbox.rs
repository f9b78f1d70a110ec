//! What waits to be written to one connection, and who waits for an answer on it.
//!
//! Everything is bounded for each service: what waits by count and bytes, what is under way by the window the peer gave. A
//! request leaves the queue only when the window has room, so that a busy handler on the other side makes its own askers
//! wait and nobody else.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use umbel_core::ids::NodeId;
use umbel_storage::PeerError;

use super::{
    super::{Limits, Service, desk::Outcome, limits::place, metrics::Meters},
    frame::Frame,
};

/// What an asker gets.
pub(super) type Answer = Result<Bytes, PeerError>;

/// Pings and pongs that may wait: a peer that does not read them gets no more.
const SIGNALS_MAX: usize = 16;

/// One connection's outbox.
pub(super) struct Outbox {
    peer: NodeId,
    limits: Limits,
    window: usize,
    meters: Arc<Meters>,
    state: Mutex<State>,
    ready: Notify,
}

struct State {
    open: bool,
    /// Pings, pongs and the farewell: before everything else.
    signals: VecDeque<Frame>,
    queues: [Queue; Service::ALL.len()],
    asked: HashMap<u64, Asked>,
    next_id: u64,
    /// The service whose turn is first, among those without precedence.
    turn: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    under_way: usize,
    under_way_bytes: usize,
}

/// A frame that waits, and who asked it.
struct Waiting {
    frame: Frame,
    weight: usize,
    asker: Option<oneshot::Sender<Answer>>,
}

/// A request that was sent. It stays until it is answered, even if nobody waits any more: its handler is at work.
struct Asked {
    service: Service,
    weight: usize,
    asker: oneshot::Sender<Answer>,
}

/// A request in the queue or under way.
pub(super) struct Ticket {
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Outbox {
    /// For a connection to this peer, which takes so many requests of each service at once.
    pub(super) fn new(peer: NodeId, limits: Limits, window: usize, meters: Arc<Meters>) -> Self {
        Self {
            peer,
            limits,
            window,
            meters,
            state: Mutex::new(State {
                open: true,
                signals: VecDeque::new(),
                queues: Default::default(),
                asked: HashMap::new(),
                next_id: 1,
                turn: 0,
            }),
            ready: Notify::new(),
        }
    }

    /// Queues a request.
    pub(super) fn request(
        &self,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> Result<Ticket, PeerError> {
        let (asker, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let frame = Frame::Request {
            service,
            id,
            within,
            body,
        };
        self.queue(&mut state, service, frame, Some(asker))?;
        Ok(Ticket { id, answer })
    }

    /// Queues a notice.
    pub(super) fn notice(&self, service: Service, body: Bytes) -> Result<(), PeerError> {
        let frame = Frame::Notice { service, body };
        self.queue(&mut self.state.lock(), service, frame, None)
    }

    /// Queues an answer. Answers are as many as requests are let in; when their bytes are too many, the asker is told
    /// that the outcome is unknown.
    pub(super) fn answer(&self, service: Service, id: u64, outcome: Outcome) {
        let mut state = self.state.lock();
        let frame = Frame::Answer { id, outcome };
        if self.queue(&mut state, service, frame, None).is_ok() || !state.open {
            return;
        }
        let frame = Frame::Answer {
            id,
            outcome: Outcome::Unknown,
        };
        let weight = frame.weight();
        state.push(
            service,
            Waiting {
                frame,
                weight,
                asker: None,
            },
        );
        drop(state);
        self.meters.queued.increment(1.0);
        self.ready.notify_one();
    }

    /// Queues a ping, a pong, or the farewell. `false`: too many wait.
    pub(super) fn signal(&self, frame: Frame) -> bool {
        let mut state = self.state.lock();
        if !state.open || state.signals.len() >= SIGNALS_MAX {
            return false;
        }
        state.signals.push_back(frame);
        drop(state);
        self.ready.notify_one();
        true
    }

    fn queue(
        &self,
        state: &mut State,
        service: Service,
        frame: Frame,
        asker: Option<oneshot::Sender<Answer>>,
    ) -> Result<(), PeerError> {
        if !state.open {
            return Err(PeerError::NotConnected(self.peer));
        }
        let weight = frame.weight();
        let (count, bytes) = state
            .queues
            .get(place(service))
            .map_or((0, 0), |queue| (queue.waiting.len(), queue.bytes));
        let full = count >= self.limits.queue_messages_max
            || (count > 0 && bytes + weight > self.limits.queue_bytes_max);
        if full {
            self.meters.busy(service);
            return Err(PeerError::Busy(self.peer));
        }
        state.push(
            service,
            Waiting {
                frame,
                weight,
                asker,
            },
        );
        self.meters.queued.increment(1.0);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for the answer, as long as the asker likes. What has not been sent by then is taken back.
    pub(super) async fn wait(&self, ticket: Ticket, within: Duration) -> Answer {
        let Ticket { id, mut answer } = ticket;
        match tokio::time::timeout(within, &mut answer).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) => return Err(PeerError::Unknown(self.peer)),
            Err(_) => {},
        }
        // Closed before the table is looked at: from here on it is not sent any more.
        answer.close();
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
        if self.state.lock().asked.contains_key(&id) {
            return Err(PeerError::Unknown(self.peer));
        }
        Err(PeerError::Busy(self.peer))
    }

    /// An answer came. `false`: nobody asked.
    pub(super) fn answered(&self, id: u64, outcome: Outcome) -> bool {
        let mut state = self.state.lock();
        let Some(asked) = state.asked.remove(&id) else {
            return false;
        };
        let mut held = false;
        if let Some(queue) = state.queues.get_mut(place(asked.service)) {
            queue.under_way = queue.under_way.saturating_sub(1);
            queue.under_way_bytes = queue.under_way_bytes.saturating_sub(asked.weight);
            held = !queue.waiting.is_empty();
        }
        drop(state);
        if held {
            self.ready.notify_one();
        }
        let node = self.peer;
        // An asker that is gone wants nothing.
        drop(asked.asker.send(match outcome {
            Outcome::Done(body) => Ok(body),
            Outcome::Refused(why) => Err(PeerError::Refused { node, why }),
            Outcome::Busy => Err(PeerError::Busy(node)),
            Outcome::Unknown => Err(PeerError::Unknown(node)),
        }));
        true
    }

    /// Waits until something may be there to write.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes what is to be written next: signals, then Raft, then Control, then one of each other service in turn, up to
    /// so many bytes.
    pub(super) fn collect(&self, bytes_max: usize, into: &mut Vec<Frame>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        into.extend(state.signals.drain(..));
        let mut bytes = 0;
        let mut taken = 0;
        for service in [Service::Raft, Service::Control] {
            while bytes < bytes_max
                && let Some(frame) = self.take(state, service)
            {
                bytes += frame.weight();
                taken += 1;
                into.push(frame);
            }
        }
        let mut idle = 0;
        while bytes < bytes_max && idle < OTHERS.len() {
            let service = OTHERS.get(state.turn % OTHERS.len());
            state.turn = (state.turn + 1) % OTHERS.len();
            match service.and_then(|service| self.take(state, *service)) {
                Some(frame) => {
                    bytes += frame.weight();
                    taken += 1;
                    idle = 0;
                    into.push(frame);
                },
                None => idle += 1,
            }
        }
        self.meters.queued.decrement(f64::from(taken));
    }

    /// The next frame of a service that may be sent now.
    fn take(&self, state: &mut State, service: Service) -> Option<Frame> {
        let queue = state.queues.get_mut(place(service))?;
        loop {
            let next = queue.waiting.front()?;
            let given_up = next.asker.as_ref().is_some_and(oneshot::Sender::is_closed);
            let asks = next.asker.is_some() && !given_up;
            let bytes = queue.under_way_bytes + next.weight;
            let full = queue.under_way >= self.window
                || (queue.under_way > 0 && bytes > self.limits.request_bytes_max);
            if asks && full {
                return None;
            }
            let next = queue.waiting.pop_front()?;
            queue.bytes = queue.bytes.saturating_sub(next.weight);
            if given_up {
                self.meters.queued.decrement(1.0);
                continue;
            }
            if let (Some(asker), Frame::Request { id, .. }) = (next.asker, &next.frame) {
                queue.under_way += 1;
                queue.under_way_bytes += next.weight;
                state.asked.insert(
                    *id,
                    Asked {
                        service,
                        weight: next.weight,
                        asker,
                    },
                );
            }
            return Some(next.frame);
        }
    }

    /// The connection is over: what was not sent was not sent, and of the rest nobody knows.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.signals.clear();
        let asked = std::mem::take(&mut state.asked);
        let queues = std::mem::take(&mut state.queues);
        drop(state);
        let mut left = 0;
        for waiting in queues.into_iter().flat_map(|queue| queue.waiting) {
            left += 1;
            if let Some(asker) = waiting.asker {
                drop(asker.send(Err(PeerError::NotConnected(self.peer))));
            }
        }
        self.meters.queued.decrement(f64::from(left));
        for asked in asked.into_values() {
            drop(asked.asker.send(Err(PeerError::Unknown(self.peer))));
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

/// Services without precedence.
const OTHERS: [Service; 4] = [
    Service::Fleet,
    Service::Broker,
    Service::Bulk,
    Service::Operator,
];

impl State {
    fn push(&mut self, service: Service, waiting: Waiting) {
        if let Some(queue) = self.queues.get_mut(place(service)) {
            queue.bytes += waiting.weight;
            queue.waiting.push_back(waiting);
        }
    }
}
