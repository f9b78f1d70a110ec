//! Who is turned away, and how.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use umbel_storage::nodes::Reach;

use super::{
    super::{
        super::{
            Service, Transport, join,
            metrics::Refusal,
            suite::{A, B, Diary, Writes, reach},
            tls::{self, Credentials, Sides},
            vet::Introduction,
        },
        hello::{self, Hello, Lane, Reply},
    },
    *,
};

const C: NodeId = NodeId(3);
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a node has turned somebody away for this reason.
async fn turned_away(node: &TcpTransport, reason: Refusal) {
    let counted = async {
        while node.refusals(reason) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let patience = timeout(PATIENCE, counted).await;
    assert!(patience.is_ok(), "nobody was turned away for {reason:?}");
}

fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        cluster: CLUSTER.to_owned(),
        from: B,
        to: A,
        boot: Boot(1),
        nonce: 1,
        lane: Lane::Control,
        software: "a test".to_owned(),
    }
}

/// Connects as whoever these credentials say, wanting node A.
async fn connect(
    a: &TcpTransport,
    credentials: &Credentials,
    as_node: NodeId,
) -> TlsStream<TcpStream> {
    let sides = Sides::new(credentials, CLUSTER, as_node).unwrap();
    let stream = TcpStream::connect(a.local_addr()).await.unwrap();
    let name = tls::wanted(CLUSTER, A).unwrap();
    let connector = TlsConnector::from(sides.client);
    connector.connect(name, stream).await.unwrap()
}

async fn reply(stream: &mut TlsStream<TcpStream>, hello: &Hello) -> Reply {
    hello::write(stream, &hello.encode()).await.unwrap();
    let packet = timeout(PATIENCE, hello::read(stream)).await.unwrap();
    Reply::decode(packet.unwrap().unwrap()).unwrap()
}

async fn refusal(a: &TcpTransport, authority: &Authority, hello: &Hello) -> String {
    let mut stream = connect(a, &authority.node(CLUSTER, B), B).await;
    match reply(&mut stream, hello).await {
        Reply::Refused { why, .. } => why,
        Reply::Welcome(_) => panic!("it is let in"),
    }
}

#[tokio::test]
async fn t33_a_node_that_answers_at_the_address_of_another_is_refused() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let c = start(&authority, C, Boot(1)).await;
    tell(&a, &[(B, c.local_addr())]);
    turned_away(&a, Refusal::Identity).await;
    assert_ne!(a.peers().borrow()[0].reach, Reach::Connected);
}

#[tokio::test]
async fn t33_the_certificate_of_one_node_does_not_speak_for_another() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let mut stream = connect(&a, &authority.node(CLUSTER, C), C).await;
    let Reply::Refused { why, .. } = reply(&mut stream, &hello()).await else {
        panic!("C speaks for B");
    };
    assert!(why.contains("it says it is node 2"), "{why}");
    assert_eq!(a.refusals(Refusal::Identity), 1);
    let stolen = TcpConfig {
        credentials: authority.node(CLUSTER, B),
        ..config(&authority, A, Boot(1))
    };
    assert!(
        TcpTransport::start(stolen).await.is_err(),
        "nor for oneself"
    );
}

#[tokio::test]
async fn a_device_certificate_of_the_same_authority_is_refused() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    for names in [
        vec!["camera-7".to_owned()],
        vec![tls::node_name(CLUSTER, B)],
        vec![tls::role_name(CLUSTER)],
    ] {
        let device = authority.with_names(names);
        let node = authority.node(CLUSTER, B);
        let mut sides = Sides::new(&node, CLUSTER, B).unwrap();
        let mut client = (*sides.client).clone();
        client.client_auth_cert_resolver = resolver(&device);
        sides.client = Arc::new(client);
        let stream = TcpStream::connect(a.local_addr()).await.unwrap();
        let connector = TlsConnector::from(sides.client);
        let name = tls::wanted(CLUSTER, A).unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let reply = reply(&mut stream, &hello()).await;
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    }
    assert_eq!(a.refusals(Refusal::Identity), 3);
}

fn resolver(credentials: &Credentials) -> Arc<rustls::sign::SingleCertAndKey> {
    let provider = rustls::crypto::ring::default_provider();
    let key = credentials.key.clone_key();
    let certified = rustls::sign::CertifiedKey::from_der(credentials.chain.clone(), key, &provider);
    Arc::new(rustls::sign::SingleCertAndKey::from(certified.unwrap()))
}

#[tokio::test]
async fn another_authority_is_refused_by_both_sides() {
    let (authority, other) = (Authority::new(), Authority::new());
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&other, B, Boot(1)).await;
    introduce(&a, &b);
    turned_away(&a, Refusal::Tls).await;
    turned_away(&b, Refusal::Tls).await;
    for node in [&a, &b] {
        assert_ne!(node.peers().borrow()[0].reach, Reach::Connected);
    }
}

