//! A node that is drained sends its clients to others.

use std::{sync::Arc, time::Duration};

use super::{Broker, mailbox::Eviction};

/// How often the next few are sent away.
const STEP: Duration = Duration::from_millis(100);

impl Broker {
    /// Sends every connection away, `rate` a second, and says how many. Clients of MQTT 5 are told to use another server,
    /// `server_reference` if there is one; older ones see their connection closed. Sessions stay, wills do not go out: the
    /// fleet expects the clients back, and calls only those offline that do not come.
    ///
    /// Who connects meanwhile stays: refusing new connections is the business of readiness and listeners.
    pub async fn hand_over(self: &Arc<Self>, rate: u32, server_reference: Option<String>) -> usize {
        *self.server_reference.lock() = server_reference;
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

    /// Where clients that are sent away should go.
    pub(crate) fn server_reference(&self) -> Option<String> {
        self.server_reference.lock().clone()
    }
}
