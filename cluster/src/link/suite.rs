//! What every twin of the link has to keep. Each test runs over TCP and over memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    PeerError,
    nodes::{Boot, Peer, Reach},
};

use super::{BoxFuture, Handler, Limits, Service, Timing, Transport, memory::MemoryNet};

pub(super) const A: NodeId = NodeId(1);
pub(super) const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// Longer than anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A few nodes that know each other.
pub(super) trait World: Sized {
    type Node: Transport;

    async fn new(limits: Limits, timing: Timing) -> Self;
    /// Starts a node (again), known to all.
    async fn node(&mut self, node: NodeId, boot: Boot) -> Arc<Self::Node>;
    /// Kills it.
    async fn stop(&mut self, node: NodeId);
    /// Nothing gets from one to the other any more.
    fn cut(&mut self, from: NodeId, to: NodeId);
    fn heal(&mut self);
}

/// The twin in memory.
pub(super) struct InMemory(MemoryNet);

impl World for InMemory {
    type Node = super::memory::MemoryTransport;

    async fn new(limits: Limits, timing: Timing) -> Self {
        Self(MemoryNet::with(limits, timing))
    }

    async fn node(&mut self, node: NodeId, boot: Boot) -> Arc<Self::Node> {
        self.0.node(node, boot)
    }

    async fn stop(&mut self, node: NodeId) {
        self.0.stop(node);
    }

    fn cut(&mut self, from: NodeId, to: NodeId) {
        self.0.cut(from, to);
    }

    fn heal(&mut self) {
        self.0.heal();
    }
}

/// Writes down what it is told; answers when it is let.
pub(super) struct Diary {
    entries: Mutex<Vec<Bytes>>,
    written: Notify,
    /// Requests wait while it is closed.
    open: watch::Sender<bool>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Diary {
    pub(super) fn new(open: bool) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            written: Notify::new(),
            open: watch::Sender::new(open),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn write(&self, body: Bytes) {
        self.entries.lock().push(body);
        self.written.notify_waiters();
    }

    pub(super) fn let_go(&self) {
        self.open.send_replace(true);
    }

    pub(super) async fn holds(&self, count: usize) -> Vec<Bytes> {
        let reached = async {
            loop {
                let written = self.written.notified();
                let entries = self.entries.lock().clone();
                if entries.len() >= count {
                    return entries;
                }
                written.await;
            }
        };
        timeout(PATIENCE, reached).await.expect("entries in time")
    }
}

/// A diary as a handler: `!` is refused with its own words, `panic` panics, all else comes back.
pub(super) struct Writes(pub(super) Arc<Diary>);

impl Handler for Writes {
    fn request(&self, _: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let diary = Arc::clone(&self.0);
        diary.write(body.clone());
        Box::pin(async move {
            if let Some(why) = body.strip_prefix(b"!") {
                return Err(String::from_utf8_lossy(why).into_owned());
            }
            assert!(&body[..] != b"panic", "as asked");
            let running = diary.running.fetch_add(1, Ordering::SeqCst) + 1;
            diary.most.fetch_max(running, Ordering::SeqCst);
            drop(diary.open.subscribe().wait_for(|open| *open).await);
            diary.running.fetch_sub(1, Ordering::SeqCst);
            Ok(body)
        })
    }

