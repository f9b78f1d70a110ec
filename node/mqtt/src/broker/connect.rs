//! Opening and ending connections. Of two connections of one client the higher epoch wins, whatever the order in which
//! their tasks get here.

use std::sync::Arc;

use rand::Rng;
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    device::{self, Kind, events},
    ids::{ClientId, SessionEpoch, ShardId},
    message::Message,
    topic::{aws::LifecycleEvent, check_name},
};

use super::{
    Broker,
    durable::Patience,
    fleet::{End, FleetError, Opened},
    mailbox::{Connection, Mailbox, Role},
    metrics::{self, Drop},
    window::{Link, NoHome},
};
use crate::{
    authenticate::Identity,
    close::{Close, CloseCause},
    packet::{ConnAck, Connect, Will},
    peer::Peer,
    reason::{ProtocolVersion, ReasonCode},
    session::{Parts, Session},
};

/// Characters of an assigned client id behind its prefix.
const ASSIGNED_CHARACTERS: usize = 20;

/// When a client may try again that came at a bad moment: an election is over by then, and most of a crowd.
const RETRY_SECONDS: std::ops::RangeInclusive<u32> = 2..=10;

/// What a client gets.
struct Terms {
    expiry: u32,
    keep_alive: u16,
}

impl Broker {
    /// An identifier for a client that sent none. Random enough to meet no other.
    pub fn assign_client_id() -> String {
        let letters = rand::rng()
            .sample_iter(rand::distr::Alphanumeric)
            .take(ASSIGNED_CHARACTERS);
        format!("auto.{}", letters.map(char::from).collect::<String>())
    }

    /// Opens a session for a client whose identity was established, or says why not.
    ///
    /// If the caller stops waiting, the session is opened and ended all the same: the fleet never waits for a client that
    /// is gone.
    pub async fn connect(
        self: &Arc<Self>,
        connect: Connect,
        identity: Identity,
        peer: Peer,
    ) -> Result<(Session, ConnAck), ConnAck> {
        if let Err(reason) = self.check(&connect, &identity) {
            if reason == ReasonCode::NotAuthorized {
                let Identity {
                    client,
                    kind,
                    principal,
                    ..
                } = &identity;
                self.announce_refusal(client, *kind, principal, &peer);
            }
            return Err(ConnAck::refused(reason));
        }
        let broker = Arc::clone(self);
        let opening = tokio::spawn(async move { broker.open(connect, identity, peer).await });
        let opened = opening.await.unwrap_or_else(|error| {
            tracing::error!(%error, "opening a session failed");
            Err(ReasonCode::UnspecifiedError)
        });
        opened.map_err(refusal)
    }

    /// Tells watchers that a client was refused for want of rights.
    pub fn announce_refusal(
        self: &Arc<Self>,
        client: &ClientId,
        kind: Kind,
        principal: &str,
        peer: &Peer,
    ) {
        let topic = LifecycleEvent::ConnectFailed.topic(client);
        if !topic.is_some_and(|topic| self.is_wanted(&topic)) {
            return;
        }
        let now = self.now();
        // no epoch was given: the time tells attempts apart
        let epoch = SessionEpoch(now.millis());
        let subject = events::Subject {
            client,
            kind,
            epoch,
            principal,
        };
        let address = peer.address.ip().to_string();
        if let Some(message) = events::connect_failed(subject, &address, now) {
            drop(self.route(message, Patience::Never));
        }
    }

