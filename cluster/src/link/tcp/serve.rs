//! What a peer's connection asks of this node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, time::timeout};
use tokio_rustls::server::TlsStream;
use umbel_core::ids::NodeId;

use super::{
    super::{
        Service,
        desk::{Begun, Outcome, Reply},
        limits::place,
    },
    conn::{Conn, End, Watch, Wire},
    frame::Frame,
    hello::Lane,
    outbox::Outbox,
    shared::{Phase, Shared},
    socket::Socket,
};

/// The dialler pings at least three times in this time; who says nothing is dead.
const SILENT: Duration = Duration::from_secs(10);

/// A connection that is served. There is one for each node and lane: a newer one takes the place of the older, and only
/// after that has been read for the last time.
pub(super) struct Served {
    pub(super) conn: Arc<Conn>,
    over: watch::Sender<bool>,
}

/// Takes the place of a connection; gives it back when dropped.
pub(super) struct Seat<'a> {
    shared: &'a Shared,
    key: (NodeId, Lane),
    served: Arc<Served>,
}

impl<'a> Seat<'a> {
    /// Ends the connection that has the place, and takes it.
    pub(super) async fn take(shared: &'a Shared, from: NodeId, lane: Lane) -> Seat<'a> {
        let meters = Arc::clone(&shared.meters);
        let outbox = Outbox::new(from, shared.limits, usize::MAX, meters);
        let served = Arc::new(Served {
            conn: Conn::new(outbox),
            over: watch::Sender::new(false),
        });
        let key = (from, lane);
        loop {
            let older = {
                let mut all = shared.served.lock();
                let Some(older) = all.get(&key) else {
                    all.insert(key, Arc::clone(&served));
                    break;
                };
                Arc::clone(older)
            };
            older.conn.cut("a newer connection took its place");
            drop(older.over.subscribe().wait_for(|over| *over).await);
        }
        Seat {
            shared,
            key,
            served,
        }
    }

    /// Serves a connection until its end.
    pub(super) async fn serve(&self, stream: TlsStream<Socket>, shared: &Arc<Shared>) -> End {
        let conn = &self.served.conn;
        let guest = Guest {
            shared: Arc::clone(shared),
            conn: Arc::clone(conn),
            from: self.key.0,
            under_way: Arc::default(),
        };
        let wire = Wire::new(&conn.outbox, &shared.meters, shared.limits.body_bytes_max);
        let mut phase = shared.phase();
        let watch = Watch::Listen { every: SILENT };
        tokio::select! {
            biased;
            end = conn.is_cut() => end,
            _ = phase.wait_for(|phase| *phase == Phase::Over) => End::Cut("stopping"),
            end = wire.run(stream, watch, |frame| guest.take(frame)) => end,
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.served.conn.outbox.close();
        self.shared.served.lock().remove(&self.key);
        self.served.over.send_replace(true);
    }
}

/// The node at the other end.
struct Guest {
    shared: Arc<Shared>,
    conn: Arc<Conn>,
    from: NodeId,
    under_way: Arc<[UnderWay; Service::ALL.len()]>,
}

/// What its requests of a service hold.
#[derive(Default)]
struct UnderWay {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Guest {
    async fn take(&self, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::Request {
                service,
                id,
                within,
                body,
            } => self.request(service, id, within, body).await,
            Frame::Notice { service, body } => {
                self.shared.desk.notice(self.from, service, body);
            },
            Frame::Answer { .. } | Frame::Ping(_) | Frame::Pong(_) | Frame::Goaway(_) => {
                return Err(End::Protocol("an answer to no question".to_owned()));
            },
        }
        Ok(())
    }

    /// Never waits: the window bounds what is under way, and who does not keep it is refused.
    async fn request(&self, service: Service, id: u64, within: Duration, body: Bytes) {
        let limits = &self.shared.limits;
        let size = body.len();
        let Some(room) = self.under_way.get(place(service)) else {
            return;
        };
        let requests = room.requests.fetch_add(1, Ordering::Relaxed);
        let bytes = room.bytes.fetch_add(size, Ordering::Relaxed);
        let conn = Arc::clone(&self.conn);
        let all = Arc::clone(&self.under_way);
        let reply = Reply::new(move |outcome| {
            if let Some(room) = all.get(place(service)) {
                room.requests.fetch_sub(1, Ordering::Relaxed);
                room.bytes.fetch_sub(size, Ordering::Relaxed);
            }
            conn.outbox.answer(service, id, outcome);
        });
        if requests >= limits.requests_max || (bytes > 0 && bytes > limits.request_bytes_max) {
            self.shared.meters.busy(service);
            reply.send(Outcome::Busy);
            return;
        }
        match self.shared.desk.request(self.from, service, body).await {
            Begun::Ended(outcome) => reply.send(outcome),
            Begun::Running(future) => {
                let allowed = within.saturating_add(limits.overtime);
                drop(tokio::spawn(async move {
                    let ended = timeout(allowed, future).await;
                    reply.send(ended.map_or(Outcome::Unknown, Outcome::from));
                }));
            },
        }
    }
}
