//! What operators and the HTTP edge see and do.

use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use umbel_actors::ports::EvictReason;
use umbel_core::{
    ids::{ClientId, SessionEpoch},
    message::{Message, Qos},
    time::Timestamp,
    topic::{TopicError, check_name},
};

use super::{
    Broker,
    mailbox::{Eviction, Mailbox},
    metrics::{self, Totals},
    ticket::Outcome,
};

/// Most entries of a page.
const PAGE_MAX: usize = 1_000;

/// A client's session, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientView {
    /// Whose.
    pub client: ClientId,
    /// The connection; `None` for a session that waits for its client.
    pub connection: Option<ConnectionView>,
    /// Whether the session outlives its connection.
    pub is_persistent: bool,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Messages sent and not acknowledged.
    pub inflight: usize,
    /// Messages waiting.
    pub queued: u64,
}

/// A connection, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Which of the client's connections.
    pub epoch: SessionEpoch,
    /// MQTT protocol level: 3, 4 or 5.
    pub protocol: u8,
    /// Whether it asked to forget an older session.
    pub clean_start: bool,
    /// Seconds the session outlives it.
    pub expiry_seconds: u32,
    /// Seconds.
    pub keep_alive_seconds: u16,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Where it came in.
    pub listener: String,
    /// Who it proved to be.
    pub principal: String,
    /// Since when.
    pub since: Timestamp,
}

/// A subscription, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionView {
    /// The filter's text.
    pub filter: String,
    /// Highest quality of service.
    pub qos: Qos,
    /// Not what the client published itself.
    pub no_local: bool,
    /// Keeps the publisher's retain flag.
    pub retain_as_published: bool,
}

/// How a client is thrown out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    /// Its session ends too.
    pub clean_session: bool,
    /// Its will is not published.
    pub prevent_will: bool,
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishRefused {
    /// The topic is not one messages are published to.
    #[error("the topic is not valid: {0}")]
    Topic(TopicError),
    /// Reserved topics keep no messages.
    #[error("the topic keeps no retained messages")]
    Retain,
    /// A bound was reached: try again later.
    #[error("a quota is used up")]
    QuotaExceeded,
    /// Larger than can be stored.
    #[error("the message is too large")]
    TooLarge,
    /// It was not, or is not known to be, stored everywhere it should be.
    #[error("the message could not be stored")]
    Unavailable,
}

impl Broker {
    /// Sessions after a client id, in the order of their ids.
    pub fn clients(&self, after: Option<&ClientId>, limit: usize) -> Vec<ClientView> {
        // of two parts of one session the connected one is shown, with what its home knows
        let limit = limit.min(PAGE_MAX);
        let mut page = self.sessions.page(after, limit);
        page.append(&mut self.homes.page(after, limit));
        page.sort_by(|one, other| one.client().cmp(other.client()));
        page.dedup_by(|other, one| other.client() == one.client());
        page.truncate(limit);
        page.iter().map(|mailbox| self.view(mailbox)).collect()
    }

    /// One client's session.
    pub fn client(&self, client: &ClientId) -> Option<ClientView> {
        let mailbox = self
            .sessions
            .get(client)
            .or_else(|| self.homes.get(client))?;
        Some(self.view(&mailbox))
    }

    /// One client's subscriptions, in the order of their filters.
    pub fn subscriptions(&self, client: &ClientId) -> Option<Vec<SubscriptionView>> {
        let mailbox = self
            .homes
            .get(client)
            .or_else(|| self.sessions.get(client))?;
        let state = mailbox.lock();
        let views = state
            .subscriptions
            .iter()
            .map(|(filter, options)| SubscriptionView {
                filter: filter.as_str().to_owned(),
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
            });
        Some(views.collect())
    }

    /// Throws a client out. False if it is not connected.
    pub fn kick(&self, client: &ClientId, kick: Kick) -> bool {
        let Some(mailbox) = self.sessions.get(client) else {
            return false;
        };
        let eviction = Eviction::Asked {
            reason: EvictReason::Administrative,
            prevent_will: kick.prevent_will,
            end_session: kick.clean_session,
        };
        mailbox.evict(mailbox.epoch(), eviction)
    }

    /// Publishes for a caller whose rights were judged: as if a client had, requests to shadows included. The message's
    /// `publisher` names whom a shadow request is from.
    pub async fn publish_external(
        self: &Arc<Self>,
        message: Message,
    ) -> Result<(), PublishRefused> {
        check_name(&message.topic, &self.config.topics).map_err(PublishRefused::Topic)?;
        if message.retain && message.topic.starts_with('$') {
            return Err(PublishRefused::Retain);
        }
        match self.accept(message).outcome().await {
            Outcome::Done | Outcome::NoMatch => Ok(()),
            Outcome::QuotaExceeded => Err(PublishRefused::QuotaExceeded),
            Outcome::TooLarge => Err(PublishRefused::TooLarge),
            Outcome::Unavailable => Err(PublishRefused::Unavailable),
        }
    }

    /// Sums over all sessions. Looks at each: for a scrape, not for a request.
    pub fn totals(&self) -> Totals {
        let (retained, retained_bytes) = self.retained.totals();
        let mut totals = Totals {
            subscriptions: self.router.len(),
            retained,
            retained_bytes,
            ..Totals::default()
        };
        // a window repeats what its home has in flight
        self.sessions.for_each(|mailbox| {
            totals.connected += 1;
            if !mailbox.is_window() {
                let (inflight, queued) = mailbox.lock().backlog();
                totals.inflight += inflight;
                totals.queued += queued;
            }
        });
        self.homes.for_each(|home| {
            let (inflight, queued) = home.lock().backlog();
            totals.inflight += inflight;
            totals.queued += queued;
            totals.offline += usize::from(!home.is_connected());
        });
        totals
    }

    /// Sets the gauges to the sums of now.
    pub fn record_metrics(&self) {
        metrics::record(&self.totals());
        self.record_routes();
    }

    fn view(&self, mailbox: &Mailbox) -> ClientView {
        let home = (!mailbox.is_home())
            .then(|| self.homes.get(mailbox.client()))
            .flatten();
        let lasting = home.as_deref().unwrap_or(mailbox);
        let (subscriptions, (inflight, queued)) = {
            let state = lasting.lock();
            (state.subscriptions.len(), state.backlog())
        };
        let state = mailbox.lock();
        let epoch = mailbox.epoch();
        let connection = state.connection.as_ref().map(|connection| ConnectionView {
            epoch,
            protocol: connection.protocol,
            clean_start: connection.clean_start,
            expiry_seconds: connection.expiry_seconds,
            keep_alive_seconds: connection.keep_alive_seconds,
            address: connection.address,
            listener: connection.listener.to_string(),
            principal: connection.principal.to_string(),
            since: connection.since,
        });
        ClientView {
            client: mailbox.client().clone(),
            connection,
            is_persistent: mailbox.is_home() || mailbox.is_window(),
            subscriptions,
            inflight,
            queued,
        }
    }
}
