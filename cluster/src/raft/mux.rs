//! All groups' messages between two nodes, in common frames.
//!
//! A message waits for nothing but its lane's turn: whatever other groups said meanwhile goes into the same frame. So a
//! beat of all heartbeats is a frame or two for each peer, and under load frames grow by themselves.
//!
//! What was asked stays known for a while after its asker has given up: a late answer still counts for the lease.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::LeaderId;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::JoinSet,
    time::Instant,
};
use umbel_core::ids::NodeId;
use umbel_storage::{PeerError, Reach};

use crate::{
    clock::Moment,
    link::{Service, Transport},
    lives::Lives,
    raft::{
        lease::Lease,
        rpc::{self, Answer, Appended, Ask, Envelope},
    },
    wire,
};

/// Bytes of a frame, unless one message is larger: what follows on the connection should not wait for long.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes that may wait for one peer. Each group has one large message under way at most.
const LANE_BYTES_MAX: usize = 64 << 20;
/// What an envelope costs beside its body.
const ENVELOPE_BYTES: usize = 32;
/// How long a late answer is still of use.
const LATE_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// There is no link to the node.
    #[error("the node is not connected")]
    NotConnected,
    /// Too much waits for the node.
    #[error("too much waits for the node")]
    Busy,
    /// It has no such group.
    #[error("the node has no such group")]
    NoGroup,
    /// It said something else, or does not understand.
    #[error("the node gave an answer that does not fit")]
    Misfit,
    /// It did not answer in time.
    #[error("the node did not answer in time")]
    Late,
}

/// Whose lease an answer is good for.
pub(crate) struct Credit {
    /// The lease.
    pub(crate) lease: Arc<Lease>,
    /// The leadership in which it was sent.
    pub(crate) leader: LeaderId<u64>,
}

struct Waiting {
    from: NodeId,
    answer: oneshot::Sender<Result<Answer, Lost>>,
    credit: Option<Credit>,
    sent: Moment,
    since: Instant,
}

#[derive(Default)]
struct Lane {
    waiting: Mutex<Outgoing>,
    arrived: Notify,
}

#[derive(Default)]
struct Outgoing {
    envelopes: std::collections::VecDeque<Envelope>,
    bytes: usize,
}

/// The lanes to all peers.
pub(crate) struct Mux {
    transport: Arc<dyn Transport>,
    lanes: Mutex<BTreeMap<NodeId, Arc<Lane>>>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
    /// Lanes run where the groups do, whoever says the first word to a peer.
    home: Handle,
    lives: OnceLock<Weak<Lives>>,
    me: Weak<Self>,
}

impl Mux {
    /// Lanes over a transport.
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Arc<Self> {
        let mux = Arc::new_cyclic(|me| Self {
            transport,
            lanes: Mutex::default(),
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            tasks: Mutex::new(JoinSet::new()),
            home: Handle::current(),
            lives: OnceLock::new(),
            me: Weak::clone(me),
        });
        let watching = watch_links(Arc::clone(&mux.transport), Arc::downgrade(&mux));
        mux.tasks.lock().spawn(watching);
        mux
    }

    /// The way to other nodes.
    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// From now on these say whose votes count.
    pub(crate) fn heed(&self, lives: &Arc<Lives>) {
        // Only the first call counts, and there is only one.
        drop(self.lives.set(Arc::downgrade(lives)));
    }

    /// Whether votes of that node count, and votes may be given to it.
    pub(crate) fn vouched(&self, node: NodeId) -> bool {
        let lives = self.lives.get().and_then(Weak::upgrade);
        lives.is_some_and(|lives| lives.vouched(node))
    }

    /// Whether there is a link to a node.
    pub(crate) fn reaches(&self, to: NodeId) -> bool {
        let peers = self.transport.peers();
        let peers = peers.borrow();
        peers
            .iter()
            .any(|peer| peer.node == to && peer.reach == Reach::Connected)
    }

