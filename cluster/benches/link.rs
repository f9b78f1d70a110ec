//! The link between nodes over loopback, TLS on: what idle links cost, a request's way there and back, many requests at
//! once, notices, and large bodies.
//!
//! `cargo bench -p umbel-cluster --bench link [-- --seconds 5]`. The figures are of both ends in one process.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use umbel_cluster::link::{
    BoxFuture, Handler, Service, Transport,
    tcp::{TcpConfig, TcpTransport},
    tls::{Credentials, node_name, role_name},
};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::{Boot, Reach};

const CLUSTER: &str = "bench";
const NODES: u64 = 3;
const WITHIN: Duration = Duration::from_secs(30);
/// Linux counts CPU time of a process in hundredths of a second, everywhere.
const TICK: Duration = Duration::from_millis(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(seconds()))
}

fn seconds() -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--seconds");
    let given = arguments.nth(1).and_then(|text| text.parse().ok());
    given.unwrap_or(5)
}

#[expect(clippy::print_stdout, reason = "a benchmark speaks to a person")]
async fn run(seconds: u64) -> Result<(), Failure> {
    let span = Duration::from_secs(seconds);
    let nodes = cluster().await?;
    let (Some(first), Some(other)) = (nodes.first(), nodes.get(1)) else {
        return Ok(());
    };
    let counted = Arc::new(AtomicU64::new(0));
    for service in Service::ALL {
        other.serve(service, Arc::new(Counts(Arc::clone(&counted))));
    }

    let before = cpu()?;
    tokio::time::sleep(span).await;
    let idle = since(before)?.as_secs_f64() / span.as_secs_f64();
    println!(
        "idle: {NODES} nodes together take {:.2} % of a core",
        idle * 100.0
    );

    for askers in [1, 64, 512] {
        let (asked, took, used) = ask(first, askers, span).await?;
        let rate = f64::from(asked) / took.as_secs_f64();
        let micros = used.as_secs_f64() * 1e6 / f64::from(asked);
        let way = took.as_secs_f64() * 1e6 * f64::from(askers) / f64::from(asked);
        println!(
            "requests of 256 bytes, {askers} at once: {rate:.0}/s, {way:.0} us each, {micros:.1} us of CPU"
        );
    }

    let (told, took, used) = tell(first, &counted, span).await?;
    let rate = f64::from(told) / took.as_secs_f64();
    let micros = used.as_secs_f64() * 1e6 / f64::from(told);
    println!("notices of 256 bytes: {rate:.0}/s, {micros:.1} us of CPU");

    let body = Bytes::from(vec![7; 1 << 20]);
    let (began, mut mebibytes) = (Instant::now(), 0_u32);
    while began.elapsed() < span {
        let sent: Vec<_> = (0..8)
            .map(|_| first.request(NodeId(2), Service::Bulk, body.clone(), WITHIN))
            .collect();
        for answer in sent {
            answer.await?;
            mebibytes += 1;
        }
    }
    let rate = f64::from(mebibytes) / began.elapsed().as_secs_f64();
    println!("bodies of 1 MiB: {rate:.0} MiB/s");
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

/// Requests of several askers, each waiting for its answer.
async fn ask(
    node: &Arc<TcpTransport>,
    askers: u32,
    span: Duration,
) -> Result<(u32, Duration, Duration), Failure> {
    let body = Bytes::from(vec![1; 256]);
    let (began, before) = (Instant::now(), cpu()?);
    let mut tasks = Vec::new();
    for _ in 0..askers {
        let (node, body) = (Arc::clone(node), body.clone());
        tasks.push(tokio::spawn(async move {
            let mut asked = 0_u32;
            while began.elapsed() < span {
                node.request(NodeId(2), Service::Fleet, body.clone(), WITHIN)
                    .await?;
                asked += 1;
            }
            Ok::<u32, Failure>(asked)
        }));
    }
    let mut asked = 0;
    for task in tasks {
        asked += task.await??;
    }
    Ok((asked, began.elapsed(), since(before)?))
}

/// Notices as fast as they are taken.
async fn tell(
    node: &Arc<TcpTransport>,
    counted: &AtomicU64,
    span: Duration,
) -> Result<(u32, Duration, Duration), Failure> {
    let body = Bytes::from(vec![1; 256]);
    counted.store(0, Ordering::Relaxed);
    let (began, before) = (Instant::now(), cpu()?);
    let mut told = 0_u32;
    while began.elapsed() < span {
        if node.notify(NodeId(2), Service::Raft, body.clone()).is_ok() {
            told += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    while counted.load(Ordering::Relaxed) < u64::from(told) {
        tokio::task::yield_now().await;
    }
    Ok((told, began.elapsed(), since(before)?))
}

struct Counts(Arc<AtomicU64>);

impl Handler for Counts {
    fn request(&self, _: NodeId, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Ok(Bytes::from_static(b"done")) })
    }

    fn notice(&self, _: NodeId, _: Bytes) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nodes that all see each other.
async fn cluster() -> Result<Vec<Arc<TcpTransport>>, Failure> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?.der().clone();
    let issuer = Issuer::new(params, key);
    let mut nodes = Vec::new();
    for node in (1..=NODES).map(NodeId) {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let credentials = credentials(&authority, &issuer, node)?;
        let config = TcpConfig::new(node, Boot(1), bind, CLUSTER.to_owned(), credentials);
        nodes.push(TcpTransport::start(config).await?);
    }
    let book: BTreeMap<NodeId, Vec<String>> = nodes
        .iter()
        .map(|node| (node.me(), vec![node.local_addr().to_string()]))
        .collect();
    for node in &nodes {
        node.set_address_book(&book);
    }
    for node in &nodes {
        let mut peers = node.peers();
        let all = |peers: &Vec<_>| {
            let up = |peer: &umbel_storage::nodes::Peer| peer.reach == Reach::Connected;
            peers.len() + 1 == book.len() && peers.iter().all(up)
        };
        peers.wait_for(all).await?;
    }
    Ok(nodes)
}

fn credentials(
    authority: &CertificateDer<'static>,
    issuer: &Issuer<'_, KeyPair>,
    node: NodeId,
) -> Result<Credentials, Failure> {
    let params = CertificateParams::new(vec![node_name(CLUSTER, node), role_name(CLUSTER)])?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Credentials {
        ca: vec![authority.clone()],
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der())?,
    })
}

/// What this process has used of all cores since then.
fn since(before: Duration) -> Result<Duration, Failure> {
    Ok(cpu()?.saturating_sub(before))
}

/// What this process has used of all cores.
fn cpu() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u32>().ok())
        .sum();
    Ok(TICK * ticks)
}
