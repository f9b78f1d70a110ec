//! Whether the disks of the nodes are as new as their words (fault F16).
//!
//! A node whose disk was restored to an older copy, or wiped, has forgotten votes it gave and entries it acknowledged. Its
//! own disk cannot tell; but the others remember, durably, the newest life they have met of each node, and a disk that
//! went back counts a life again. So:
//!
//! * Whoever sees a link come up tells the node at the other end which life of it was met last. Until that is answered,
//!   votes of that node do not count here, and it gets none from here.
//! * A node that hears of a life that it has not lived puts all its replicas on *probation*
//!   ([`crate::raft::group::Group::probation`]) before it answers: none votes or campaigns until it has caught up with a
//!   current leader. And it counts on from the life it heard of.
//!
//! What this cannot cover is a node that went back while, at the same time, the others that acknowledged with it are cut
//! off: that is two faults with three copies.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::interval,
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    Boot,
    log::GroupLog,
    nodes::{Peer, Reach},
};

use crate::{
    hosted::Hosted,
    identity::{self, life},
    raft::{
        mux::Mux,
        rpc::{Answer, Ask, NO_GROUP},
    },
};

/// How often a node that has not answered is told again.
const AGAIN_EVERY: Duration = Duration::from_millis(250);

/// The lives of this node and of the others.
pub(crate) struct Lives {
    boot: Boot,
    log: Arc<dyn GroupLog>,
    hosted: Arc<Hosted>,
    mux: Weak<Mux>,
    /// The newest life met of each node; what is on disk.
    met: Mutex<BTreeMap<NodeId, Boot>>,
    /// Lives of others that have answered.
    vouched: Mutex<BTreeMap<NodeId, Boot>>,
    /// Held while probation begins.
    regressing: AsyncMutex<()>,
}

impl Lives {
    /// With what the disk remembers.
    pub(crate) fn new(
        boot: Boot,
        log: Arc<dyn GroupLog>,
        hosted: Arc<Hosted>,
        mux: &Arc<Mux>,
    ) -> Result<Self, String> {
        let met = identity::met(log.as_ref()).map_err(|error| error.to_string())?;
        Ok(Self {
            boot,
            log,
            hosted,
            mux: Arc::downgrade(mux),
            met: Mutex::new(met),
            vouched: Mutex::default(),
            regressing: AsyncMutex::default(),
        })
    }

    /// Whether votes of that node count, and votes may be given to it: in the life it is in now.
    pub(crate) fn vouched(&self, node: NodeId) -> bool {
        let Some(boot) = self.vouched.lock().get(&node).copied() else {
            return false;
        };
        let Some(mux) = self.mux.upgrade() else {
            return false;
        };
        let peers = mux.transport().peers();
        let peers = peers.borrow();
        peers
            .iter()
            .any(|peer| peer.node == node && peer.boot == Some(boot))
    }

    /// A node says which life of this node it met last; true once this node has drawn its conclusions.
    pub(crate) async fn told(&self, met: Option<Boot>, yours: Boot) -> bool {
        if yours != self.boot {
            return false;
        }
        let _only = self.regressing.lock().await;
        let lived = match identity::lives(self.log.as_ref()) {
            Ok(lived) => lived,
            Err(error) => {
                tracing::error!(%error, "the number of this node's lives cannot be read");
                return false;
            },
        };
        let Some(met) = met.filter(|met| *met != self.boot && life(*met) >= lived) else {
            return true;
        };
        tracing::error!(
            lived,
            met = life(met),
            "the disk of this node went back in time: nothing here votes until it has caught up"
        );
        for shard in self.hosted.all().values() {
            if let Err(error) = shard.begin_probation(self.log.as_ref()).await {
                tracing::error!(shard = shard.id.0, %error, "probation cannot be remembered");
                return false;
            }
        }
        let counted = identity::set_lives(self.log.as_ref(), life(met) + 1).await;
        counted.is_ok()
    }

    /// Tells a node which of its lives was met last; it has drawn its conclusions when it answers.
    async fn tell(&self, node: NodeId, boot: Boot) {
        let Some(mux) = self.mux.upgrade() else {
            return;
        };
        let met = self.met.lock().get(&node).copied();
        let ask = Ask::Met {
            met: met.map(|met| met.0),
            yours: boot.0,
        };
        let answer = mux.ask(node, NO_GROUP, &ask, None, AGAIN_EVERY * 4).await;
        if !matches!(answer, Ok(Answer::Done(true))) {
            return;
        }
        let newer = {
            let mut all = self.met.lock();
            let newer = met.is_none_or(|met| life(boot) > life(met));
            newer.then(|| {
                all.insert(node, boot);
                all.clone()
            })
        };
        if let Some(all) = newer
            && let Err(error) = identity::set_met(self.log.as_ref(), &all).await
        {
            tracing::warn!(%error, "the lives of other nodes cannot be remembered");
        }
        // Remembered first: a vote that counted must not be one that this node forgets it could count.
        self.vouched.lock().insert(node, boot);
    }

    /// Nodes that are there and have not answered; those who went are forgotten.
    fn open(&self, peers: &[Peer]) -> Vec<(NodeId, Boot)> {
        let mut vouched = self.vouched.lock();
        vouched.retain(|node, boot| {
            peers
                .iter()
                .any(|peer| peer.node == *node && peer.boot == Some(*boot))
        });
        peers
            .iter()
            .filter(|peer| peer.reach == Reach::Connected)
            .filter_map(|peer| Some((peer.node, peer.boot?)))
            .filter(|(node, _)| !vouched.contains_key(node))
            .collect()
    }
}

/// Tells others what was met of them, until it is aborted.
pub(crate) async fn run(lives: Arc<Lives>, mut peers: watch::Receiver<Vec<Peer>>) {
    let mut again = interval(AGAIN_EVERY);
    loop {
        let now = peers.borrow_and_update().clone();
        let open = lives.open(&now);
        let nobody = open.is_empty();
        for (node, boot) in open {
            let lives = Arc::clone(&lives);
            tokio::spawn(async move { lives.tell(node, boot).await });
        }
        if nobody {
            if peers.changed().await.is_err() {
                return;
            }
        } else {
            again.tick().await;
        }
    }
}