    /// Asks and waits.
    pub(crate) async fn ask(
        &self,
        to: NodeId,
        group: u64,
        ask: &Ask,
        credit: Option<Credit>,
        within: Duration,
    ) -> Result<Answer, Lost> {
        let receiver = self.send(to, group, ask, credit)?;
        match tokio::time::timeout(within, receiver).await {
            Ok(Ok(Ok(Answer::NoGroup))) => Err(Lost::NoGroup),
            Ok(Ok(Ok(Answer::NotUnderstood))) => Err(Lost::Misfit),
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Lost::Late),
        }
    }

    fn send(
        &self,
        to: NodeId,
        group: u64,
        ask: &Ask,
        credit: Option<Credit>,
    ) -> Result<oneshot::Receiver<Result<Answer, Lost>>, Lost> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, receiver) = oneshot::channel();
        // Before it is queued: the lease must not last longer than the follower's promise.
        let sent = Moment::now();
        let waiting = Waiting {
            from: to,
            answer,
            credit,
            sent,
            since: Instant::now(),
        };
        self.waiting.lock().insert(id, waiting);
        let pushed = self.push(
            to,
            Envelope {
                id,
                group,
                answer: false,
                body: wire::encode(ask),
            },
        );
        if let Err(lost) = pushed {
            self.waiting.lock().remove(&id);
            return Err(lost);
        }
        Ok(receiver)
    }

    /// Answers what a peer asked.
    pub(crate) fn reply(&self, to: NodeId, id: u64, answer: &Answer) {
        let envelope = Envelope {
            id,
            group: 0,
            answer: true,
            body: wire::encode(answer),
        };
        if let Err(lost) = self.push(to, envelope) {
            tracing::debug!(node = to.0, %lost, "an answer to a member is lost");
        }
    }

    fn push(&self, to: NodeId, envelope: Envelope) -> Result<(), Lost> {
        let lane = self.lane(to);
        let mut waiting = lane.waiting.lock();
        let bytes = envelope.body.len() + ENVELOPE_BYTES;
        if waiting.bytes > 0 && waiting.bytes + bytes > LANE_BYTES_MAX {
            return Err(Lost::Busy);
        }
        waiting.bytes += bytes;
        waiting.envelopes.push_back(envelope);
        drop(waiting);
        lane.arrived.notify_one();
        Ok(())
    }

    fn lane(&self, to: NodeId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(&to) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane::default());
        lanes.insert(to, Arc::clone(&lane));
        let sending = send_all(
            to,
            Arc::clone(&lane),
            Arc::clone(&self.transport),
            Weak::clone(&self.me),
        );
        self.tasks.lock().spawn_on(sending, &self.home);
        lane
    }

    /// A peer answered.
    pub(crate) fn answered(&self, from: NodeId, id: u64, body: &[u8]) {
        let mut all = self.waiting.lock();
        if all.get(&id).is_none_or(|waiting| waiting.from != from) {
            return;
        }
        let Some(waiting) = all.remove(&id) else {
            return;
        };
        drop(all);
        let answer = wire::decode::<Answer>(body).map_err(|_unknown| Lost::Misfit);
        let taken = matches!(
            answer,
            Ok(Answer::Append(
                Appended::All | Appended::UpTo(_) | Appended::Conflict
            ))
        );
        if let (true, Some(credit)) = (taken, &waiting.credit) {
            credit.lease.answered(credit.leader, from.0, waiting.sent);
        }
        // Nobody waits when the asker has given up.
        drop(waiting.answer.send(answer));
    }

    fn lose(&self, lost: Lost, which: impl Fn(u64, &Waiting) -> bool) {
        let mut all = self.waiting.lock();
        let gone: Vec<u64> = all
            .iter()
            .filter(|(id, waiting)| which(**id, waiting))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(waiting) = all.remove(&id) {
                drop(waiting.answer.send(Err(lost)));
            }
        }
    }

    /// Forgets what nobody will answer any more.
    pub(crate) fn sweep(&self) {
        self.lose(Lost::Late, |_, waiting| waiting.since.elapsed() > LATE_MAX);
    }
}

impl Lane {
    fn take(&self) -> Vec<Envelope> {
        let mut waiting = self.waiting.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(next) = waiting.envelopes.front() {
            let size = next.body.len() + ENVELOPE_BYTES;
            if !taken.is_empty() && bytes + size > FRAME_BYTES_MAX {
                break;
            }
            bytes += size;
            taken.extend(waiting.envelopes.pop_front());
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        taken
    }
}

/// Sends what waits in a lane, for ever.
async fn send_all(to: NodeId, lane: Arc<Lane>, transport: Arc<dyn Transport>, mux: Weak<Mux>) {
    loop {
        lane.arrived.notified().await;
        // Whoever is about to speak speaks first.
        tokio::task::yield_now().await;
        loop {
            let envelopes = lane.take();
            if envelopes.is_empty() {
                break;
            }
            let frame = rpc::encode_frame(&envelopes);
            let Err(error) = transport.notify(to, Service::Raft, frame) else {
                continue;
            };
            let lost = match error {
                PeerError::Busy(_) => Lost::Busy,
                PeerError::NotConnected(_) | PeerError::Refused { .. } | PeerError::Unknown(_) => {
                    Lost::NotConnected
                },
            };
            let Some(mux) = mux.upgrade() else { return };
            let asks: std::collections::BTreeSet<u64> = envelopes
                .iter()
                .filter(|envelope| !envelope.answer)
                .map(|envelope| envelope.id)
                .collect();
            mux.lose(lost, |id, _| asks.contains(&id));
        }
    }
}

/// Whoever waits for a peer is told when the link to it breaks.
async fn watch_links(transport: Arc<dyn Transport>, mux: Weak<Mux>) {
    let mut peers = transport.peers();
    drop(transport);
    while peers.changed().await.is_ok() {
        let down: Vec<NodeId> = peers
            .borrow_and_update()
            .iter()
            .filter(|peer| peer.reach != Reach::Connected)
            .map(|peer| peer.node)
            .collect();
        let Some(mux) = mux.upgrade() else { return };
        if !down.is_empty() {
            mux.lose(Lost::NotConnected, |_, waiting| {
                down.contains(&waiting.from)
            });
        }
    }
}
