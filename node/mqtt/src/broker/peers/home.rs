//! What gateways and homes of durable sessions say to each other.
//!
//! A *home* keeps what outlives a connection: the queue, the subscriptions, the identifiers of QoS 2 messages that were
//! received. A *gateway* has the connection. Everything here names the connection by its epoch: a home listens to the
//! highest one it has heard of.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::{Message, Qos},
};
use umbel_storage::nodes::Boot;

use crate::broker::{Broker, ticket::Outcome};

pub use crate::broker::outbound::Stage;

/// A connection of a client whose session has a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Whose.
    pub client: ClientId,
    /// Which of its connections.
    pub epoch: SessionEpoch,
}

/// A gateway asks to be the one the home pushes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// For which connection.
    pub speaker: Speaker,
    /// Names this attempt: what is pushed carries it. Rises with each attempt of a gateway.
    pub generation: u64,
    /// The life of the gateway that has the connection.
    pub boot: Boot,
    /// The session begins with this connection; what an older one left is gone.
    pub fresh: bool,
    /// Most unacknowledged messages the client takes.
    pub window: u16,
    /// What the gateway holds and the client has not acknowledged.
    pub unacknowledged: Vec<(u64, Stage)>,
    /// The highest sequence number that was pushed for this connection.
    pub highest: u64,
    /// Up to which sequence number an earlier connection may have been sent, if a home has said so.
    pub sent: Option<u64>,
}

/// What a gateway has to know of the session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Attached {
    /// Identifiers of QoS 2 messages that were received and not released.
    pub inbound: Vec<NonZeroU16>,
    /// How many subscriptions there are.
    pub subscriptions: usize,
}

/// A subscription that is asked for and may be given.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one the protocol has: MQTT 5.0, 3.8.3.1"
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// The filter's text.
    pub filter: String,
    /// Highest quality of service.
    pub qos: Qos,
    /// Not what the client published itself.
    pub no_local: bool,
    /// Keeps the publisher's retain flag.
    pub retain_as_published: bool,
    /// The client's identifier for it.
    pub id: Option<NonZeroU32>,
    /// Retained messages are due even if the subscription was there already.
    pub retained_if_known: bool,
    /// Retained messages are due if the subscription is new.
    pub retained_if_new: bool,
}

/// How far a window of a gateway got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub speaker: Speaker,
    /// Its attempt that was answered.
    pub generation: u64,
    /// Messages that came.
    pub received: u64,
    /// Messages that were acknowledged to the home.
    pub acked: u64,
}

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Push to me.
    Attach(Box<Attach>),
    /// PUBREC came for this message: let its row say so.
    Received(Speaker, u64),
    /// The effect of a QoS 2 message is done: remember its identifier.
    Remember(Speaker, NonZeroU16),
    /// PUBREL came: the identifier is free.
    Free(Speaker, NonZeroU16),
    /// The client subscribes.
    Subscribe(Speaker, Vec<Wanted>),
    /// The client unsubscribes.
    Unsubscribe(Speaker, Vec<String>),
    /// This is how far my windows are: which of them have to attach again?
    Hold(Vec<Held>),
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// From here on it is pushed to the gateway.
    Attached(Box<Attached>),
    /// This is how it ended.
    Settled(Settled),
    /// The subscriptions that found room, and how keeping them ended.
    Subscribed(Vec<bool>, Settled),
    /// Which subscriptions existed, and how forgetting them ended.
    Unsubscribed(Vec<bool>, Settled),
    /// The positions of the windows that have to attach again.
    Lost(Vec<u32>),
    /// This node is not the session's home, or not yet.
    NotHere,
    /// The connection is not attached: attach again.
    NotAttached,
    /// A newer connection speaks for the client.
    Stale,
    /// There are too many sessions here.
    Full,
}

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled {
    /// It is done, and durable.
    Done,
    /// Not done: a bound was reached.
    QuotaExceeded,
    /// Not done: larger than a log entry may be.
    TooLarge,
    /// Not done, or not known to be.
    Unavailable,
}

/// A message on its way to a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Place in the order of the session's QoS 1 and 2 messages; 0 for QoS 0.
    pub sequence: u64,
    /// The message.
    pub message: Arc<Message>,
    /// As the client gets it.
    pub qos: Qos,
    /// As the client gets it.
    pub retain: bool,
    /// Of all subscriptions that matched.
    pub subscription_ids: Vec<NonZeroU32>,
    /// The client has it: only PUBREL is left to send.
    pub released: bool,
}

/// Messages for a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Push {
    /// Which.
    pub speaker: Speaker,
    /// The attempt to attach that was answered.
    pub generation: u64,
    /// How many messages were pushed before these: a gap is seen.
    pub before: u64,
    /// Up to which sequence number an earlier connection may have been sent.
    pub sent: u64,
    /// In order.
    pub items: Vec<Item>,
}

/// Acknowledgements of one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acked {
    /// Whose.
    pub speaker: Speaker,
    /// The attempt to attach that was answered.
    pub generation: u64,
    /// Which messages.
    pub sequences: Vec<u64>,
}

/// A notice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Tell {
    /// Home to gateway: messages.
    Push(Box<Push>),
    /// Gateway to home: the client is done with these.
    Acked(Vec<Acked>),
    /// Gateway to home: the connection is gone. It was sent messages up to this number, if that is known.
    Detach(Speaker, Option<u64>),
    /// Home to gateway: this connection, or an older one, no longer speaks for the client.
    Ended(Speaker),
}

impl From<Outcome> for Settled {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done | Outcome::NoMatch => Self::Done,
            Outcome::QuotaExceeded => Self::QuotaExceeded,
            Outcome::TooLarge => Self::TooLarge,
            Outcome::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Settled> for Outcome {
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Done => Self::Done,
            Settled::QuotaExceeded => Self::QuotaExceeded,
            Settled::TooLarge => Self::TooLarge,
            Settled::Unavailable => Self::Unavailable,
        }
    }
}

/// See [`Broker::serve_ask`].
pub(super) fn serve_ask(
    broker: &Arc<Broker>,
    from: NodeId,
    ask: Ask,
) -> BoxFuture<'static, Result<Reply, String>> {
    let answer = broker.serve_home(from, ask);
    Box::pin(async move { Ok(answer.await) })
}

/// See [`Broker::serve_tell`].
pub(super) fn serve_tell(broker: &Arc<Broker>, from: NodeId, tell: Tell) {
    match tell {
        Tell::Push(push) => broker.pushed(from, *push),
        Tell::Acked(acked) => {
            for one in acked {
                broker.acked_from(&one);
            }
        },
        Tell::Detach(speaker, sent) => broker.detached(&speaker, sent),
        Tell::Ended(speaker) => broker.window_ended(&speaker),
    }
}
