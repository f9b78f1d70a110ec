//! One connection's half of the protocol: windows, identifiers, aliases and the order of acknowledgements.
//!
//! A [`Session`] belongs to the task of its connection. [`Session::handle`] takes what the client says and never waits;
//! [`Session::poll_output`] says what the client is to be told: acknowledgements whose work is done, then messages.
//! What outlives the connection or is touched by others is in the broker's [`Mailbox`]; of two connections of one client
//! the one with the higher epoch may touch it.
//!
//! Deliberately absent: bytes, sockets, timers and keep-alive. The driver has those.

mod acknowledge;
mod alias;
mod deliver;
mod publish;
mod reply;
mod subscribe;

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use umbel_actors::ports::EvictReason;
use umbel_core::{
    device,
    ids::{ClientId, SessionEpoch},
    policy::Compiled,
    time::Tick,
};

use self::{alias::Aliases, reply::Reply};
use crate::{
    broker::{Broker, End, Eviction, Mailbox, Pulse, State, metrics},
    close::{Close, CloseCause},
    outgoing::{Outgoing, TooLarge},
    packet::{Ack, Disconnect, Packet},
    reason::{ProtocolVersion, ReasonCode},
};

/// See the module. A few hundred bytes when idle: rare parts are boxed, queues hold nothing while empty.
#[derive(Debug)]
pub struct Session {
    broker: Arc<Broker>,
    mailbox: Arc<Mailbox>,
    epoch: SessionEpoch,
    policy: Arc<Compiled>,
    pulse: Pulse,
    version: ProtocolVersion,
    /// Most unacknowledged QoS 1 and 2 messages the client takes.
    window: u16,
    /// QoS 1 and 2 messages of the client that have no last acknowledgement yet.
    unacknowledged: u16,
    /// Acknowledgements in the order they have to leave.
    replies: VecDeque<Reply>,
    aliases: Option<Box<Aliases>>,
    /// Highest alias the client takes.
    alias_max: u16,
    /// What the client asked for at CONNECT; a DISCONNECT may not prolong a session that had none.
    expiry: u32,
    farewell: Farewell,
    is_closed: bool,
}

/// What the end of the connection means for the session.
#[derive(Clone, Copy, Debug, Default)]
struct Farewell {
    /// The client's, or the operator's, last word on how long the session lives.
    expiry: Option<u32>,
    prevent_will: bool,
}

/// What a new session is made of.
pub(crate) struct Parts {
    pub(crate) broker: Arc<Broker>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) epoch: SessionEpoch,
    pub(crate) policy: Arc<Compiled>,
    pub(crate) pulse: Pulse,
    pub(crate) version: ProtocolVersion,
    pub(crate) window: u16,
    pub(crate) alias_max: u16,
    pub(crate) expiry: u32,
}

