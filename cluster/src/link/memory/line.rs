//! What carries messages from one node to another while their link holds: a queue and a task for each service.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use umbel_core::ids::NodeId;
use umbel_storage::PeerError;

use super::{
    super::{
        BoxFuture, Service,
        desk::{Begun, Outcome, Reply},
        limits::place,
    },
    Life, Shared,
    net::Way,
};

/// What the asker waits for. A sender that is dropped says "unknown".
type Answer = oneshot::Receiver<Result<Bytes, PeerError>>;

/// One message on its way.
struct Item {
    /// When it was sent.
    sent: Instant,
    body: Bytes,
    /// Of a request: how long the asker waits, and where.
    asked: Option<(Duration, oneshot::Sender<Result<Bytes, PeerError>>)>,
}

/// The way of one service.
struct Track {
    items: mpsc::Sender<Item>,
    bytes: Arc<AtomicUsize>,
}

/// From one life of a node to one life of another.
pub(super) struct Line {
    to: NodeId,
    bytes_max: usize,
    tracks: Vec<Track>,
    broken: watch::Sender<bool>,
}

impl Line {
    pub(super) fn new(shared: &Arc<Shared>, from: &Arc<Life>, to: &Arc<Life>) -> Arc<Self> {
        let broken = watch::Sender::new(false);
        let tracks = Service::ALL.iter().map(|service| {
            let (items, waiting) = mpsc::channel(shared.limits.queue_messages_max);
            let bytes = Arc::new(AtomicUsize::new(0));
            let carrier = Carrier {
                shared: Arc::downgrade(shared),
                from: from.node,
                to: Arc::clone(to),
                service: *service,
                bytes: Arc::clone(&bytes),
                places: Arc::new(Semaphore::new(shared.limits.requests_max)),
                broken: broken.subscribe(),
            };
            drop(tokio::spawn(carrier.run(waiting)));
            Track { items, bytes }
        });
        Arc::new(Self {
            to: to.node,
            bytes_max: shared.limits.queue_bytes_max,
            tracks: tracks.collect(),
            broken,
        })
    }

    /// All that is on its way is lost.
    pub(super) fn break_off(&self) {
        self.broken.send_replace(true);
    }

    pub(super) fn request(
        &self,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> Result<Answer, PeerError> {
        let (sender, answer) = oneshot::channel();
        self.send(service, body, Some((within, sender)))?;
        Ok(answer)
    }

    pub(super) fn notice(&self, service: Service, body: Bytes) -> Result<(), PeerError> {
        self.send(service, body, None)
    }

    fn send(
        &self,
        service: Service,
        body: Bytes,
        asked: Option<(Duration, oneshot::Sender<Result<Bytes, PeerError>>)>,
    ) -> Result<(), PeerError> {
        let track = self.tracks.get(place(service));
        let track = track.ok_or(PeerError::NotConnected(self.to))?;
        let size = body.len();
        let waiting = track.bytes.fetch_add(size, Ordering::Relaxed);
        let item = Item {
            sent: Instant::now(),
            body,
            asked,
        };
        let sent = if waiting > 0 && waiting + size > self.bytes_max {
            Err(PeerError::Busy(self.to))
        } else {
            track.items.try_send(item).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => PeerError::Busy(self.to),
                mpsc::error::TrySendError::Closed(_) => PeerError::NotConnected(self.to),
            })
        };
        if sent.is_err() {
            track.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        sent
    }
}

/// Takes the messages of one service to the other node, one after the other.
struct Carrier {
    shared: Weak<Shared>,
    from: NodeId,
    to: Arc<Life>,
    service: Service,
    bytes: Arc<AtomicUsize>,
    places: Arc<Semaphore>,
    broken: watch::Receiver<bool>,
}

impl Carrier {
    async fn run(self, mut waiting: mpsc::Receiver<Item>) {
        let mut broken = self.broken.clone();
        tokio::select! {
            biased;
            _ = broken.wait_for(|broken| *broken) => {},
            () = async {
                while let Some(item) = waiting.recv().await {
                    self.carry(item).await;
                }
            } => {},
        }
    }

    async fn carry(&self, item: Item) {
        let size = item.body.len();
        travel(&self.shared, (self.from, self.to.node), item.sent).await;
        match item.asked {
            Some((within, sender)) => self.ask(item.body, within, sender).await,
            None => drop(self.to.desk.notice(self.from, self.service, item.body)),
        }
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    async fn ask(
        &self,
        body: Bytes,
        within: Duration,
        sender: oneshot::Sender<Result<Bytes, PeerError>>,
    ) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        let begun = self.to.desk.request(self.from, self.service, body).await;
        let reply = self.reply(sender, place);
        match begun {
            Begun::Ended(outcome) => reply.send(outcome),
            Begun::Running(future) => {
                let overtime = self.shared.upgrade().map(|shared| shared.limits.overtime);
                let allowed = within + overtime.unwrap_or_default();
                let over = self.to.over.subscribe();
                drop(tokio::spawn(finish(future, allowed, over, reply)));
            },
        }
    }

    /// Takes the outcome back to the asker. Its place is free when it is there.
    fn reply(
        &self,
        sender: oneshot::Sender<Result<Bytes, PeerError>>,
        place: OwnedSemaphorePermit,
    ) -> Reply<impl FnOnce(Outcome) + Send + 'static> {
        let shared = Weak::clone(&self.shared);
        let (node, way) = (self.to.node, (self.to.node, self.from));
        let mut broken = self.broken.clone();
        let sent = Instant::now;
        Reply::new(move |outcome| {
            let sent = sent();
            let travelling = async move {
                tokio::select! {
                    biased;
                    _ = broken.wait_for(|broken| *broken) => {},
                    () = travel(&shared, way, sent) => drop(sender.send(result(node, outcome))),
                }
                drop(place);
            };
            drop(tokio::spawn(travelling));
        })
    }
}

/// Runs a handler to its end, or to the end of its node or of its time.
async fn finish<F: FnOnce(Outcome)>(
    future: BoxFuture<'static, Result<Bytes, String>>,
    allowed: Duration,
    mut over: watch::Receiver<bool>,
    reply: Reply<F>,
) {
    let outcome = tokio::select! {
        biased;
        _ = over.wait_for(|over| *over) => Outcome::Unknown,
        ended = timeout(allowed, future) => ended.map_or(Outcome::Unknown, Outcome::from),
    };
    reply.send(outcome);
}

fn result(node: NodeId, outcome: Outcome) -> Result<Bytes, PeerError> {
    match outcome {
        Outcome::Done(body) => Ok(body),
        Outcome::Refused(why) => Err(PeerError::Refused { node, why }),
        Outcome::Busy => Err(PeerError::Busy(node)),
        Outcome::Unknown => Err(PeerError::Unknown(node)),
    }
}

/// Waits until something sent at `sent` arrives: not while its way is cut.
async fn travel(shared: &Weak<Shared>, way: Way, sent: Instant) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let mut ways = strong.ways.subscribe();
        let takes = strong.net.lock().takes(way);
        drop(strong);
        match takes {
            Some(takes) if sent + takes <= Instant::now() => return,
            Some(takes) => sleep_until(sent + takes).await,
            None => drop(ways.changed().await),
        }
    }
}
