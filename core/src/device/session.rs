//! Sessions: who opens one, who takes it over, and when it ends.

use std::time::Duration;

use super::{
    Admission, Change, Connect, Disconnect, DisconnectReason, Effect, EvictReason, Evidence, Kind,
    Link, Opened, Presence, Reason, RecordWrite, Reply, Session, Timer, VersionNumber, events,
    machine::Turn,
};
use crate::{ids::SessionEpoch, time::Timestamp};

impl Turn<'_> {
    /// Opens a session: the next epoch, taking over what is there.
    pub(super) fn connect(mut self, connect: Connect) -> Change {
        let listed_only = self.rules.admission == Admission::Listed;
        let is_unlisted = listed_only && connect.kind == Kind::Device && !self.record.listed;
        if is_unlisted || self.is_of_another(&connect) {
            return super::machine::answer(Reply::NotListed);
        }
        let previous = self.record.session.take();
        let resumed = !connect.clean_start
            && previous
                .as_ref()
                .is_some_and(|session| session.can_resume(self.now));
        self.settle_delayed_wills(resumed);
        // Rows of a session that goes on must go with it, also if it is not to outlive this connection.
        let has_rows = resumed && previous.as_ref().is_some_and(|session| session.durable);
        let taken_over = previous.and_then(|session| self.replace(session, resumed));

        let epoch = self.record.epoch.next();
        let version_number = self.next_version_number();
        self.record.epoch = epoch;
        self.record.last_seen = Some(self.now);
        if connect.kind == Kind::Device {
            self.record.kind = Kind::Device;
        }
        let session = Session {
            epoch,
            kind: connect.kind,
            protocol: connect.protocol,
            clean: connect.clean_start,
            expiry: connect.expiry,
            durable: has_rows || connect.expiry > 0,
            will: connect.will,
            keep_alive: connect.keep_alive,
            principal: connect.principal,
            ip: connect.ip,
            listener: connect.listener,
            connected_at: self.now,
            version_number,
            link: Link::Up,
            gateway: connect.gateway,
            gateway_boot: connect.gateway_boot,
        };
        self.announce(events::connected(self.client, &session, self.now));
        self.record.session = Some(session);
        self.presence(Presence::Online, Reason::Connected, Evidence::Connection);
        self.keep();
        self.finish(Some(Reply::Opened(Opened {
            epoch,
            session_present: resumed,
            taken_over,
        })))
    }

    /// Whether the name belongs to somebody this client cannot be. A device has proved its name; an app chooses one:
    /// it must not throw out a device or another user's app, nor go on with their session (T11).
    fn is_of_another(&self, connect: &Connect) -> bool {
        let is_taken = |session: &Session| {
            session.expires_at().is_none_or(|at| self.now < at)
                && session.principal != connect.principal
        };
        connect.kind == Kind::App
            && (self.record.kind == Kind::Device
                || self.record.session.as_ref().is_some_and(is_taken))
    }

    /// The previous session makes room. Returns the connection that was taken over.
    fn replace(&mut self, mut session: Session, resumed: bool) -> Option<SessionEpoch> {
        let epoch = session.epoch;
        let was_up = session.link == Link::Up;
        if session.link == Link::Up || matches!(session.link, Link::Lost { .. }) {
            // A gateway that is believed lost may still hold the connection.
            self.before_reply(Effect::Evict {
                epoch,
                gateway: session.gateway,
                reason: EvictReason::TakenOver,
            });
        }
        if was_up {
            let reason = DisconnectReason::DuplicateClientId;
            self.record.flaps.count(self.now, &self.rules.flapping);
            self.announce(events::disconnected(
                self.client,
                &session,
                reason,
                self.now,
            ));
            // MQTT 5.0, 3.1.4: the will goes out unless it is delayed and the session goes on.
            let will = session
                .will
                .take()
                .filter(|will| !resumed || will.delay == 0);
            if let Some(will) = will {
                self.release(epoch, will, self.now, 0);
            }
        }
        if !resumed {
            self.drop_session(&session);
        }
        was_up.then_some(epoch)
    }

    fn next_version_number(&mut self) -> u64 {
        let value = match self.record.version_number {
            Some(VersionNumber { value, until }) if until.is_none_or(|until| self.now < until) => {
                value.saturating_add(1)
            },
            Some(_) | None => 0,
        };
        self.record.version_number = Some(VersionNumber { value, until: None });
        value
    }

    /// A connection ended. Only the current one matters.
    pub(super) fn disconnect(&mut self, disconnect: Disconnect) {
        let Disconnect {
            epoch,
            reason,
            expiry,
            with_will,
        } = disconnect;
        let Some(session) = self.current(epoch) else {
            return;
        };
        if matches!(session.link, Link::Down { .. }) {
            return;
        }
        // An expiry that was zero cannot be raised (MQTT 5.0, 3.14.2.2.2).
        if let Some(expiry) = expiry.filter(|_| session.expiry > 0) {
            session.expiry = expiry;
        }
        let evidence = match reason {
            DisconnectReason::ClientInitiated => Evidence::Farewell,
            DisconnectReason::KeepAliveTimeout => Evidence::Silence,
            DisconnectReason::AuthError
            | DisconnectReason::ForbiddenAccess
            | DisconnectReason::ClientError
            | DisconnectReason::ConnectionLost
            | DisconnectReason::DuplicateClientId
            | DisconnectReason::ServerError
            | DisconnectReason::ServerInitiated
            | DisconnectReason::Throttled
            | DisconnectReason::WebsocketTtlExpired
            | DisconnectReason::CustomAuthTtlExpired
            | DisconnectReason::ApiInitiated { .. } => Evidence::ConnectionClosed,
        };
        self.record.last_seen = Some(self.now);
        self.presence(Presence::Offline, Reason::Disconnected(reason), evidence);
        self.end_connection(reason, self.now, with_will || reason.sends_will());
    }

    /// What follows from the end of a connection at `closed`: event, will, and the wait for the session's end.
    pub(super) fn end_connection(
        &mut self,
        reason: DisconnectReason,
        closed: Timestamp,
        sends_will: bool,
    ) {
        let Some(mut session) = self.record.session.take() else {
            return;
        };
        self.keep();
        session.link = Link::Down { since: closed };
        if reason.is_break() {
            self.record.flaps.count(self.now, &self.rules.flapping);
        }
        let expiry = Duration::from_secs(session.expiry.into());
        if let Some(number) = &mut self.record.version_number {
            number.until = Some(closed + self.rules.remember.max(expiry));
        }
        self.announce(events::disconnected(
            self.client,
            &session,
            reason,
            self.now,
        ));
        if let Some(will) = session.will.take().filter(|_| sends_will) {
            let wait = will.delay.min(session.expiry);
            self.release(session.epoch, will, closed, wait);
        }
        let is_over = session.expires_at().is_some_and(|at| at <= self.now);
        self.record.session = Some(session);
        if is_over {
            self.end_session();
        } else {
            self.await_session_end();
        }
    }

    /// Waits for the end of a session that is not connected.
    pub(super) fn await_session_end(&mut self) {
        let Some(session) = &self.record.session else {
            return;
        };
        if let (Link::Down { since }, Some(at)) = (session.link, session.expires_at()) {
            let epoch = session.epoch;
            self.schedule(
                since,
                at.since(since),
                Timer::SessionExpiry { epoch, since },
            );
        }
    }

    fn end_session(&mut self) {
        let Some(session) = self.record.session.take() else {
            return;
        };
        self.keep();
        // The end of the session does not wait for the will's delay (MQTT-3.1.2-8).
        self.send_will(session.epoch);
        self.drop_session(&session);
        self.await_forgetting();
    }

    /// The session's rows and subscriptions go.
    pub(super) fn drop_session(&mut self, session: &Session) {
        if session.durable {
            self.write(RecordWrite::DropSessionRows);
        }
        self.before_reply(Effect::EndSession {
            epoch: session.epoch,
        });
    }

    /// A session that waited is over.
    pub(super) fn session_expiry(&mut self, epoch: SessionEpoch, since: Timestamp) {
        let waits = Link::Down { since };
        if self
            .current(epoch)
            .is_some_and(|session| session.link == waits)
        {
            self.end_session();
        }
    }

    pub(super) fn current(&mut self, epoch: SessionEpoch) -> Option<&mut Session> {
        self.record
            .session
            .as_mut()
            .filter(|session| session.epoch == epoch)
    }

    /// Asks for a timer that is due `wait` after `began`. Never later than `wait` from now: wall time may have been
    /// set back, and the cluster may have slept through the wait.
    pub(super) fn schedule(&mut self, began: Timestamp, wait: Duration, what: Timer) {
        let after = (began + wait).since(self.now).min(wait);
        self.tell(Effect::Schedule { after, what });
    }
}
