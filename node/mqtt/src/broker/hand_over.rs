//! A node that is drained sends its clients to others.

use std::{sync::Arc, time::Duration};

use umbel_core::ids::{ClientId, ShardId};

use super::{Broker, mailbox::Eviction};

/// How often the next few are sent away.
const STEP: Duration = Duration::from_millis(100);

impl Broker {
    /// Sends every connection away, `rate` a second, and says how many. Clients of MQTT 5 are told to use another server,
    /// one of `servers` if there are any, each for its share of the clients; older ones see their connection closed. Sessions stay, wills do not go out: the
    /// fleet expects the clients back, and calls only those offline that do not come.
    ///
    /// Who connects meanwhile stays: refusing new connections is the business of readiness and listeners.
    pub async fn hand_over(self: &Arc<Self>, rate: u32, servers: Vec<String>) -> usize {
        *self.other_servers.lock() = servers;
        let mut connected = Vec::new();
        self.sessions
            .for_each(|mailbox| connected.push((Arc::clone(mailbox), mailbox.epoch())));
        let steps_a_second = 1_000 / STEP.as_millis().max(1);
        let step = usize::try_from(u128::from(rate).div_ceil(steps_a_second))
            .unwrap_or(usize::MAX)
            .max(1);
        let mut sent = 0;
        let mut steps = connected.chunks(step).peekable();
        while let Some(some) = steps.next() {
            for (mailbox, epoch) in some {
                // one that was taken over meanwhile is another connection
                let is_same = mailbox.epoch() == *epoch;
                sent += usize::from(is_same && mailbox.evict(*epoch, Eviction::Moved));
            }
            if steps.peek().is_some() {
                tokio::time::sleep(STEP).await;
            }
        }
        tracing::info!(connections = sent, "connections handed over");
        sent
    }

    /// Where a client that is sent away should go: always to the same of several, and as many to each.
    pub(crate) fn server_reference(&self, client: &ClientId) -> Option<String> {
        let servers = self.other_servers.lock();
        let count = u16::try_from(servers.len()).unwrap_or(u16::MAX);
        // The hash that spreads clients over shards spreads them over servers as well.
        let share = ShardId::of(client.as_str(), count);
        servers.get(usize::from(share.0)).cloned()
    }
}
