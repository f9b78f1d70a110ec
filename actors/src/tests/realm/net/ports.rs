//! What one node of a net sees of the others: the store, the links, the clients' connections.

use super::*;

/// One store, as the node sees it that may write to its own shards only.
pub(super) struct View {
    pub(super) me: NodeId,
    pub(super) net: Arc<Net>,
    pub(super) alive: watch::Receiver<bool>,
}

impl Ledger for View {
    fn shards(&self) -> u16 {
        SHARDS
    }

    fn term(&self, shard: ShardId) -> Option<Term> {
        let owner = self.net.owners.lock().get(&shard).copied()?;
        (owner.node == self.me && *self.alive.borrow()).then_some(owner.term)
    }

    fn hosts(&self, _: ShardId) -> bool {
        true
    }

    fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt {
        if self.net.is_refused() {
            Receipt::ready(Err(Refusal::Busy))
        } else if self.term(shard) == Some(term) {
            self.net.ledger.propose(shard, term, writes)
        } else {
            Receipt::ready(Err(Refusal::NotOwner))
        }
    }

    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.net.ledger.get(shard, table, key)
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        self.net.ledger.scan(shard, table, prefix, after, limit)
    }
}

/// The way from one node to the others. What passes is encoded and decoded, as on a link.
pub(super) struct Wire {
    pub(super) me: NodeId,
    pub(super) net: Arc<Net>,
}

impl Wire {
    fn to(&self, node: NodeId) -> Result<Arc<Site>, PeerError> {
        let cut = self.net.cut.lock();
        let site = self.net.sites.lock().get(&node).map(Arc::clone);
        let site = site.filter(|_| !cut.contains(&(self.me, node)));
        site.ok_or(PeerError::NotConnected(node))
    }
}

impl Peers for Wire {
    fn ask(
        &self,
        node: NodeId,
        verb: &Verb,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer, PeerError>> {
        let (me, net) = (self.me, Arc::clone(&self.net));
        let label = verb.label();
        net.asked.lock().push((me, node, label));
        let site = match self.to(node) {
            Ok(site) => site,
            Err(why) => return Box::pin(std::future::ready(Err(why))),
        };
        let fate = net.fate(label);
        if matches!(fate, Fate::Unsent) {
            return Box::pin(std::future::ready(Err(PeerError::Unknown(node))));
        }
        let verb = codec::encode(1, verb).expect("encodes");
        // As on a link, what was sent is worked on whether somebody waits for it or not.
        let work = tokio::spawn(async move {
            let verb: Verb = codec::decode(1, &verb).expect("decodes");
            let mut alive = site.alive.subscribe();
            let answer = tokio::select! {
                answer = site.realm.serve(me, verb) => answer,
                _ = alive.wait_for(|alive| !*alive) => return Err(PeerError::Unknown(node)),
            };
            let lost = net.lose.lock().take_if(|lose| lose.0 == label);
            if let Some((_, then)) = lost {
                then();
                return Err(PeerError::Unknown(node));
            }
            if let Fate::Waits(mut until) = fate.clone() {
                until.wait_for(|is_over| *is_over).await.expect("is told");
            }
            if matches!(fate, Fate::Unanswered) || net.cut.lock().contains(&(node, me)) {
                return Err(PeerError::Unknown(node));
            }
            let answer = codec::encode(1, &answer).expect("encodes");
            Ok(codec::decode(1, &answer).expect("decodes"))
        });
        Box::pin(async move {
            match tokio::time::timeout(within, work).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(PeerError::Unknown(node)),
            }
        })
    }

    fn tell(&self, node: NodeId, verb: &Verb) -> Result<(), PeerError> {
        drop(self.ask(node, verb, Duration::from_secs(5)));
        self.to(node).map(|_| ())
    }
}

/// What a broker would do.
pub(super) struct Broker {
    pub(super) me: NodeId,
    pub(super) net: Arc<Net>,
    pub(super) alive: watch::Receiver<bool>,
}

impl Outbox for Broker {
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, ()> {
        if !*self.alive.borrow() {
            // The dead tell nobody anything.
            return Box::pin(std::future::pending());
        }
        let body = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
        let mut published = self.net.published.lock();
        published.push((self.me, message.topic.clone(), body));
        Box::pin(std::future::ready(()))
    }

    fn evict(&self, client: &ClientId, epoch: SessionEpoch, gateway: NodeId, reason: EvictReason) {
        if !*self.alive.borrow() || self.net.cut.lock().contains(&(self.me, gateway)) {
            return;
        }
        let site = self.net.sites.lock().get(&gateway).map(Arc::clone);
        if let Some(site) = site {
            site.evicted.lock().push((client.clone(), epoch, reason));
            let is_here = {
                let mut open = site.open.lock();
                let is_here = open.get(client).is_some_and(|known| *known <= epoch);
                if is_here {
                    open.remove(client);
                }
                is_here
            };
            if is_here {
                let client = client.clone();
                tokio::spawn(async move {
                    let why = DisconnectReason::DuplicateClientId;
                    let told = site.realm.disconnect(&client, epoch, why, None, false);
                    if let Err(why) = told.await {
                        tracing::debug!(error = %why, "recorded later");
                    }
                });
            } else {
                site.realm.missed(client);
            }
        }
    }

    fn end_session(&self, _: &ClientId, _: SessionEpoch) {}
}