    fn notice(&self, _: NodeId, body: Bytes) {
        self.0.write(body);
    }
}

pub(super) fn quick() -> Timing {
    Timing {
        silence: Duration::from_millis(400),
        gone_after: Duration::from_millis(1200),
        gone_after_refused: Duration::from_millis(300),
    }
}

/// Waits until a node sees a peer like this.
pub(super) async fn sees(
    node: &impl Transport,
    peer: NodeId,
    like: impl Fn(&Peer) -> bool,
) -> Peer {
    let mut peers = node.peers();
    let find = |peers: &Vec<Peer>| peers.iter().find(|p| p.node == peer && like(p)).copied();
    let seen = timeout(PATIENCE, peers.wait_for(|peers| find(peers).is_some())).await;
    let Ok(seen) = seen else {
        panic!("{peer} stays {:?}", node.peers().borrow());
    };
    find(&seen.unwrap()).unwrap()
}

pub(super) async fn reach(node: &impl Transport, peer: NodeId, reach: Reach) -> Peer {
    sees(node, peer, |p| p.reach == reach).await
}

fn text(words: &str) -> Bytes {
    Bytes::copy_from_slice(words.as_bytes())
}

async fn ask(
    node: &impl Transport,
    to: NodeId,
    service: Service,
    words: &str,
) -> Result<Bytes, PeerError> {
    node.request(to, service, text(words), PATIENCE).await
}

/// Two nodes that see each other; the second has a diary for every service.
pub(super) async fn pair<W: World>(
    limits: Limits,
    diary: &Arc<Diary>,
) -> (W, Arc<W::Node>, Arc<W::Node>) {
    let mut world = W::new(limits, quick()).await;
    let a = world.node(A, Boot(1)).await;
    let b = world.node(B, Boot(1)).await;
    for service in Service::ALL {
        b.serve(service, Arc::new(Writes(Arc::clone(diary))));
    }
    reach(&*a, B, Reach::Connected).await;
    reach(&*b, A, Reach::Connected).await;
    (world, a, b)
}

async fn what_is_sent_through_one_service_arrives_in_order<W: World>() {
    let diary = Diary::new(true);
    let (_world, a, _b) = pair::<W>(Limits::default(), &diary).await;
    for service in Service::ALL {
        let sent: Vec<Bytes> = (0..500).map(|i| text(&format!("{service} {i}"))).collect();
        let mut answers = Vec::new();
        for (i, body) in sent.iter().enumerate() {
            if i % 3 == 0 {
                a.notify(B, service, body.clone()).unwrap();
            } else {
                answers.push(a.request(B, service, body.clone(), PATIENCE));
            }
        }
        assert_eq!(diary.holds(500).await, sent, "{service}");
        for answer in answers {
            answer.await.unwrap();
        }
        diary.entries.lock().clear();
    }
}

async fn answers_overtake_each_other<W: World>() {
    let (_world, a, _b) = pair::<W>(Limits::default(), &Diary::new(false)).await;
    let waits = a.request(B, Service::Fleet, text("held"), PATIENCE);
    assert!(matches!(
        ask(&*a, B, Service::Fleet, "!no").await,
        Err(PeerError::Refused { .. })
    ));
    drop(waits);
}

async fn a_refusal_brings_the_handlers_words<W: World>() {
    let (_world, a, _b) = pair::<W>(Limits::default(), &Diary::new(true)).await;
    let refused = ask(&*a, B, Service::Broker, "!not on a Sunday").await;
    let why = "not on a Sunday".to_owned();
    assert_eq!(refused, Err(PeerError::Refused { node: B, why }));
}

async fn a_service_nobody_serves_refuses<W: World>() {
    let (_world, _a, b) = pair::<W>(Limits::default(), &Diary::new(true)).await;
    let refused = ask(&*b, A, Service::Fleet, "hello").await;
    assert!(matches!(refused, Err(PeerError::Refused { node: A, .. })));
}

async fn a_handler_that_panics_leaves_the_outcome_unknown_and_the_link_alive<W: World>() {
    let (_world, a, _b) = pair::<W>(Limits::default(), &Diary::new(true)).await;
    let outcome = ask(&*a, B, Service::Fleet, "panic").await;
    assert_eq!(outcome, Err(PeerError::Unknown(B)));
    assert_eq!(ask(&*a, B, Service::Fleet, "still").await.unwrap(), "still");
}

async fn a_deadline_that_passes_leaves_the_outcome_unknown<W: World>() {
    let diary = Diary::new(false);
    let (_world, a, _b) = pair::<W>(Limits::default(), &diary).await;
    let within = Duration::from_millis(100);
    let asked = a.request(B, Service::Fleet, text("late"), within);
    assert_eq!(asked.await, Err(PeerError::Unknown(B)));
    diary.holds(1).await;
}

async fn nothing_is_sent_to_who_is_not_connected<W: World>() {
    let diary = Diary::new(true);
    let (mut world, a, _b) = pair::<W>(Limits::default(), &diary).await;
    let nobody = ask(&*a, NodeId(77), Service::Fleet, "hello").await;
    assert_eq!(nobody, Err(PeerError::NotConnected(NodeId(77))));
    world.stop(B).await;
    reach(&*a, B, Reach::Gone).await;
    let dead = ask(&*a, B, Service::Fleet, "hello").await;
    assert_eq!(dead, Err(PeerError::NotConnected(B)));
    let told = a.notify(B, Service::Fleet, text("hello"));
    assert_eq!(told, Err(PeerError::NotConnected(B)));
}

async fn a_full_queue_is_busy_at_once_and_other_services_are_not<W: World>() {
    let limits = Limits {
        queue_messages_max: 8,
        requests_max: 2,
        ..Limits::default()
    };
    let diary = Diary::new(false);
    let (_world, a, _b) = pair::<W>(limits, &diary).await;
    let mut waiting = Vec::new();
    let mut busy = 0;
    for i in 0..100 {
        let mut asked = a.request(B, Service::Fleet, text(&i.to_string()), PATIENCE);
        match timeout(Duration::ZERO, &mut asked).await {
            Ok(answer) => {
                assert_eq!(answer, Err(PeerError::Busy(B)));
                busy += 1;
            },
            Err(_) => waiting.push(asked),
        }
    }
    assert!((85..=92).contains(&busy), "{busy} of 100 are refused");
    assert!(matches!(
        ask(&*a, B, Service::Raft, "!heard").await,
        Err(PeerError::Refused { .. })
    ));
    diary.let_go();
    for asked in waiting {
        asked.await.unwrap();
    }
    assert!(diary.most.load(Ordering::SeqCst) <= 2, "two at a time");
}

async fn waiting_bytes_are_bounded<W: World>() {
    let limits = Limits {
        queue_bytes_max: 1 << 20,
        requests_max: 1,
        ..Limits::default()
    };
    let (_world, a, _b) = pair::<W>(limits, &Diary::new(false)).await;
    let body = Bytes::from(vec![7; 400 << 10]);
    let mut asked = Vec::new();
    for _ in 0..10 {
        asked.push(a.request(B, Service::Fleet, body.clone(), PATIENCE));
    }
    let mut busy = 0;
    for mut asked in asked {
        busy +=
            usize::from(timeout(Duration::ZERO, &mut asked).await == Ok(Err(PeerError::Busy(B))));
    }
    assert!(busy >= 6, "only {busy} of 10 are refused");
}

async fn a_body_above_the_limit_is_refused_before_it_is_sent<W: World>() {
    let diary = Diary::new(true);
    let (_world, a, _b) = pair::<W>(Limits::default(), &diary).await;
    let body = Bytes::from(vec![0; Limits::default().body_bytes_max + 1]);
    let refused = a.request(B, Service::Bulk, body.clone(), PATIENCE).await;
    assert!(matches!(refused, Err(PeerError::Refused { node: B, .. })));
    let largest = body.slice(1..);
    assert_eq!(
        a.request(B, Service::Bulk, largest.clone(), PATIENCE).await,
        Ok(largest)
    );
    assert_eq!(diary.entries.lock().len(), 1);
}

async fn a_crash_leaves_what_is_under_way_unknown_and_ends_in_gone<W: World>() {
    let diary = Diary::new(false);
    let (mut world, a, _b) = pair::<W>(Limits::default(), &diary).await;
    let asked = a.request(B, Service::Fleet, text("held"), PATIENCE);
    diary.holds(1).await;
    world.stop(B).await;
    assert_eq!(asked.await, Err(PeerError::Unknown(B)));
    let peer = reach(&*a, B, Reach::Gone).await;
    assert_eq!(peer.boot, Some(Boot(1)), "whose sessions are lost");
}

async fn a_restarted_peer_is_seen_with_its_new_boot<W: World>() {
    let (mut world, a, _b) = pair::<W>(Limits::default(), &Diary::new(true)).await;
    world.stop(B).await;
    sees(&*a, B, |peer| peer.reach != Reach::Connected).await;
    let b = world.node(B, Boot(2)).await;
    let diary = Diary::new(true);
    b.serve(Service::Fleet, Arc::new(Writes(Arc::clone(&diary))));
    let peer = reach(&*a, B, Reach::Connected).await;
    assert_eq!(peer.boot, Some(Boot(2)));
    assert_eq!(ask(&*a, B, Service::Fleet, "again").await.unwrap(), "again");
    assert_eq!(reach(&*b, A, Reach::Connected).await.boot, Some(Boot(1)));
}

async fn a_one_way_cut_takes_both_directions_down_and_heals<W: World>() {
    let diary = Diary::new(true);
    let (mut world, a, b) = pair::<W>(Limits::default(), &diary).await;
    world.cut(A, B);
    let lost = a.request(B, Service::Fleet, text("lost"), PATIENCE);
    for (node, peer) in [(&a, B), (&b, A)] {
        sees(&**node, peer, |peer| peer.reach != Reach::Connected).await;
        reach(&**node, peer, Reach::Gone).await;
    }
    assert_eq!(lost.await, Err(PeerError::Unknown(B)));
    assert!(diary.entries.lock().is_empty());
    world.heal();
    for (node, peer) in [(&a, B), (&b, A)] {
        let peer = reach(&**node, peer, Reach::Connected).await;
        assert_eq!(peer.boot, Some(Boot(1)));
    }
    assert_eq!(ask(&*a, B, Service::Fleet, "back").await.unwrap(), "back");
}

async fn a_short_stall_loses_nothing<W: World>() {
    let diary = Diary::new(true);
    let (mut world, a, _b) = pair::<W>(Limits::default(), &diary).await;
    world.cut(B, A);
    let asked = a.request(B, Service::Fleet, text("slow"), PATIENCE);
    diary.holds(1).await;
    // The stall itself.
    sleep(Duration::from_millis(50)).await;
    world.heal();
    assert_eq!(asked.await.unwrap(), "slow");
}

async fn a_partition_between_two_leaves_the_third_alone<W: World>() {
    let (mut world, a, b) = pair::<W>(Limits::default(), &Diary::new(true)).await;
    let c = world.node(C, Boot(5)).await;
    for node in [&a, &b] {
        assert_eq!(
            reach(&**node, C, Reach::Connected).await.boot,
            Some(Boot(5))
        );
    }
    world.cut(A, B);
    world.cut(B, A);
    reach(&*a, B, Reach::Gone).await;
    let seen: BTreeMap<NodeId, Reach> = c
        .peers()
        .borrow()
        .iter()
        .map(|peer| (peer.node, peer.reach))
        .collect();
    let both = [(A, Reach::Connected), (B, Reach::Connected)];
    assert_eq!(seen, both.into_iter().collect());
}

async fn large_bodies_do_not_delay_raft<W: World>() {
    let (_world, a, _b) = pair::<W>(Limits::default(), &Diary::new(true)).await;
    let body = Bytes::from(vec![1; 8 << 20]);
    let bulk: Vec<_> = (0..3)
        .map(|_| a.request(B, Service::Bulk, body.clone(), PATIENCE * 6))
        .collect();
    let bulk = tokio::spawn(async move {
        for asked in bulk {
            asked.await.unwrap();
        }
    });
    let mut slowest = Duration::ZERO;
    let mut beats = 0;
    while !bulk.is_finished() || beats == 0 {
        let sent = tokio::time::Instant::now();
        ask(&*a, B, Service::Raft, "beat").await.unwrap();
        slowest = slowest.max(sent.elapsed());
        beats += 1;
        sleep(Duration::from_millis(1)).await;
    }
    bulk.await.unwrap();
    assert!(
        slowest < Duration::from_millis(500),
        "{slowest:?} of {beats}"
    );
}

/// Every behaviour, over one twin.
macro_rules! suite {
    ($name:ident, $world:ty, $($behaviour:ident),* $(,)?) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                super::$behaviour::<$world>().await;
            })*
        }
    };
}

