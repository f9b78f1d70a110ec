//! Presence: what is believed of a client that cannot be seen, and what a new owner makes of a record.

use super::{
    DisconnectReason, Evidence, Gateway, Kind, LastError, Link, Presence, Reason, Timer,
    machine::Turn,
};
use crate::{ids::SessionEpoch, time::Timestamp};

/// Most bytes of the text of a failure.
const ERROR_BYTES_MAX: usize = 256;

impl Turn<'_> {
    /// The gateway is gone: stale until the grace is over. Not made durable, because a new owner finds it out itself.
    pub(super) fn gateway_lost(&mut self, epoch: SessionEpoch) {
        self.lose(epoch, Evidence::GatewayGone);
    }

    fn lose(&mut self, epoch: SessionEpoch, evidence: Evidence) {
        let now = self.now;
        let Some(session) = self.current(epoch) else {
            return;
        };
        if session.link != Link::Up {
            return;
        }
        session.link = Link::Lost { since: now };
        // A client that was silent for too long already is not called more than lost.
        if self.record.presence != Presence::Offline {
            self.presence(Presence::Stale, Reason::GatewayLost, evidence);
        }
        self.keep_in_memory();
        self.await_grace_end(epoch, now);
    }

    /// The grace is over: a client that is still lost or silent is offline.
    pub(super) fn grace_over(&mut self, epoch: SessionEpoch, began: Timestamp) {
        let record = &self.record;
        let silent = record.presence == Presence::Stale
            && record.reason == Reason::HeartbeatLate
            && record.since == began;
        let Some(session) = self.current(epoch) else {
            return;
        };
        match session.link {
            Link::Lost { since } if since == began => {
                let evidence = self.record.evidence;
                self.presence(Presence::Offline, Reason::GatewayLost, evidence);
                self.end_connection(DisconnectReason::ConnectionLost, began, true);
            },
            Link::Up if silent => {
                // Silent, but connected: what the connection means is the gateway's to say.
                self.presence(Presence::Offline, Reason::HeartbeatLate, Evidence::Silence);
                self.record.flaps.count(self.now, &self.rules.flapping);
                self.keep();
            },
            Link::Up | Link::Lost { .. } | Link::Down { .. } => {},
        }
    }

    fn await_grace_end(&mut self, epoch: SessionEpoch, since: Timestamp) {
        self.schedule(since, self.rules.grace, Timer::GraceOver { epoch, since });
    }

    /// An open connection's heartbeats are overdue.
    pub(super) fn heartbeat_late(&mut self, epoch: SessionEpoch) {
        let online = self.record.presence == Presence::Online;
        if !online
            || self
                .current(epoch)
                .is_none_or(|session| session.link != Link::Up)
        {
            return;
        }
        self.presence(Presence::Stale, Reason::HeartbeatLate, Evidence::Silence);
        self.keep_in_memory();
        self.await_grace_end(epoch, self.now);
    }

    /// A stale or silent client is heard through its connection.
    pub(super) fn heard(&mut self, epoch: SessionEpoch) {
        let Some(session) = self.current(epoch) else {
            return;
        };
        if matches!(session.link, Link::Down { .. }) {
            return;
        }
        session.link = Link::Up;
        self.record.last_seen = Some(self.now);
        match self.record.presence {
            // When it was last heard is the owner's to remember.
            Presence::Online => {},
            Presence::Stale => {
                self.keep_in_memory();
                self.presence(Presence::Online, Reason::HeardAgain, Evidence::Traffic);
            },
            Presence::Offline | Presence::Never => {
                self.keep();
                self.presence(Presence::Online, Reason::HeardAgain, Evidence::Traffic);
            },
        }
    }

    /// An owner starts with what was stored: it schedules what is due and doubts what it cannot see. Nothing of
    /// this is made durable; an owner that dies on the way leaves the same work to the next.
    pub(super) fn recover(&mut self, gateway: Gateway) {
        self.recover_wills();
        let Some(session) = &self.record.session else {
            self.await_forgetting();
            return;
        };
        let epoch = session.epoch;
        match session.link {
            Link::Up if gateway == Gateway::Gone => self.lose(epoch, Evidence::OwnerRestarted),
            Link::Up if self.record.presence == Presence::Stale => {
                self.await_grace_end(epoch, self.record.since);
            },
            Link::Up => {},
            Link::Lost { .. } if gateway == Gateway::Asked => self.doubt(epoch),
            Link::Lost { since } => self.await_grace_end(epoch, since),
            Link::Down { .. } => self.await_session_end(),
        }
    }

    /// A connection that was taken for lost may be there nevertheless: its gateway is. What was stored may be old, so
    /// that its grace seems over while the client is online.
    fn doubt(&mut self, epoch: SessionEpoch) {
        if let Some(session) = self.current(epoch) {
            session.link = Link::Up;
            self.keep_in_memory();
        }
    }

    /// Apps come and go under ever new names: their records must not stay for ever.
    pub(super) fn await_forgetting(&mut self) {
        if self.record.kind == Kind::App && !self.record.listed {
            let what = Timer::Forget {
                epoch: self.record.epoch,
            };
            self.schedule(self.record.since, self.rules.remember, what);
        }
    }

    /// Whether the record of an app that went can be removed now; comes back later if not.
    pub(super) fn is_forgettable(&mut self, epoch: SessionEpoch) -> bool {
        let record = &self.record;
        let gone = record.kind == Kind::App && !record.listed && record.session.is_none();
        if !gone || record.epoch != epoch {
            return false;
        }
        if record.pending_wills.is_empty() {
            return true;
        }
        // A will that the shell has not confirmed holds the record.
        self.schedule(self.now, self.rules.remember, Timer::Forget { epoch });
        false
    }

    /// Something went wrong.
    pub(super) fn failed(&mut self, message: &str) {
        let end = message.floor_char_boundary(ERROR_BYTES_MAX);
        let message = message.get(..end).unwrap_or_default().to_owned();
        self.record.last_error = Some(LastError {
            at: self.now,
            message,
        });
        self.keep();
    }

    pub(super) fn presence(&mut self, presence: Presence, reason: Reason, evidence: Evidence) {
        if self.record.presence != presence {
            self.record.since = self.now;
        }
        self.record.presence = presence;
        self.record.reason = reason;
        self.record.evidence = evidence;
    }
}
