//! What only the net in memory can do: delays and partitions, under a clock that a test moves.

use tokio::time::Instant;
use umbel_storage::nodes::Reach;

use super::{
    super::suite::{A, B, Diary, Writes, reach},
    *,
};

const C: NodeId = NodeId(3);
const WITHIN: Duration = Duration::from_mins(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_paid_in_each_direction_and_keeps_the_order() {
    let net = MemoryNet::new();
    let (a, b) = (net.node(A, Boot(1)), net.node(B, Boot(1)));
    let diary = Diary::new(true);
    b.serve(Service::Raft, Arc::new(Writes(Arc::clone(&diary))));
    net.set_delay(ms(30));
    net.set_delay_between(B, A, ms(70));
    let sent = Instant::now();
    let first = a.request(B, Service::Raft, Bytes::from_static(b"1"), WITHIN);
    net.set_delay_between(A, B, ms(1));
    let second = a.request(B, Service::Raft, Bytes::from_static(b"2"), WITHIN);
    first.await.unwrap();
    second.await.unwrap();
    assert!((ms(71)..ms(105)).contains(&sent.elapsed()));
    assert_eq!(diary.holds(2).await, [&b"1"[..], b"2"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_noticed_and_healed_at_the_times_of_the_net() {
    let net = MemoryNet::with(Limits::default(), Timing::default());
    let (a, b, c) = (
        net.node(A, Boot(1)),
        net.node(B, Boot(1)),
        net.node(C, Boot(1)),
    );
    let began = Instant::now();
    net.partition(&[&[A], &[B, C]]);
    reach(&*a, B, Reach::Unreachable).await;
    assert!((ms(1200)..ms(1250)).contains(&began.elapsed()));
    for peer in [B, C] {
        reach(&*a, peer, Reach::Gone).await;
    }
    assert!((ms(4200)..ms(4250)).contains(&began.elapsed()));
    reach(&*b, C, Reach::Connected).await;
    reach(&*c, B, Reach::Connected).await;
    net.heal();
    for (node, peer) in [(&a, B), (&b, A), (&c, A)] {
        reach(&**node, peer, Reach::Connected).await;
    }
    assert!(began.elapsed() < ms(4250), "healed at once");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_node_is_in_nobodys_book() {
    let net = MemoryNet::new();
    let a = net.node(A, Boot(1));
    net.node(B, Boot(1));
    reach(&*a, B, Reach::Connected).await;
    net.forget(B);
    assert!(a.peers().borrow().is_empty());
    net.node(B, Boot(2));
    assert_eq!(reach(&*a, B, Reach::Connected).await.boot, Some(Boot(2)));
}
