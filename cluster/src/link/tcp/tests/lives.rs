//! Links over their lives: up, refused, removed, stopped, restarted.

use umbel_storage::{PeerError, nodes::Reach};

use super::{
    super::super::{
        Service, Transport,
        suite::{A, B, Diary, Writes, pair, reach, sees},
    },
    *,
};

#[tokio::test]
async fn a_refused_port_after_a_reset_is_gone_long_before_silence_would_be() {
    let authority = Authority::new();
    let mut patient = config(&authority, A, Boot(1));
    patient.timing = Timing {
        silence: Duration::from_mins(1),
        gone_after: Duration::from_hours(1),
        gone_after_refused: Duration::from_millis(200),
    };
    let a = TcpTransport::start(patient).await.unwrap();
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    crash(&b).await;
    reach(&*a, B, Reach::Gone).await;
}

#[tokio::test]
async fn a_farewell_ends_the_link_at_once_and_leaves_no_task() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    reach(&*b, A, Reach::Connected).await;
    b.shutdown().await;
    assert_eq!(b.shared.phase.receiver_count(), 0, "every task has ended");
    sees(&*a, B, |peer| peer.reach != Reach::Connected).await;
    assert!(a.shared.served.lock().is_empty() || a.shared.phase.receiver_count() > 0);
}

#[tokio::test]
async fn a_removed_node_is_closed_and_refused_for_good() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*b, A, Reach::Connected).await;
    a.removed(B);
    sees(&*b, A, |peer| peer.reach != Reach::Connected).await;
    let mut refused = Box::pin(async {
        while a.refusals(crate::link::metrics::Refusal::Removed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::time::timeout(Duration::from_secs(10), &mut refused)
        .await
        .expect("its next connection is refused");
    let mut told = b.told_removed();
    let told = tokio::time::timeout(Duration::from_secs(10), told.wait_for(Option::is_some));
    let told = told.await.expect("in time").expect("runs").to_owned();
    assert_eq!(
        told,
        Some(A),
        "it learns that it was removed, and from whom"
    );
    assert_eq!(*a.told_removed().borrow(), None);
    tell(&a, &[(B, b.local_addr())]);
    assert!(a.peers().borrow().iter().all(|peer| peer.node != B));
    let asked = a.notify(B, Service::Fleet, bytes::Bytes::new());
    assert_eq!(asked, Err(PeerError::NotConnected(B)));
}

#[tokio::test]
async fn a_peer_that_moved_is_found_at_its_new_address() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    crash(&b).await;
    let moved = start(&authority, B, Boot(2)).await;
    tell(&a, &[(B, moved.local_addr())]);
    let peer = sees(&*a, B, |peer| peer.boot == Some(Boot(2))).await;
    assert_eq!(peer.boot, Some(Boot(2)));
    reach(&*a, B, Reach::Connected).await;
}

#[tokio::test]
async fn a_peer_is_found_behind_the_last_of_its_addresses() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(1)).await;
    let wrong = start(&authority, NodeId(3), Boot(1)).await;
    let closed = start(&authority, NodeId(4), Boot(1)).await;
    let nobody = closed.local_addr().to_string();
    crash(&closed).await;
    let addresses = vec![
        nobody,
        wrong.local_addr().to_string(),
        format!("localhost:{}", b.local_addr().port()),
    ];
    a.set_address_book(&BTreeMap::from([(B, addresses)]));
    reach(&*a, B, Reach::Connected).await;
}

#[tokio::test]
async fn what_left_the_address_book_is_closed_and_comes_back_with_it() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    tell(&a, &[]);
    assert!(a.peers().wait_for(Vec::is_empty).await.is_ok());
    tell(&a, &[(B, b.local_addr())]);
    reach(&*a, B, Reach::Connected).await;
}

#[tokio::test]
async fn a_restart_is_noticed_by_the_newcomers_own_hello() {
    let authority = Authority::new();
    let mut deaf = config(&authority, A, Boot(1));
    deaf.timing.silence = Duration::from_hours(1);
    let a = TcpTransport::start(deaf).await.unwrap();
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    // The first B stays: only what the second says of itself can end the link to it.
    let second = start(&authority, B, Boot(2)).await;
    tell(&second, &[(A, a.local_addr())]);
    tell(&a, &[(B, second.local_addr())]);
    let seen = sees(&*a, B, |peer| {
        peer.boot == Some(Boot(2)) && peer.reach == Reach::Connected
    });
    seen.await;
    crash(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_messages_share_writes() {
    let diary = Diary::new(true);
    let (_world, a, _b) = pair::<OverTcp>(Limits::default(), &diary).await;
    let before = a.shared.meters.written();
    for _ in 0..2000 {
        a.notify(B, Service::Raft, bytes::Bytes::from_static(b"beat"))
            .unwrap();
    }
    diary.holds(2000).await;
    let writes = a.shared.meters.written() - before;
    assert!(writes < 500, "{writes} writes for 2000 messages");
}

#[tokio::test]
async fn a_request_that_was_never_sent_is_busy_and_not_unknown() {
    let authority = Authority::new();
    let mut narrow = config(&authority, B, Boot(1));
    narrow.limits.requests_max = 1;
    let a = start(&authority, A, Boot(1)).await;
    let b = TcpTransport::start(narrow).await.unwrap();
    let diary = Diary::new(false);
    b.serve(Service::Fleet, Arc::new(Writes(Arc::clone(&diary))));
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    let ask = |within| a.request(B, Service::Fleet, bytes::Bytes::from_static(b"x"), within);
    let first = ask(Duration::from_secs(10));
    diary.holds(1).await;
    let second = ask(Duration::from_millis(50)).await;
    assert_eq!(second, Err(PeerError::Busy(B)));
    diary.let_go();
    first.await.unwrap();
    ask(Duration::from_secs(10)).await.unwrap();
    assert_eq!(diary.holds(2).await.len(), 2, "the second never arrived");
}
