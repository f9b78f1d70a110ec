//! What comes due for the devices of a shard: one wheel, one entry per device and subject.
//!
//! A device that comes and goes every second moves its deadlines; it does not leave an entry behind each time.

use std::collections::HashMap;

use umbel_core::{
    device::{Disconnect, Gateway, Input, Timer},
    ids::{ClientId, SessionEpoch},
    time::Tick,
    wheel::{Armed, Wheel},
};

/// What comes due for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// The device machine asked to be told.
    Timer(Timer),
    /// A will went out, and the note of it could not be written at once.
    WillPublished(SessionEpoch),
    /// A session ended, and that could not be recorded at once.
    Ended(Disconnect),
    /// The rest of a failed actor is over.
    Restart,
}

impl Alarm {
    pub(crate) const fn input(self) -> Input {
        match self {
            Self::Timer(timer) => Input::Timer(timer),
            Self::WillPublished(epoch) => Input::WillPublished { epoch },
            Self::Ended(end) => Input::Disconnect(end),
            Self::Restart => Input::Recover {
                gateway: Gateway::Here,
            },
        }
    }

    const fn subject(self) -> Subject {
        match self {
            Self::Timer(Timer::GraceOver { .. }) => Subject::Grace,
            Self::Timer(Timer::SessionExpiry { .. }) => Subject::Expiry,
            Self::Timer(Timer::WillDue { .. }) => Subject::Will,
            Self::Timer(Timer::Forget { .. }) => Subject::Forget,
            Self::WillPublished(epoch) => Subject::WillPublished(epoch),
            Self::Ended(end) => Subject::Ended(end.epoch),
            Self::Restart => Subject::Restart,
        }
    }
}

/// Alarms of one device about one subject replace each other. Where only the last session counts, an alarm of
/// an older one is stale anyway: a connect sends or forgets every will that waited, so one waits at most. Ends are owed
/// to each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Grace,
    Expiry,
    Will,
    Forget,
    WillPublished(SessionEpoch),
    Ended(SessionEpoch),
    Restart,
}

type Key = (ClientId, Subject);

struct Pending {
    at: Tick,
    alarm: Alarm,
    armed: Armed,
}

/// The alarms of a shard. They are never cancelled: a stale one does no harm.
pub(crate) struct Alarms {
    wheel: Wheel<Key>,
    pending: HashMap<Key, Pending>,
}

impl Alarms {
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            wheel: Wheel::new(now),
            pending: HashMap::new(),
        }
    }

    pub(crate) fn set(&mut self, device: ClientId, at: Tick, alarm: Alarm) {
        let key = (device, alarm.subject());
        let fresh = Pending {
            at,
            alarm,
            armed: Armed::default(),
        };
        let pending = self.pending.entry(key.clone()).or_insert(fresh);
        pending.at = at;
        pending.alarm = alarm;
        pending.armed.arm(&mut self.wheel, key, at);
    }

    /// Sets an alarm that rang and could not be heard, unless a newer one about the same subject is set: where one
    /// replaces the other, the older is stale.
    pub(crate) fn set_again(&mut self, device: ClientId, at: Tick, alarm: Alarm) {
        if !self
            .pending
            .contains_key(&(device.clone(), alarm.subject()))
        {
            self.set(device, at, alarm);
        }
    }

    /// Forgets all but the ends of sessions, which no record tells.
    pub(crate) fn begin_anew(&mut self, now: Tick) {
        let before = std::mem::replace(self, Self::new(now));
        for ((device, _), pending) in before.pending {
            if let Alarm::Ended(_) = pending.alarm {
                self.set(device, pending.at, pending.alarm);
            }
        }
    }

    /// Takes out what is due.
    pub(crate) fn take_due(&mut self, now: Tick) -> Vec<(ClientId, Alarm)> {
        let mut due = Vec::new();
        let pending = &mut self.pending;
        let mut keys = Vec::new();
        self.wheel.advance(
            now,
            |key, generation| {
                let pending = pending.get_mut(key)?;
                pending.armed.answer(generation, Some(pending.at), now)
            },
            |key, _| keys.push(key),
        );
        for key in keys {
            if let Some(pending) = self.pending.remove(&key) {
                due.push((key.0, pending.alarm));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use umbel_core::time::Timestamp;

    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_millis(seconds * 1000)
    }

    fn expiry(epoch: u64) -> Alarm {
        Alarm::Timer(Timer::SessionExpiry {
            epoch: SessionEpoch(epoch),
            since: Timestamp::default(),
        })
    }

    #[test]
    fn a_device_that_comes_and_goes_leaves_one_alarm_which_is_the_last() {
        let device = ClientId::parse("a").expect("id");
        let mut alarms = Alarms::new(at(0));
        for second in 0..1000 {
            alarms.set(device.clone(), at(second + 3600), expiry(second));
            assert!(alarms.take_due(at(second)).is_empty());
        }
        assert_eq!((alarms.pending.len(), alarms.wheel.len()), (1, 1));
        assert!(alarms.take_due(at(999 + 3599)).is_empty());
        assert_eq!(alarms.take_due(at(999 + 3601)), [(device, expiry(999))]);
        assert_eq!(alarms.pending.len(), 0);
    }

    #[test]
    fn a_device_that_leaves_delayed_wills_behind_leaves_one_alarm() {
        let device = ClientId::parse("a").expect("id");
        let mut alarms = Alarms::new(at(0));
        for number in 0..1000 {
            let will = Alarm::Timer(Timer::WillDue {
                epoch: SessionEpoch(number),
                due: Timestamp::default(),
            });
            alarms.set(device.clone(), at(number + 604_800), will);
        }
        assert_eq!((alarms.pending.len(), alarms.wheel.len()), (1, 1));
    }

    #[test]
    fn an_alarm_that_moves_nearer_rings_once_and_in_time() {
        let device = ClientId::parse("a").expect("id");
        let mut alarms = Alarms::new(at(0));
        alarms.set(device.clone(), at(3600), expiry(1));
        alarms.set(device.clone(), at(5), expiry(2));
        assert_eq!(alarms.take_due(at(6)), [(device, expiry(2))]);
        assert!(alarms.take_due(at(4000)).is_empty());
    }

    #[test]
    fn an_alarm_that_is_tried_again_does_not_replace_a_newer_one() {
        let device = ClientId::parse("a").expect("id");
        let mut alarms = Alarms::new(at(0));
        alarms.set(device.clone(), at(5), expiry(2));
        alarms.set_again(device.clone(), at(1), expiry(1));
        assert_eq!(alarms.take_due(at(10)), [(device.clone(), expiry(2))]);
        alarms.set_again(device.clone(), at(11), expiry(1));
        assert_eq!(alarms.take_due(at(12)), [(device, expiry(1))]);
    }
}
