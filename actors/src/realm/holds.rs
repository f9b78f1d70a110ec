//! Whether a recorded connection is held by the gateway that it is recorded with.
//!
//! A connect is committed by the owner, and the gateway that asked for it may never hear of that: it gave up, its lease
//! ran out, the answer was lost. What is recorded then is a connection that nobody has, and its client is told to come
//! again. If it did so by taking that connection over, everybody would hear that it was thrown out, and get its will.
//! So the owner asks first, and a gateway that gave a connect up has it looked at ([`Verb::Review`]).

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use umbel_core::ids::{ClientId, SessionEpoch, ShardId};

use super::Inner;
use crate::{
    lives::Life,
    remote::{Answer, Hold, Verb},
};

/// A gateway says within this what it holds: a look into a table. A connect waits for it, and is given up itself after
/// twice as long ([`super::Timing::deadline`]).
const ASK_WITHIN: Duration = Duration::from_secs(1);

impl Inner {
    /// What this node says of a connection that is recorded as its own.
    pub(crate) fn held_here(&self, client: &ClientId, epoch: SessionEpoch) -> Hold {
        let shard = self.fleet.shard(client).id;
        self.gateway.hold(shard, client, epoch)
    }

    /// What a gateway says of a connection that is recorded as its own; nothing if it does not answer.
    pub(crate) async fn ask_holder(
        &self,
        life: Life,
        client: &ClientId,
        epoch: SessionEpoch,
    ) -> Option<Hold> {
        // A node that has no others holds whatever is held, and its records name it by a number that the fleet need not know.
        if life.node == self.me || self.fleet.common.nodes.is_none() {
            return Some(self.held_here(client, epoch));
        }
        if !life.is_known() {
            return Some(Hold::Held);
        }
        let verb = Verb::Holds {
            client: client.clone(),
            epoch,
        };
        match self.peers.ask(life.node, &verb, ASK_WITHIN).await {
            Ok(Answer::Held(hold)) => Some(hold),
            Ok(answer) => {
                debug!(%client, ?answer, "a gateway does not say what it holds");
                None
            },
            Err(why) => {
                debug!(%client, error = %why, "a gateway cannot be asked what it holds");
                None
            },
        }
    }
}

/// Has connects looked at that this node gave up.
pub(super) async fn review(inner: &Inner, shard: ShardId, clients: Vec<ClientId>) {
    let Some(of) = inner.fleet.numbered(shard) else {
        return;
    };
    let asked = (Instant::now(), inner.timing.sure_after);
    let verb = Verb::Review { shard, clients };
    if let Ok(Answer::Recorded(settled)) = inner.route(&of, verb).await {
        for client in settled {
            inner.gateway.reviewed(shard, &client, asked);
        }
    }
}
