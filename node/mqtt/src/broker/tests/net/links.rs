//! Links that keep the order, and break, wait and heal when a test says so.

use super::*;

/// What is on a link.
enum Parcel {
    Ask(Vec<u8>, oneshot::Sender<Result<Vec<u8>, String>>),
    Tell(Vec<u8>),
}

/// Most parcels on one way.
const ON_THE_WAY_MAX: usize = 100_000;

type Way = (NodeId, NodeId);

/// A proposal that nobody has answered.
pub(super) type Stalled = (Vec<Write>, oneshot::Sender<Result<(), Refusal>>);

#[derive(Default)]
pub(super) struct Inner {
    pub(super) brokers: BTreeMap<NodeId, Weak<Broker>>,
    pub(super) owners: BTreeMap<ShardId, Owner>,
    /// Terms in which nothing is answered, and what was proposed in them.
    pub(super) stalled: BTreeMap<(ShardId, Term), Vec<Stalled>>,
    /// Tables that nobody comes to the end of.
    pub(super) slow: BTreeSet<(ShardId, Table)>,
    pub(super) broken: BTreeSet<Way>,
    pub(super) held: BTreeSet<Way>,
    /// Counts how often a way broke: what was on it then is lost.
    pub(super) breaks: BTreeMap<Way, u64>,
    ways: BTreeMap<Way, mpsc::Sender<(u64, Parcel)>>,
    pub(super) parcels: u64,
}

/// What happens when a node next looks whether it owns a shard.
pub(super) type OnLook = (NodeId, ShardId, Box<dyn FnOnce() + Send>);

/// The links between all nodes, and who owns what.
#[derive(Default)]
pub(in super::super) struct Links {
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Notify,
    pub(super) on_look: Mutex<Option<OnLook>>,
    /// The same, when it next reads rows of a shard.
    pub(super) on_read: Mutex<Option<OnLook>>,
}

impl Links {
    /// A shard has another owner, which nobody was told yet.
    pub(in super::super) fn move_shard(
        &self,
        ledger: &MemoryLedger,
        shard: ShardId,
        node: NodeId,
    ) -> Owner {
        let mut inner = self.inner.lock();
        let term = Term(inner.owners[&shard].term.0 + 1);
        let owner = Owner { node, term };
        ledger.set_term(shard, Some(term));
        inner.owners.insert(shard, owner);
        owner
    }

    /// The broker of a client's owner.
    pub(in super::super) fn owner_of(
        &self,
        client: &ClientId,
        shards: u16,
    ) -> Option<(NodeId, Arc<Broker>)> {
        let inner = self.inner.lock();
        let owner = inner.owners.get(&ShardId::of(client.as_str(), shards))?;
        let broker = inner.brokers.get(&owner.node)?.upgrade()?;
        Some((owner.node, broker))
    }

    fn post(self: &Arc<Self>, way: Way, parcel: Parcel) -> Result<(), PeerError> {
        let mut inner = self.inner.lock();
        if inner.broken.contains(&way) {
            return Err(PeerError::NotConnected(way.1));
        }
        inner.parcels += 1;
        let breaks = inner.breaks.get(&way).copied().unwrap_or_default();
        let sender = inner.ways.entry(way).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(ON_THE_WAY_MAX);
            tokio::spawn(carry(Arc::downgrade(self), way, receiver));
            sender
        });
        sender
            .try_send((breaks, parcel))
            .map_err(|_full| PeerError::Busy(way.1))
    }

    fn is_lost(&self, way: Way, breaks: u64) -> bool {
        let inner = self.inner.lock();
        inner.breaks.get(&way).copied().unwrap_or_default() != breaks
    }

    fn is_held(&self, way: Way) -> bool {
        self.inner.lock().held.contains(&way)
    }
}

async fn carry(links: Weak<Links>, way: Way, mut parcels: mpsc::Receiver<(u64, Parcel)>) {
    while let Some((breaks, parcel)) = parcels.recv().await {
        let Some(links) = links.upgrade() else { return };
        loop {
            let changed = links.changed.notified();
            if !links.is_held(way) {
                break;
            }
            changed.await;
        }
        if links.is_lost(way, breaks) {
            continue;
        }
        let broker = links.inner.lock().brokers.get(&way.1).cloned();
        let Some(broker) = broker.and_then(|broker| broker.upgrade()) else {
            continue;
        };
        match parcel {
            Parcel::Tell(bytes) => broker.serve_tell(way.0, decode::<Tell>(&bytes)),
            Parcel::Ask(bytes, answer) => {
                let mut served = broker.serve_ask(way.0, decode::<Ask>(&bytes));
                // the first poll follows at once
                let first = futures_util::poll!(&mut served);
                let links = Arc::clone(&links);
                tokio::spawn(async move {
                    let served = match first {
                        std::task::Poll::Ready(served) => served,
                        std::task::Poll::Pending => served.await,
                    };
                    let back = (way.1, way.0);
                    let is_cut = links.inner.lock().broken.contains(&back);
                    if !is_cut && !links.is_lost(way, breaks) {
                        drop(answer.send(served.map(|reply| encode(&reply))));
                    }
                });
            },
        }
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    codec::encode(1, value).expect("encodes")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    let (_, body) = codec::format_of(bytes).expect("a format");
    codec::decode_body(body).expect("decodes")
}

/// One node's end of the links.
pub(super) struct Plug {
    pub(super) me: NodeId,
    pub(super) links: Arc<Links>,
}

impl Peers for Plug {
    fn ask(
        &self,
        to: NodeId,
        ask: Ask,
        within: Duration,
    ) -> BoxFuture<'static, Result<Reply, PeerError>> {
        let (sender, receiver) = oneshot::channel();
        let posted = self
            .links
            .post((self.me, to), Parcel::Ask(encode(&ask), sender));
        Box::pin(async move {
            posted?;
            match tokio::time::timeout(within, receiver).await {
                Ok(Ok(Ok(bytes))) => Ok(decode(&bytes)),
                Ok(Ok(Err(why))) => Err(PeerError::Refused { node: to, why }),
                Ok(Err(_)) | Err(_) => Err(PeerError::Unknown(to)),
            }
        })
    }

    fn tell(&self, to: NodeId, tell: Tell) -> Result<(), PeerError> {
        self.links.post((self.me, to), Parcel::Tell(encode(&tell)))
    }
}