impl Session {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            broker: parts.broker,
            mailbox: parts.mailbox,
            epoch: parts.epoch,
            policy: parts.policy,
            pulse: parts.pulse,
            version: parts.version,
            window: parts.window,
            unacknowledged: 0,
            replies: VecDeque::new(),
            aliases: None,
            alias_max: parts.alias_max,
            expiry: parts.expiry,
            farewell: Farewell::default(),
            is_closed: false,
        }
    }

    /// Whose session.
    pub fn client(&self) -> &ClientId {
        self.mailbox.client()
    }

    /// Which of the client's connections.
    pub const fn epoch(&self) -> SessionEpoch {
        self.epoch
    }

    /// A sign of life that is no packet for [`Self::handle`].
    pub fn touch(&self, now: Tick) {
        self.pulse.touch(now);
    }

    /// False while so much waits to be acknowledged that no more should be read. [`Self::poll_output`] wakes when that
    /// changes.
    pub fn wants_input(&self) -> bool {
        self.replies.len() < usize::from(self.broker.config().receive_maximum.max(1)) * 2
    }

    /// Takes a packet of the client.
    pub fn handle(&mut self, packet: Packet, now: Tick, out: &mut Outgoing) -> Result<(), Close> {
        self.pulse.touch(now);
        self.check_current()?;
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, out),
            Packet::PubAck(ack) => self.on_puback(&ack),
            Packet::PubRec(ack) => self.on_pubrec(&ack, out),
            Packet::PubRel(ack) => self.on_pubrel(&ack, out),
            Packet::PubComp(ack) => self.on_pubcomp(&ack),
            Packet::Subscribe(subscribe) => self.on_subscribe(&subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(&unsubscribe, out),
            Packet::PingReq => {
                say(&Packet::PingResp, out);
                Ok(())
            },
            Packet::Disconnect(disconnect) => Err(self.on_disconnect(&disconnect)),
            // no extended authentication is offered, and the rest only a server says
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Auth(_) => Err(Close::protocol_error()),
        }
    }

    /// Says what the client is to be told. `Ready` when something was said or `out` is full: write it and ask again.
    /// `Pending` when there is nothing; the waker is kept.
    pub fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
        out: &mut Outgoing,
    ) -> Poll<Result<(), Close>> {
        let _ = now;
        let before = out.queued();
        let result = self
            .listen(cx)
            .and_then(|()| self.send_replies(cx, out))
            .and_then(|()| self.send_messages(out));
        match result {
            Err(close) => Poll::Ready(Err(close)),
            Ok(()) if out.is_full() || out.queued() > before => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
        }
    }

    /// Ends the connection: the session stays or goes, the fleet is told, the will is its business.
    pub async fn close(mut self, close: Close) {
        if let Some(goodbye) = self.leave(close) {
            goodbye.await;
        }
    }

    fn leave(&mut self, close: Close) -> Option<impl Future<Output = ()> + Send + 'static> {
        if std::mem::replace(&mut self.is_closed, true) {
            return None;
        }
        let is_current = self.broker.disconnect(&self.mailbox, self.epoch);
        if !is_current {
            return None; // the fleet knows: it opened the newer one, or ended the session
        }
        let client = self.mailbox.client().clone();
        // a node that stops among others sends its clients to them; and who was refused tries again, here or there: until
        // its grace is over it is not offline (G7)
        let is_sent_on = matches!(
            close.cause,
            CloseCause::ServerShutdown | CloseCause::Refused
        ) && !self.broker.is_alone();
        if close.cause == CloseCause::Moved || is_sent_on {
            return Some(self.broker.fleet_moved(client, self.epoch));
        }
        let reason = match (close.cause, self.farewell.prevent_will) {
            (CloseCause::Administrative, prevent_will) => {
                device::DisconnectReason::ApiInitiated { prevent_will }
            },
            _ => close.disconnect_reason(),
        };
        let is_willed = !matches!(
            close.cause,
            CloseCause::ClientDisconnect | CloseCause::Refused
        );
        let with_will = is_willed && !self.farewell.prevent_will;
        let end = End {
            reason,
            expiry: self.farewell.expiry,
            with_will,
        };
        Some(self.broker.fleet_disconnect(client, self.epoch, end))
    }

    /// Refuses to go on when another connection speaks for the client.
    fn check_current(&self) -> Result<(), Close> {
        if self.mailbox.epoch() == self.epoch {
            Ok(())
        } else {
            Err(taken_over())
        }
    }

    /// The shared part of the session.
    fn state(&self) -> Result<parking_lot::MutexGuard<'_, State>, Close> {
        self.mailbox.lock_as(self.epoch).ok_or_else(taken_over)
    }

    /// Leaves a waker with the mailbox, unless the connection has to go.
    fn listen(&mut self, cx: &Context<'_>) -> Result<(), Close> {
        let eviction = {
            let mut state = self.mailbox.lock();
            if self.mailbox.epoch() == self.epoch && state.eviction.is_none() && !state.ended {
                let is_known = state
                    .waker
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(cx.waker()));
                if !is_known {
                    state.waker = Some(cx.waker().clone());
                }
                return Ok(());
            }
            state
                .eviction
                .take_if(|_| self.mailbox.epoch() == self.epoch)
        };
        Err(eviction.map_or_else(taken_over, |eviction| self.on_eviction(eviction)))
    }

    fn on_eviction(&mut self, eviction: Eviction) -> Close {
        let Eviction::Asked {
            reason,
            prevent_will,
            end_session,
        } = eviction
        else {
            return Close::because(ReasonCode::UseAnotherServer, CloseCause::Moved);
        };
        self.farewell.prevent_will = prevent_will;
        if end_session {
            self.farewell.expiry = Some(0);
        }
        match reason {
            EvictReason::TakenOver => taken_over(),
            EvictReason::Administrative => {
                Close::because(ReasonCode::AdministrativeAction, CloseCause::Administrative)
            },
            EvictReason::NotAuthorized => {
                Close::because(ReasonCode::NotAuthorized, CloseCause::NotAuthorized)
            },
        }
    }

    fn on_disconnect(&mut self, disconnect: &Disconnect) -> Close {
        // MQTT-3.1.2-23: a session of the connection's length cannot be prolonged at its end
        if self.expiry == 0 && disconnect.session_expiry.is_some_and(|expiry| expiry > 0) {
            return Close::protocol_error();
        }
        let longest = self.broker.expiry_max();
        self.farewell.expiry = disconnect.session_expiry.map(|expiry| expiry.min(longest));
        let cause = if disconnect.reason == ReasonCode::NORMAL_DISCONNECTION {
            CloseCause::ClientDisconnect
        } else {
            CloseCause::ClientDisconnectWithWill
        };
        Close::silent(cause)
    }

    /// Where the client should go, if this node sends its clients away.
    pub(crate) fn server_reference(&self) -> Option<String> {
        self.broker.server_reference(self.client())
    }

    const fn speaks_v5(&self) -> bool {
        matches!(self.version, ProtocolVersion::V5)
    }
}

impl Drop for Session {
    /// A connection task that dies without a word still ends its connection.
    fn drop(&mut self) {
        let close = Close::silent(CloseCause::ConnectionLost);
        if let Some(goodbye) = self.leave(close)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(goodbye);
        }
    }
}

fn taken_over() -> Close {
    Close::because(ReasonCode::SessionTakenOver, CloseCause::TakenOver)
}

/// Says something the client has to be told, without the words beside it if it takes no packet that large
/// (MQTT-3.4.2-2). Only a maximum packet size of a few bytes can make even that impossible.
fn say(packet: &Packet, out: &mut Outgoing) {
    if out.push(packet).is_ok() {
        return;
    }
    let bare = if let Packet::PubAck(ack) = packet {
        out.push(&Packet::PubAck(Ack::new(ack.packet_id, ack.reason)))
    } else if let Packet::PubRec(ack) = packet {
        out.push(&Packet::PubRec(Ack::new(ack.packet_id, ack.reason)))
    } else {
        Err(TooLarge)
    };
    if bare.is_err() {
        metrics::dropped(metrics::Drop::TooLarge, 1);
    }
}
