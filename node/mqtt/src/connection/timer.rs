//! One lazy timer per connection, for two deadlines: silence of the client, and a socket that takes nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};
use umbel_core::time::Tick;

/// Wakes the connection at the earlier of its deadlines. A packet moves a number and not the timer: when the timer
/// fires it looks at the number, and goes on sleeping if the deadline has moved.
#[derive(Debug)]
pub(super) struct Timer {
    keep_alive: Option<Duration>,
    write_stall: Duration,
    /// Boxed so that a connection without deadlines has none, and so that the connection can be moved.
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires.
    armed_for: Tick,
}

/// A deadline that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    KeepAlive,
    WriteStall,
}

impl Timer {
    /// One and a half times the keep-alive (MQTT-3.1.2-22); 0 seconds: none.
    pub(super) fn new(keep_alive_secs: u16, write_stall: Duration) -> Self {
        let keep_alive = Duration::from_millis(u64::from(keep_alive_secs) * 1_500);
        Self {
            keep_alive: (keep_alive_secs > 0).then_some(keep_alive),
            write_stall,
            sleep: None,
            armed_for: Tick::default(),
        }
    }

    /// Ready when a deadline has passed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
        heard: Tick,
        stalled: Option<Tick>,
    ) -> Poll<Expired> {
        let mut now = now;
        loop {
            let silent = self.keep_alive.map(|span| heard + span);
            let stuck = stalled.map(|since| since + self.write_stall);
            // A client that does not read is not asked why it is silent: its packets are not read either.
            let (deadline, expired) = match (stuck, silent) {
                (Some(at), _) => (at, Expired::WriteStall),
                (None, Some(at)) => (at, Expired::KeepAlive),
                (None, None) => return Poll::Pending,
            };
            if now >= deadline {
                return Poll::Ready(expired);
            }
            let armed_for = &mut self.armed_for;
            let sleep = match &mut self.sleep {
                Some(sleep) => {
                    if deadline < *armed_for {
                        *armed_for = deadline;
                        sleep.as_mut().reset(Instant::now() + (deadline - now));
                    }
                    sleep
                },
                none => {
                    *armed_for = deadline;
                    none.insert(Box::pin(sleep(deadline - now)))
                },
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It fired. The clock may lag behind the timer by its own grain.
            now = now.max(*armed_for);
            if now < deadline {
                *armed_for = deadline;
                sleep.as_mut().reset(Instant::now() + (deadline - now));
            }
        }
    }
}
