//! A network that can be cut one way: bytes stop, connections stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use umbel_core::ids::NodeId;

type Way = (NodeId, NodeId);

#[derive(Default)]
pub(super) struct Net {
    cuts: watch::Sender<BTreeSet<Way>>,
    listens: Arc<Mutex<BTreeMap<NodeId, SocketAddr>>>,
    ways: BTreeMap<Way, SocketAddr>,
    proxies: JoinSet<()>,
}

impl Net {
    pub(super) fn listens(&self, node: NodeId, address: SocketAddr) {
        self.listens.lock().insert(node, address);
    }

    /// Where one node finds another.
    pub(super) async fn way(&mut self, from: NodeId, to: NodeId) -> SocketAddr {
        if let Some(address) = self.ways.get(&(from, to)) {
            return *address;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.ways.insert((from, to), address);
        let (listens, cuts) = (Arc::clone(&self.listens), self.cuts.subscribe());
        self.proxies.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (here, _) = listener.accept().await.unwrap();
                let target = listens.lock().get(&to).copied().unwrap();
                let Ok(there) = TcpStream::connect(target).await else {
                    continue;
                };
                connections.spawn(carry(here, there, (from, to), cuts.clone()));
            }
        });
        address
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.cuts.send_if_modified(|cuts| cuts.insert((from, to)));
    }

    pub(super) fn heal(&self) {
        self.cuts.send_modify(BTreeSet::clear);
    }
}

async fn carry(
    here: TcpStream,
    there: TcpStream,
    (from, to): Way,
    cuts: watch::Receiver<BTreeSet<Way>>,
) {
    let (here_in, here_out) = here.into_split();
    let (there_in, there_out) = there.into_split();
    tokio::select! {
        () = pump(here_in, there_out, (from, to), cuts.clone()) => {},
        () = pump(there_in, here_out, (to, from), cuts) => {},
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut into: impl AsyncWrite + Unpin,
    way: Way,
    mut cuts: watch::Receiver<BTreeSet<Way>>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if cuts.wait_for(|cuts| !cuts.contains(&way)).await.is_err() {
            return;
        }
        if into.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