#[tokio::test]
async fn another_cluster_under_the_same_authority_is_refused() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let mut garden = config(&authority, B, Boot(1));
    garden.cluster_id = "garden".to_owned();
    garden.credentials = authority.node("garden", B);
    let b = TcpTransport::start(garden).await.unwrap();
    introduce(&a, &b);
    turned_away(&a, Refusal::Identity).await;
    turned_away(&b, Refusal::Identity).await;
    let mut lies = hello();
    lies.cluster = "garden".to_owned();
    let why = refusal(&a, &authority, &lies).await;
    assert!(why.contains("garden") && why.contains(CLUSTER), "{why}");
    assert_eq!(a.refusals(Refusal::Cluster), 1);
}

#[tokio::test]
async fn who_looks_for_another_node_or_has_our_own_id_is_told() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let mut lost = hello();
    lost.to = C;
    let why = refusal(&a, &authority, &lost).await;
    assert!(why.contains("looks for"), "{why}");
    let mut twin = hello();
    twin.from = A;
    let mut stream = connect(&a, &authority.node(CLUSTER, A), A).await;
    let Reply::Refused { why, .. } = reply(&mut stream, &twin).await else {
        panic!("it is let in");
    };
    assert!(why.contains("own id"), "{why}");
}

#[tokio::test]
async fn the_newest_common_version_is_spoken_and_none_is_refused() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    // The next release speaks two versions, the one after it only newer ones.
    let next =
        TcpTransport::start_speaking(config(&authority, B, Boot(1)), Versions { min: 1, max: 2 })
            .await
            .unwrap();
    introduce(&a, &next);
    reach(&*a, B, Reach::Connected).await;
    reach(&*next, A, Reach::Connected).await;
    let newer =
        TcpTransport::start_speaking(config(&authority, C, Boot(1)), Versions { min: 2, max: 3 })
            .await
            .unwrap();
    tell(&newer, &[(A, a.local_addr()), (B, next.local_addr())]);
    tell(&next, &[(A, a.local_addr()), (C, newer.local_addr())]);
    reach(&*newer, B, Reach::Connected).await;
    reach(&*next, C, Reach::Connected).await;
    turned_away(&a, Refusal::Version).await;
    turned_away(&newer, Refusal::Turned).await;
}

#[tokio::test]
async fn f16_a_disk_that_went_back_in_time_is_told_so_and_not_spoken_to() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(7)).await;
    introduce(&a, &b);
    reach(&*b, A, Reach::Connected).await;
    reach(&*a, B, Reach::Connected).await;
    assert!(!*b.told_regressed().borrow());
    crash(&b).await;
    let restored = start(&authority, B, Boot(6)).await;
    introduce(&a, &restored);
    let mut told = restored.told_regressed();
    let patience = timeout(PATIENCE, told.wait_for(|told| *told)).await;
    drop(patience.unwrap().unwrap());
    turned_away(&a, Refusal::Regressed).await;
    turned_away(&restored, Refusal::Regressed).await;
    assert_ne!(a.peers().borrow()[0].reach, Reach::Connected);
    assert_ne!(restored.peers().borrow()[0].reach, Reach::Connected);
    assert!(!*a.told_regressed().borrow());
    crash(&restored).await;
    let replaced = start(&authority, B, Boot(8)).await;
    introduce(&a, &replaced);
    reach(&*a, B, Reach::Connected).await;
}

#[tokio::test]
async fn the_vet_decides_and_hears_who_it_is() {
    let authority = Authority::new();
    let boots = Arc::new(AtomicU64::new(0));
    let mut strict = config(&authority, A, Boot(1));
    let heard = Arc::clone(&boots);
    strict.vet = Some(Arc::new(move |peer: Introduction| {
        heard.store(peer.boot.0, Ordering::SeqCst);
        true
    }));
    let a = TcpTransport::start(strict).await.unwrap();
    let b = start(&authority, B, Boot(9)).await;
    introduce(&a, &b);
    let mut told = b.told_regressed();
    timeout(PATIENCE, told.wait_for(|told| *told))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(boots.load(Ordering::SeqCst), 9);
}

#[tokio::test]
async fn rubbish_on_the_port_does_nothing_and_is_counted() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 3]] {
        let mut stream = TcpStream::connect(a.local_addr()).await.unwrap();
        drop(stream.write_all(rubbish).await);
        drop(stream.shutdown().await);
        let mut rest = Vec::new();
        drop(
            timeout(PATIENCE, stream.read_to_end(&mut rest))
                .await
                .unwrap(),
        );
    }
    turned_away(&a, Refusal::Tls).await;
    // Behind TLS, too: no magic, a hello cut short, and a lane nobody knows.
    let mut unknown_lane = hello().encode();
    let lane = unknown_lane.len() - 2 - "a test".len();
    unknown_lane[lane] = 99;
    for rubbish in [vec![0; 64], hello().encode()[..20].to_vec(), unknown_lane] {
        let mut stream = connect(&a, &authority.node(CLUSTER, C), C).await;
        hello::write(&mut stream, &rubbish).await.unwrap();
        drop(stream.shutdown().await);
        let mut rest = Vec::new();
        drop(
            timeout(PATIENCE, stream.read_to_end(&mut rest))
                .await
                .unwrap(),
        );
    }
    turned_away(&a, Refusal::Rubbish).await;
    assert_eq!(a.peers().borrow()[0].reach, Reach::Connected);
}