macro_rules! suites {
    ($behaviours:tt) => {
        suites!(@ memory, super::InMemory, $behaviours);
        suites!(@ tcp, crate::link::tcp::tests::OverTcp, $behaviours);
    };
    (@ $name:ident, $world:ty, ($($behaviour:ident),* $(,)?)) => {
        suite!($name, $world, $($behaviour),*);
    };
}

suites!((
    what_is_sent_through_one_service_arrives_in_order,
    answers_overtake_each_other,
    a_refusal_brings_the_handlers_words,
    a_service_nobody_serves_refuses,
    a_handler_that_panics_leaves_the_outcome_unknown_and_the_link_alive,
    a_deadline_that_passes_leaves_the_outcome_unknown,
    nothing_is_sent_to_who_is_not_connected,
    a_full_queue_is_busy_at_once_and_other_services_are_not,
    waiting_bytes_are_bounded,
    a_body_above_the_limit_is_refused_before_it_is_sent,
    a_crash_leaves_what_is_under_way_unknown_and_ends_in_gone,
    a_restarted_peer_is_seen_with_its_new_boot,
    a_one_way_cut_takes_both_directions_down_and_heals,
    a_short_stall_loses_nothing,
    a_partition_between_two_leaves_the_third_alone,
    large_bodies_do_not_delay_raft,
));