    async fn open(
        self: Arc<Self>,
        connect: Connect,
        identity: Identity,
        peer: Peer,
    ) -> Result<(Session, ConnAck), ReasonCode> {
        let terms = self.terms(&connect);
        let client = identity.client.clone();
        let fleet = self.fleet.get().ok_or(ReasonCode::ServerUnavailable)?;
        let request = self.request(&connect, &identity, &peer, &terms);
        let opened = fleet
            .connect(client.clone(), request)
            .await
            .map_err(reason_of)?;
        let connection = Connection {
            kind: identity.kind,
            protocol: connect.version.level(),
            clean_start: connect.clean_start,
            expiry_seconds: terms.expiry,
            keep_alive_seconds: terms.keep_alive,
            address: peer.address,
            listener: peer.listener.clone(),
            principal: Arc::from(identity.principal.as_str()),
            since: self.now(),
        };
        let window = connect
            .receive_maximum
            .get()
            .min(self.config.inflight_max.max(1));
        let link = (terms.expiry > 0 || opened.session_present)
            .then(|| Box::new(Link::new(self.nodes.me(), !opened.session_present, window)));
        let is_durable = link.is_some();
        // a newer connection was quicker: the client may try again, the fleet knows already
        let mailbox = self
            .take_over(&client, &opened, link, connection)
            .ok_or(ReasonCode::ServerBusy)?;
        let answer = self.answer(&connect, &client, &terms, opened.session_present);
        let session = Session::new(Parts {
            broker: Arc::clone(&self),
            mailbox: Arc::clone(&mailbox),
            epoch: opened.epoch,
            policy: identity.policy,
            pulse: opened.pulse,
            version: connect.version,
            window,
            alias_max: connect
                .topic_alias_maximum
                .min(self.config.topic_alias_out_max),
            expiry: terms.expiry,
        });
        if is_durable && let Err(why) = self.attach_first(&mailbox, opened.epoch).await {
            // nobody was told that this connection was accepted: it ends without a word
            session.close(Close::silent(CloseCause::Refused)).await;
            return Err(match why {
                NoHome::Unavailable => ReasonCode::ServerUnavailable,
                NoHome::Stale => ReasonCode::ServerBusy,
                NoHome::Full => ReasonCode::QuotaExceeded,
            });
        }
        Ok((session, answer))
    }