#[tokio::test]
async fn rubbish_after_a_welcome_ends_only_that_connection() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let mut stream = connect(&a, &authority.node(CLUSTER, B), B).await;
    assert!(matches!(
        reply(&mut stream, &hello()).await,
        Reply::Welcome(_)
    ));
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    drop(
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap(),
    );
    let b = start(&authority, B, Boot(2)).await;
    introduce(&a, &b);
    reach(&*b, A, Reach::Connected).await;
}

#[tokio::test]
async fn who_says_nothing_is_shown_out_and_holds_no_place_meanwhile() {
    let authority = Authority::new();
    let mut brisk = config(&authority, A, Boot(1));
    brisk.handshake = Duration::from_millis(500);
    let a = TcpTransport::start(brisk).await.unwrap();
    let silent = TcpStream::connect(a.local_addr()).await.unwrap();
    let b = start(&authority, B, Boot(1)).await;
    introduce(&a, &b);
    reach(&*b, A, Reach::Connected).await;
    turned_away(&a, Refusal::Timeout).await;
    drop(silent);
}

#[tokio::test]
async fn a_newer_connection_of_a_node_takes_the_place_of_the_older() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let diary = Diary::new(true);
    a.serve(Service::Raft, Arc::new(Writes(Arc::clone(&diary))));
    let credentials = authority.node(CLUSTER, B);
    let mut first = connect(&a, &credentials, B).await;
    assert!(matches!(
        reply(&mut first, &hello()).await,
        Reply::Welcome(_)
    ));
    let mut second = connect(&a, &credentials, B).await;
    assert!(matches!(
        reply(&mut second, &hello()).await,
        Reply::Welcome(_)
    ));
    let mut rest = Vec::new();
    drop(
        timeout(PATIENCE, first.read_to_end(&mut rest))
            .await
            .unwrap(),
    );
    assert_eq!(a.shared.served.lock().len(), 1);
}

#[tokio::test]
async fn who_joins_asks_one_question_of_the_right_cluster() {
    let authority = Authority::new();
    let a = start(&authority, A, Boot(1)).await;
    let address = a.local_addr().to_string();
    let ask = |pin, question: &'static [u8]| {
        let address = address.clone();
        async move { join::request(&address, pin, Bytes::from_static(question), PATIENCE).await }
    };
    a.serve_join(Arc::new(|_, question| {
        Box::pin(async move {
            match &question[..] {
                b"token" => Ok(Bytes::from_static(b"welcome")),
                _ => Err("the token is not valid".to_owned()),
            }
        })
    }));
    assert_eq!(ask(authority.sha256(), b"token").await.unwrap(), "welcome");
    let refused = ask(authority.sha256(), b"guess").await;
    assert!(matches!(refused, Err(join::JoinError::Refused(why)) if why.contains("token")));
    let other = Authority::new();
    let mistrusted = ask(other.sha256(), b"token").await;
    assert!(matches!(
        mistrusted,
        Err(join::JoinError::Mistrusted { .. })
    ));
}

#[tokio::test]
async fn the_identity_that_founds_a_cluster_opens_the_link() {
    let folder = tempfile::tempdir().unwrap();
    let now = umbel_core::time::Timestamp::from_millis(1_790_000_000_000);
    let identity = crate::meta::ClusterIdentity::init(folder.path(), A, 64, now).unwrap();
    let key = identity.key.expose().to_vec();
    let credentials = Credentials {
        ca: vec![identity.authority.into()],
        chain: vec![identity.certificate.into()],
        key: rustls::pki_types::PrivatePkcs8KeyDer::from(key).into(),
    };
    let cluster = identity.cluster.to_string();
    let config = TcpConfig::new(A, Boot(1), ANY_PORT, cluster, credentials);
    assert!(TcpTransport::start(config).await.is_ok());
}

#[tokio::test]
async fn a_cluster_id_that_is_no_dns_label_is_refused_at_the_start() {
    let authority = Authority::new();
    for id in ["", "House", "a.b", "-a", "a-", &"a".repeat(64)] {
        let mut config = config(&authority, A, Boot(1));
        config.cluster_id = id.to_owned();
        assert!(TcpTransport::start(config).await.is_err(), "{id:?}");
    }
}
