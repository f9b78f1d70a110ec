//! This node's own connections to a peer: made, kept, and made again.
//!
//! The control lane leads. While it is up, the others are kept beside it; when it goes, they go.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_rustls::client::TlsStream;
use tracing::{debug, info, warn};
use umbel_core::backoff::{Backoff, Jitter};

use super::{
    super::metrics::{self, Refusal},
    conn::{Conn, End, Watch, Wire},
    connect::{Failure, dial},
    frame::Frame,
    hello::{Lane, Welcome},
    outbox::Outbox,
    peer::Remote,
    shared::{Phase, Shared},
};

/// Between tries to reach a peer.
const TRIES: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_secs(2),
    jitter: Jitter::Half,
};
/// While its machine answers that nobody listens: a process that is started again is there soon.
const REFUSED: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(250),
    jitter: Jitter::Half,
};
/// A link that held for so long was a good one: the next try comes early.
const HELD: Duration = Duration::from_secs(2);
/// Pings in the time of silence, see [`super::super::Timing`].
const PINGS: u32 = 4;
/// On lanes that do not judge the peer: only so that a dead connection does not stay for ever.
const SLOW_PING: Duration = Duration::from_secs(3);

/// Keeps the link to a peer, until it leaves the book or this node stops.
pub(super) async fn keep(shared: Arc<Shared>, peer: Arc<Remote>) {
    let mut phase = shared.phase();
    tokio::select! {
        () = lead(&shared, &peer) => {},
        () = peer.left() => {},
        _ = phase.wait_for(|phase| *phase == Phase::Over) => {},
    }
}

/// The control lane, again and again.
async fn lead(shared: &Arc<Shared>, peer: &Arc<Remote>) {
    let mut phase = shared.phase();
    let mut attempt = 0;
    let mut told = None;
    loop {
        let dialled = tokio::select! {
            dialled = Box::pin(dial(shared, peer, Lane::Control)) => dialled,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        };
        let pause = match dialled {
            Ok((stream, welcome)) => {
                let since = Instant::now();
                told = None;
                Box::pin(link(shared, peer, stream, welcome)).await;
                attempt = if since.elapsed() > HELD {
                    0
                } else {
                    attempt + 1
                };
                TRIES
            },
            Err(failure) => {
                attempt += 1;
                let refused = matches!(failure, Failure::Refused(_));
                peer.failed(refused);
                shared.tell(peer.node, failure, &mut told);
                if refused { REFUSED } else { TRIES }
            },
        };
        let delay = delay(pause, attempt);
        tokio::select! {
            () = sleep(delay) => {},
            () = peer.kick.notified() => {},
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        }
    }
}

fn delay(backoff: Backoff, attempt: u32) -> Duration {
    backoff.delay(attempt, rand::rng().random())
}

/// One link, from its first lane's handshake to that lane's end.
async fn link(
    shared: &Arc<Shared>,
    peer: &Arc<Remote>,
    stream: TlsStream<TcpStream>,
    welcome: Welcome,
) {
    let life = (welcome.boot, welcome.nonce);
    let mut others = JoinSet::new();
    for lane in [Lane::Work, Lane::Bulk] {
        let following = follow(Arc::clone(shared), Arc::clone(peer), lane, life);
        others.spawn_on(following, &shared.work);
    }
    shared.meters.ups.increment(1);
    info!(peer = %peer.node, boot = welcome.boot.0, version = welcome.version,
        software = welcome.software, "the link is up");
    let end = carry(shared, peer, Lane::Control, stream, welcome).await;
    others.shutdown().await;
    if let End::Cut(why) = &end {
        info!(peer = %peer.node, reason = why, "the link is taken down");
    } else {
        warn!(peer = %peer.node, reason = %end, "the link is down");
    }
    metrics::down(end.label());
}

/// Another lane, as long as the first one holds.
async fn follow(
    shared: Arc<Shared>,
    peer: Arc<Remote>,
    lane: Lane,
    life: (umbel_storage::nodes::Boot, u64),
) {
    let mut attempt = 0;
    let mut told = None;
    loop {
        match Box::pin(dial(&shared, &peer, lane)).await {
            Ok((_, welcome)) if (welcome.boot, welcome.nonce) != life => {
                peer.cut("the other side was started again");
            },
            Ok((stream, welcome)) => {
                attempt = 0;
                told = None;
                let end = carry(&shared, &peer, lane, stream, welcome).await;
                debug!(peer = %peer.node, lane = lane.name(), reason = %end, "a lane is down");
            },
            Err(failure) => shared.tell(peer.node, failure, &mut told),
        }
        sleep(delay(TRIES, attempt)).await;
        attempt += 1;
    }
}

/// Takes a lane out of use, however its future ends.
struct Up<'a> {
    peer: &'a Remote,
    lane: Lane,
    conn: Arc<Conn>,
    end: End,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.peer.down(self.lane, &self.conn, &self.end);
    }
}

/// Uses one connection until its end.
async fn carry(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
    stream: TlsStream<TcpStream>,
    welcome: Welcome,
) -> End {
    let limits = &shared.limits;
    let window = usize::try_from(welcome.window).unwrap_or(usize::MAX);
    let window = window.clamp(1, limits.requests_max);
    let outbox = Outbox::new(peer.node, *limits, window, Arc::clone(&shared.meters));
    let conn = Conn::new(outbox);
    let mut up = Up {
        peer,
        lane,
        conn: Arc::clone(&conn),
        end: End::Cut("stopping"),
    };
    peer.up(lane, welcome.boot, &conn);
    let watch = match lane {
        Lane::Control => Watch::Ask {
            every: shared.timing.silence / PINGS,
            missed_max: PINGS,
        },
        Lane::Work | Lane::Bulk => Watch::Ask {
            every: SLOW_PING,
            missed_max: PINGS,
        },
    };
    let wire = Wire::new(&conn.outbox, &shared.meters, limits.body_bytes_max);
    let take = |frame| {
        let asked = match frame {
            Frame::Answer { id, outcome } => conn.outbox.answered(id, outcome),
            Frame::Request { .. }
            | Frame::Notice { .. }
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Goaway(_) => false,
        };
        let nobody_asked = || End::Protocol("an answer nobody asked for".to_owned());
        let taken = if asked { Ok(()) } else { Err(nobody_asked()) };
        std::future::ready(taken)
    };
    up.end = tokio::select! {
        biased;
        end = conn.is_cut() => end,
        end = wire.run(stream, watch, take) => end,
    };
    up.end.clone()
}

impl Shared {
    /// Counts a failure, and logs it unless it is the one that was logged last.
    fn tell(&self, peer: umbel_core::ids::NodeId, failure: Failure, told: &mut Option<String>) {
        let (why, turned) = match failure {
            Failure::Refused(why) | Failure::Unreachable(why) => (why, None),
            Failure::Turned(refusal, why) => (why, Some(refusal)),
        };
        if let Some(refusal) = turned {
            self.meters.refused(refusal);
        }
        if told.as_ref() == Some(&why) {
            return;
        }
        match turned {
            Some(Refusal::Identity) => warn!(
                %peer, reason = why,
                "who answers at the address of this node is another: is the address book right?"
            ),
            Some(_) => {
                warn!(%peer, reason = why, "no link to this node: one side turns the other away");
            },
            None => info!(%peer, reason = why, "no link to this node yet"),
        }
        *told = Some(why);
    }
}