    /// Everything that is judged before the fleet is asked, and before anybody is taken over (T11).
    fn check(&self, connect: &Connect, identity: &Identity) -> Result<(), ReasonCode> {
        let is_nameless = connect.client_id.is_empty();
        if is_nameless && connect.version < ProtocolVersion::V5 && !connect.clean_start {
            return Err(ReasonCode::ClientIdentifierNotValid); // MQTT-3.1.3-8
        }
        if connect.authentication_method.is_some() {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        if !identity.policy.may_connect(&identity.client) {
            metrics::refused("connect");
            return Err(ReasonCode::NotAuthorized);
        }
        if let Some(will) = &connect.will {
            self.check_will(will, identity)?;
        }
        match self.sessions.get(&identity.client) {
            None if self.is_full_for(&identity.client) => Err(ReasonCode::QuotaExceeded),
            Some(known)
                if known.is_connected()
                    && !self.take_overs.admit(&identity.client, self.clock.tick()) =>
            {
                metrics::refused("take_over");
                Err(ReasonCode::ConnectionRateExceeded)
            },
            None | Some(_) => Ok(()),
        }
    }

    /// Connections of this node, and sessions that wait here for theirs, are bounded. Who has a session here is not new.
    fn is_full_for(&self, client: &ClientId) -> bool {
        let most = self.config.sessions_max;
        self.sessions.len() >= most || self.homes.len() >= most && self.homes.get(client).is_none()
    }

    /// A will is a publish that happens later: what may not be published now may not be left behind (T10).
    fn check_will(&self, will: &Will, identity: &Identity) -> Result<(), ReasonCode> {
        if check_name(&will.topic, &self.config.topics).is_err() {
            return Err(ReasonCode::TopicNameInvalid);
        }
        let keeps_reserved = will.retain && will.topic.starts_with('$');
        if keeps_reserved || !identity.policy.may_publish(&will.topic, will.retain) {
            metrics::refused("will");
            return Err(ReasonCode::NotAuthorized);
        }
        if will.qos > self.config.maximum_qos {
            return Err(ReasonCode::QosNotSupported);
        }
        let says_utf8 = will
            .properties
            .as_ref()
            .is_some_and(|said| said.payload_is_utf8 == Some(true));
        if says_utf8 && std::str::from_utf8(&will.payload).is_err() {
            return Err(ReasonCode::PayloadFormatInvalid);
        }
        Ok(())
    }

    fn terms(&self, connect: &Connect) -> Terms {
        let longest = self.expiry_max();
        let expiry = match connect.version {
            ProtocolVersion::V5 => connect.session_expiry.unwrap_or(0).min(longest),
            ProtocolVersion::V31 | ProtocolVersion::V311 if connect.clean_start => 0,
            ProtocolVersion::V31 | ProtocolVersion::V311 => longest,
        };
        let keep_alive_max = u16::try_from(self.config.keep_alive_max.as_secs())
            .unwrap_or(u16::MAX)
            .max(1);
        let keep_alive = match connect.keep_alive {
            0 => keep_alive_max,
            seconds => seconds.min(keep_alive_max),
        };
        Terms { expiry, keep_alive }
    }

    /// Longest life of a session without a connection, in seconds.
    pub(crate) fn expiry_max(&self) -> u32 {
        u32::try_from(self.config.session_expiry_max.as_secs()).unwrap_or(u32::MAX)
    }

    fn request(
        &self,
        connect: &Connect,
        identity: &Identity,
        peer: &Peer,
        terms: &Terms,
    ) -> device::Connect {
        let will = connect.will.as_ref().map(|will| device::Will {
            message: Message {
                topic: will.topic.clone(),
                payload: will.payload.clone(),
                qos: will.qos,
                retain: will.retain,
                publisher: Some(identity.client.clone()),
                received_at: self.now(),
                expires_at: None,
                properties: will.properties.clone(),
            },
            delay: will.delay,
            expiry: will.message_expiry,
        });
        device::Connect {
            kind: identity.kind,
            protocol: connect.version.level(),
            clean_start: connect.clean_start,
            expiry: terms.expiry,
            keep_alive: terms.keep_alive,
            will,
            principal: identity.principal.clone(),
            ip: peer.address.ip().to_string(),
            listener: peer.listener.to_string(),
            gateway: self.nodes.me(),
            gateway_boot: self.nodes.boot().0,
        }
    }

    /// Makes the connection the one that speaks for the client on this node; `None` if a newer one does already. A session
    /// with a `link` has its home elsewhere, or in the other table.
    fn take_over(
        self: &Arc<Self>,
        client: &ClientId,
        opened: &Opened,
        link: Option<Box<Link>>,
        connection: Connection,
    ) -> Option<Arc<Mailbox>> {
        let epoch = opened.epoch;
        if !opened.session_present {
            // the fleet has ended it, and says so; if that comes late, nothing of it is met here
            self.end_home(client, SessionEpoch(epoch.0.saturating_sub(1)));
        }
        let mut place = self.sessions.lock(client);
        if let Some(known) = place.get(client) {
            let mut state = known.lock();
            if known.epoch() > epoch {
                return None;
            }
            if state.connection.is_some() {
                metrics::taken_over();
            }
            let goes_on = opened.session_present && known.is_window() && link.is_some();
            if goes_on && !state.ended {
                // its QoS 2 messages that are under way are the new connection's
                known.attach(&mut state, epoch, Box::new(connection));
                state.link = link;
                drop(state);
                return Some(Arc::clone(known));
            }
            drop(state);
            let known = Arc::clone(known);
            self.dispose(&known, Some(epoch));
        }
        let shard = ShardId::of(client.as_str(), self.ledger.shards());
        let role = if link.is_some() {
            Role::Window
        } else {
            Role::Clean
        };
        let mailbox = Arc::new(Mailbox::connected(client.clone(), shard, role, epoch));
        {
            let mut state = mailbox.lock();
            mailbox.attach(&mut state, epoch, Box::new(connection));
            state.link = link;
        }
        place.insert(Arc::clone(&mailbox));
        Some(mailbox)
    }

    fn answer(
        &self,
        connect: &Connect,
        client: &ClientId,
        terms: &Terms,
        session_present: bool,
    ) -> ConnAck {
        let is_nameless = connect.client_id.is_empty();
        let prefix = self.config.response_prefix.as_ref();
        ConnAck {
            session_expiry: (connect.session_expiry.unwrap_or(0) != terms.expiry
                && connect.version == ProtocolVersion::V5)
                .then_some(terms.expiry),
            receive_maximum: std::num::NonZeroU16::new(self.config.receive_maximum),
            maximum_qos: self.config.maximum_qos,
            maximum_packet_size: Some(self.config.packet_bytes_max),
            assigned_client_id: is_nameless.then(|| client.as_str().to_owned()),
            topic_alias_maximum: self.config.topic_alias_max,
            server_keep_alive: (connect.keep_alive != terms.keep_alive).then_some(terms.keep_alive),
            response_information: prefix
                .filter(|_| connect.request_response_information)
                .map(|prefix| format!("{prefix}/{client}")),
            ..ConnAck::accepted(session_present)
        }
    }

    /// The connection of this epoch is gone. False if another speaks for the client by now: nobody need be told.
    pub(crate) fn disconnect(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
    ) -> bool {
        let mut place = self.sessions.lock(mailbox.client());
        let Some(mut left) = mailbox.detach(epoch) else {
            return false;
        };
        metrics::dropped(Drop::ConnectionEnded, left.lost);
        let is_mine = place
            .get(mailbox.client())
            .is_some_and(|known| Arc::ptr_eq(known, mailbox));
        if is_mine {
            place.remove(mailbox.client());
        }
        self.dispose(mailbox, None);
        drop(place);
        self.close_link(mailbox, epoch, &mut left);
        true
    }

    /// Tells the fleet that a connection ended.
    pub(crate) fn fleet_disconnect(
        &self,
        client: ClientId,
        epoch: SessionEpoch,
        end: End,
    ) -> BoxFuture<'static, ()> {
        match self.fleet.get() {
            Some(fleet) => fleet.disconnect(client, epoch, end),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// Tells the fleet that a connection was sent away and its client will come back.
    pub(crate) fn fleet_moved(
        &self,
        client: ClientId,
        epoch: SessionEpoch,
    ) -> BoxFuture<'static, ()> {
        match self.fleet.get() {
            Some(fleet) => fleet.moved(client, epoch),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// The session of this epoch, or an older one, is over.
    pub(crate) fn end(self: &Arc<Self>, client: &ClientId, epoch: SessionEpoch) {
        self.end_home(client, epoch);
        let mut place = self.sessions.lock(client);
        if place
            .get(client)
            .is_some_and(|mailbox| mailbox.epoch() <= epoch)
            && let Some(mailbox) = place.remove(client)
        {
            self.dispose(&mailbox, None);
        }
    }

    /// See [`Self::end`]: the lasting part of it, if that is here.
    pub(crate) fn end_home(self: &Arc<Self>, client: &ClientId, epoch: SessionEpoch) {
        if self.homes.get(client).is_none() {
            return; // most clients have none
        }
        let mut place = self.homes.lock(client);
        if place.get(client).is_some_and(|home| home.epoch() <= epoch)
            && let Some(home) = place.remove(client)
        {
            self.dispose(&home, None);
        }
    }

    /// Forgets a part of a session. The caller holds its place in the table, so nothing of a newer session is hit.
    pub(crate) fn dispose(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        superseded_by: Option<SessionEpoch>,
    ) {
        let next = mailbox.lock().next_sequence();
        let subscriptions = mailbox.end(superseded_by);
        self.leave_all(&subscriptions, mailbox);
        if mailbox.is_home() {
            self.homes.raise_floor(mailbox.shard(), next);
            self.purge(mailbox);
        }
    }
}

/// What a client is told that gets no session. Who may try again is told when, each another time: MQTT has a code for
/// "busy", but no field for how long.
fn refusal(reason: ReasonCode) -> ConnAck {
    let mut answer = ConnAck::refused(reason);
    if matches!(
        reason,
        ReasonCode::ServerBusy | ReasonCode::ServerUnavailable
    ) {
        let seconds = rand::rng().random_range(RETRY_SECONDS);
        answer.reason_string = Some(format!("try again in {seconds} s"));
    }
    answer
}

const fn reason_of(error: FleetError) -> ReasonCode {
    match error {
        FleetError::NotListed => ReasonCode::NotAuthorized,
        FleetError::Busy => ReasonCode::ServerBusy,
        FleetError::Rejected | FleetError::Unavailable => ReasonCode::ServerUnavailable,
    }
}
