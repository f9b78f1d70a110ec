//! Where newcomers ask: on any node, before they have a certificate.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant;
use umbel_core::{
    cluster::{Command, Outcome, Rejected},
    ids::NodeId,
};

use super::{
    join::{self, JoinRequest, JoinToken, sha256},
    service::{Inner, Meta, MetaError},
};
use crate::{link::BoxFuture, metrics::JOINS, wire};

/// Newcomers answered at once; each costs the meta leader a decision, and there is no certificate to blame.
const BURST: f64 = 10.0;
/// Newcomers answered per second after that.
const PER_SECOND: f64 = 2.0;
/// How long this node waits to see in its own map whom the leader let in.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Answers a newcomer: bytes for bytes, or a sentence for its operator.
pub type JoinDesk =
    Arc<dyn Fn(SocketAddr, Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

impl Meta {
    /// Makes an invitation for one node. The cluster keeps only its hash: whoever loses it makes another.
    pub async fn create_token(&self, lives: Duration) -> Result<JoinToken, MetaError> {
        let map = self.map();
        let (Some(identity), Some(authority)) = (map.identity, &map.authority) else {
            return Err(MetaError::Rejected(Rejected::NotInitialised));
        };
        let token = JoinToken::new(identity.cluster, &authority.certificate);
        let hash = token.hash();
        self.command(Command::CreateToken { hash, lives }).await?;
        tracing::info!(seconds = lives.as_secs(), "join token made");
        Ok(token)
    }

    /// Where newcomers ask this node.
    pub fn join_desk(&self) -> JoinDesk {
        let inner = Arc::downgrade(&self.inner);
        let budget = Arc::new(Mutex::new(Budget::full()));
        Arc::new(move |from, body| {
            let inner = Weak::clone(&inner);
            let allowed = budget.lock().take();
            Box::pin(async move {
                if !allowed {
                    counter!(JOINS, "outcome" => "limited").increment(1);
                    return Err("too many nodes ask to join: try again in some seconds".to_owned());
                }
                let inner = inner.upgrade().ok_or("the node stops")?;
                inner.admit(from, &body).await
            })
        })
    }
}

impl Inner {
    async fn admit(&self, from: SocketAddr, body: &[u8]) -> Result<Bytes, String> {
        let request: JoinRequest = wire::decode(body).map_err(|error| error.to_string())?;
        let command = Command::Admit {
            token: sha256(&request.secret),
            key: sha256(&request.public),
            profile: request.profile,
        };
        let outcome = match self.submit(command).await {
            Ok(Outcome::Admitted(node)) => self.granted(node, &request.public).await,
            Ok(Outcome::Done) => Err("the cluster gave no node id".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok((node, grant)) => {
                counter!(JOINS, "outcome" => "admitted").increment(1);
                tracing::info!(%from, node = node.0, "node admitted");
                Ok(grant)
            },
            Err(why) => {
                counter!(JOINS, "outcome" => "refused").increment(1);
                tracing::warn!(%from, %why, "node refused");
                Err(why)
            },
        }
    }

    async fn granted(&self, node: NodeId, public: &[u8]) -> Result<(NodeId, Bytes), String> {
        let mut map = self.view.watch();
        let seen = map.wait_for(|map| map.nodes.contains_key(&node));
        let map = match tokio::time::timeout(SEEN_WITHIN, seen).await {
            Ok(Ok(map)) => Arc::clone(&map),
            _ => return Err("this node's map is behind: ask again".to_owned()),
        };
        let now = (self.config.clock)();
        match join::grant(&map, node, public, now) {
            Ok(Some(grant)) => Ok((node, wire::encode(&grant))),
            Ok(None) => Err("this node's map is behind: ask again".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// How many more newcomers may be answered.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn full() -> Self {
        Self {
            left: BURST,
            at: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.at = now;
        self.left = (self.left + earned).min(BURST);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}
