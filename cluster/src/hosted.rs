//! The shards this node has a replica of, and the door through which other members reach them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use umbel_core::ids::{NodeId, ShardId};
use umbel_storage::Boot;

use crate::{
    link::{BoxFuture, Handler},
    lives::Lives,
    raft::{
        mux::Mux,
        rpc::{self, Answer, Ask, Envelope},
    },
    shard::Shard,
    wire,
};

/// Replicas by shard. Read on every proposal and read; changed when the shard map says so.
#[derive(Default)]
pub(crate) struct Hosted(ArcSwap<BTreeMap<ShardId, Arc<Shard>>>);

impl Hosted {
    /// All of them.
    pub(crate) fn all(&self) -> Arc<BTreeMap<ShardId, Arc<Shard>>> {
        self.0.load_full()
    }

    /// One of them.
    pub(crate) fn get(&self, shard: ShardId) -> Option<Arc<Shard>> {
        self.0.load().get(&shard).cloned()
    }

    /// Calls `then` with one of them: cheaper than [`Hosted::get`].
    pub(crate) fn with<T>(&self, shard: ShardId, then: impl FnOnce(&Arc<Shard>) -> T) -> Option<T> {
        self.0.load().get(&shard).map(then)
    }

    /// Adds one, unless there is one.
    pub(crate) fn add(&self, shard: &Arc<Shard>) {
        self.0.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.entry(shard.id).or_insert_with(|| Arc::clone(shard));
            all
        });
    }

    /// Takes one out.
    pub(crate) fn remove(&self, shard: ShardId) -> Option<Arc<Shard>> {
        let before = self.0.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.remove(&shard);
            all
        });
        before.get(&shard).cloned()
    }
}

/// Takes what other members say to the groups of this node.
pub(crate) struct Door {
    hosted: Weak<Hosted>,
    mux: Weak<Mux>,
    lives: Weak<Lives>,
}

impl Door {
    /// A door to these replicas. Holds nothing alive: a transport never lets go of its handlers.
    pub(crate) fn new(hosted: &Arc<Hosted>, mux: &Arc<Mux>, lives: &Arc<Lives>) -> Self {
        Self {
            hosted: Arc::downgrade(hosted),
            mux: Arc::downgrade(mux),
            lives: Arc::downgrade(lives),
        }
    }

    fn ask(&self, from: NodeId, envelope: Envelope) {
        let (Some(hosted), Some(mux)) = (self.hosted.upgrade(), self.mux.upgrade()) else {
            return;
        };
        let Envelope {
            id, group, body, ..
        } = envelope;
        let Ok(ask) = wire::decode::<Ask>(&body) else {
            return mux.reply(from, id, &Answer::NotUnderstood);
        };
        let Some(lives) = self.lives.upgrade() else {
            return;
        };
        if let Ask::Met { met, yours } = ask {
            tokio::spawn(async move {
                let done = lives.told(met.map(Boot), Boot(yours)).await;
                mux.reply(from, id, &Answer::Done(done));
            });
            return;
        }
        let appends = matches!(ask, Ask::Append(_));
        let sound = |shard: &Arc<Shard>| {
            if appends && shard.is_quarantined() {
                shard.wanted_by(from);
            }
            shard.group()
        };
        let group = u16::try_from(group)
            .ok()
            .and_then(|number| hosted.with(ShardId(number), sound))
            .flatten();
        let Some(group) = group else {
            return mux.reply(from, id, &Answer::NoGroup);
        };
        let vouched = lives.vouched(from);
        tokio::spawn(async move {
            let answer = group.answer(from, ask, vouched).await;
            mux.reply(from, id, &answer);
        });
    }
}

impl Handler for Door {
    fn request(&self, _from: NodeId, _body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("groups are told, not asked".to_owned()) })
    }

    fn notice(&self, from: NodeId, body: Bytes) {
        let envelopes = match rpc::decode_frame(&body) {
            Ok(envelopes) => envelopes,
            Err(error) => {
                tracing::warn!(node = from.0, %error, "a frame for the groups is not understood");
                return;
            },
        };
        for envelope in envelopes {
            if !envelope.answer {
                self.ask(from, envelope);
            } else if let Some(mux) = self.mux.upgrade() {
                mux.answered(from, envelope.id, &envelope.body);
            }
        }
    }
}
