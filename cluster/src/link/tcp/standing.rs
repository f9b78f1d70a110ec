//! What a node thinks of a peer, from what happens to its own connections. Pure: time is an argument.

use tokio::time::Instant;
use umbel_storage::nodes::{Boot, Reach};

use super::{super::Timing, hello::Lane};

/// A peer's standing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    boot: Option<Boot>,
    up: [bool; Lane::ALL.len()],
    /// Since when nothing is led.
    down_since: Instant,
    /// The last link ended because the other side ended it, not in silence.
    was_reset: bool,
    /// Since when every try was refused by the peer's machine.
    refused_since: Option<Instant>,
    gone: bool,
}

impl Standing {
    /// Of a peer that was just heard of.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            boot: None,
            up: [false; Lane::ALL.len()],
            down_since: now,
            was_reset: false,
            refused_since: None,
            gone: false,
        }
    }

    /// Its life that was last heard of.
    pub(super) fn boot(&self) -> Option<Boot> {
        self.boot
    }

    /// A connection to it works.
    pub(super) fn up(&mut self, lane: Lane, boot: Boot) {
        self.boot = Some(boot);
        self.set(lane, true);
        self.refused_since = None;
        self.gone = false;
    }

    /// A connection to it is over; `reset`: because the other side ended it.
    pub(super) fn down(&mut self, lane: Lane, reset: bool, now: Instant) {
        self.set(lane, false);
        if lane == Lane::Control {
            self.down_since = now;
            self.was_reset = reset;
            self.refused_since = None;
        }
    }

    /// A connection could not be made; `refused`: because nobody listens.
    pub(super) fn failed(&mut self, refused: bool, now: Instant) {
        if !refused {
            self.refused_since = None;
        } else if self.refused_since.is_none() {
            self.refused_since = Some(now);
        }
    }

    /// It spoke of itself. `true`: in a life that was not heard of before. A new life has lost nothing yet, so it is not
    /// gone.
    pub(super) fn heard(&mut self, boot: Boot, now: Instant) -> bool {
        if self.boot == Some(boot) {
            return false;
        }
        self.boot = Some(boot);
        self.gone = false;
        self.was_reset = false;
        self.refused_since = None;
        if !self.is_up(Lane::Control) {
            self.down_since = now;
        }
        true
    }

    /// Whether it can be spoken to. Who is gone stays so until it speaks.
    pub(super) fn reach(&mut self, timing: &Timing, now: Instant) -> Reach {
        if self.up.iter().all(|up| *up) {
            return Reach::Connected;
        }
        if !self.is_up(Lane::Control) && self.gone_at(timing) <= now {
            self.gone = true;
        }
        if self.gone {
            Reach::Gone
        } else {
            Reach::Unreachable
        }
    }

    /// When the answer changes by itself.
    pub(super) fn changes_at(&self, timing: &Timing) -> Option<Instant> {
        let waits = !self.gone && !self.is_up(Lane::Control);
        waits.then(|| self.gone_at(timing))
    }

    fn gone_at(&self, timing: &Timing) -> Instant {
        let silent = self.down_since + timing.gone_after;
        match self.refused_since {
            Some(since) if self.was_reset => silent.min(since + timing.gone_after_refused),
            _ => silent,
        }
    }

    fn is_up(&self, lane: Lane) -> bool {
        self.up.get(lane as usize - 1).copied().unwrap_or(false)
    }

    fn set(&mut self, lane: Lane, up: bool) {
        if let Some(place) = self.up.get_mut(lane as usize - 1) {
            *place = up;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn up(standing: &mut Standing, boot: u64) {
        for lane in Lane::ALL {
            standing.up(lane, Boot(boot));
        }
    }

    #[test]
    fn connected_means_every_lane_and_a_lost_lane_alone_is_never_gone() {
        let timing = Timing::default();
        let start = Instant::now();
        let mut peer = Standing::new(start);
        peer.up(Lane::Control, Boot(1));
        peer.up(Lane::Work, Boot(1));
        assert_eq!(
            peer.reach(&timing, after(start, 60_000)),
            Reach::Unreachable
        );
        assert_eq!(peer.changes_at(&timing), None);
        peer.up(Lane::Bulk, Boot(1));
        assert_eq!(peer.reach(&timing, after(start, 60_000)), Reach::Connected);
    }

    #[test]
    fn silence_is_gone_after_three_seconds_and_refusal_after_a_half() {
        let timing = Timing::default();
        let start = Instant::now();
        let mut peer = Standing::new(start);
        up(&mut peer, 1);
        peer.down(Lane::Control, false, start);
        peer.failed(true, start);
        assert_eq!(peer.reach(&timing, after(start, 2999)), Reach::Unreachable);
        assert_eq!(peer.changes_at(&timing), Some(after(start, 3000)));
        assert_eq!(peer.reach(&timing, after(start, 3000)), Reach::Gone);

        up(&mut peer, 1);
        peer.down(Lane::Control, true, start);
        assert_eq!(peer.reach(&timing, after(start, 2999)), Reach::Unreachable);
        peer.failed(true, after(start, 100));
        peer.failed(true, after(start, 300));
        assert_eq!(peer.reach(&timing, after(start, 599)), Reach::Unreachable);
        assert_eq!(peer.reach(&timing, after(start, 600)), Reach::Gone);
        peer.failed(false, after(start, 700));
        let still = peer.reach(&timing, after(start, 700));
        assert_eq!(still, Reach::Gone, "until it speaks");
    }

    #[test]
    fn a_new_life_that_speaks_is_not_gone_any_more() {
        let timing = Timing::default();
        let start = Instant::now();
        let mut peer = Standing::new(start);
        assert_eq!(peer.reach(&timing, after(start, 3000)), Reach::Gone);
        assert!(peer.heard(Boot(2), after(start, 4000)));
        assert!(!peer.heard(Boot(2), after(start, 4000)));
        assert_eq!(peer.reach(&timing, after(start, 4001)), Reach::Unreachable);
        assert_eq!(peer.boot(), Some(Boot(2)));
        assert_eq!(peer.reach(&timing, after(start, 7000)), Reach::Gone);
    }
}
