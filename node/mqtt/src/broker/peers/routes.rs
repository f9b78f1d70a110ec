//! What nodes say to each other about messages and who wants them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use umbel_actors::ports::{BoxFuture, EvictReason};
use umbel_core::{
    ids::{ClientId, NodeId, SessionEpoch, ShardId, Term},
    message::Message,
};
use umbel_storage::Boot;

use crate::broker::Broker;

/// Whose sessions want something, as far as another node has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dest {
    /// Clean sessions of a node: they end with it.
    Node(NodeId),
    /// Durable sessions of a shard: whoever owns it has them.
    Shard(ShardId),
}

/// One word about what is wanted. Each may be said twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// From here on everything that is wanted is said anew.
    Open {
        /// By whom.
        dest: Dest,
        /// The term in which the shard is owned; nothing for a node.
        term: Term,
    },
    /// This is wanted.
    Put {
        /// By whom.
        dest: Dest,
        /// What, with the group of a shared subscription.
        filter: String,
        /// Whether a member of the shared group is connected.
        connected: bool,
    },
    /// This is not wanted any more.
    Remove {
        /// By whom.
        dest: Dest,
        /// What.
        filter: String,
    },
    /// That was everything: what was said before the last [`Item::Open`] is not wanted any more.
    Close {
        /// By whom.
        dest: Dest,
        /// As it was opened.
        term: Term,
    },
}

/// What a node's sessions want, in one stream of messages per listener. A listener that misses one asks for all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertisement {
    /// The speaker's life.
    pub boot: Boot,
    /// Which of its streams to this listener; each begins with everything.
    pub stream: u64,
    /// Counts the messages of a stream from 0. One at a time is on its way; it may come twice.
    pub sequence: u64,
    /// What is said.
    pub items: Vec<Item>,
}

/// Names a message of the node that asks, for as long as that node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The asking node's life.
    pub boot: Boot,
    /// Counts its messages.
    pub count: u64,
}

/// A message for sessions of the asked node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliver {
    /// Names it: who asks again does not deliver twice.
    pub id: MessageId,
    /// What.
    pub message: Arc<Message>,
    /// To clean sessions.
    pub clean: bool,
    /// To durable sessions of these shards.
    pub shards: Vec<ShardId>,
    /// To filters by which a device looks at its own topics.
    pub own: Own,
    /// A busy shard is waited for.
    pub is_patient: bool,
}

/// A message for one member of a shared group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// Names it: who asks again does not deliver twice.
    pub id: MessageId,
    /// What.
    pub message: Arc<Message>,
    /// The shared filter.
    pub filter: String,
    /// Among whose sessions.
    pub dest: Dest,
    /// A durable session takes it if its client is away.
    pub absent_too: bool,
    /// A busy shard is waited for.
    pub is_patient: bool,
}

/// Asks for retained messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageAsk {
    /// Whose topics match this.
    pub filter: String,
    /// Of topics in these shards.
    pub shards: Vec<ShardId>,
    /// Behind this topic.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Only what is committed.
    pub committed: bool,
}

/// Retained messages in the order of their topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedPage {
    /// The messages.
    pub messages: Vec<Message>,
    /// Where to go on, if there may be more.
    pub next: Option<String>,
    /// Shards that are not here: nothing was said of their topics.
    pub refused: Vec<ShardId>,
}

/// What became of a [`Pick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Picked {
    /// A member was picked.
    Taken(Delivered),
    /// There is no such member.
    Nobody,
}

/// Which of the device's own filters a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Own {
    /// None: the topic belongs to no device, or another node delivers to it.
    #[default]
    None,
    /// The asked node owns the device: wherever it is.
    Everywhere,
    /// Those of a clean session that is connected to the asked node.
    Here,
}

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Listen to what is wanted here.
    Advertise(Advertisement),
    /// Deliver a message.
    Deliver(Deliver),
    /// Deliver a message to a member of a shared group.
    Pick(Pick),
    /// Keep a retained message, or with an empty payload forget the one before.
    Retain {
        /// The message.
        message: Arc<Message>,
        /// A busy shard is waited for.
        is_patient: bool,
    },
    /// Which retained messages are there?
    RetainedPage(PageAsk),
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// It is committed for every durable session and in the queue of every other; nobody may have been there.
    Done {
        /// Somebody was.
        matched: bool,
    },
    /// Not delivered: a bound was reached.
    QuotaExceeded,
    /// Not delivered: it is larger than can be stored.
    TooLarge,
    /// Not, or not known to be, delivered to everybody.
    Unavailable,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Heard.
    Heard,
    /// Something was missed: say everything again.
    Missed,
    /// What became of the message for each part of those it was for.
    Delivered {
        /// Clean sessions.
        others: Delivered,
        /// The device to which the topic belongs.
        own: Delivered,
        /// Durable sessions, by shard.
        shards: Vec<(ShardId, Delivered)>,
    },
    /// What became of the message for a shared group.
    Picked(Picked),
    /// What became of a retained message.
    Kept(Delivered),
    /// Retained messages.
    RetainedPage(RetainedPage),
}

/// A notice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Tell {
    /// Deliver a message that nobody waits for.
    Deliver(Deliver),
    /// Deliver a message to a member of a shared group; nobody waits for it.
    Pick(Pick),
    /// A connection has to go.
    Evict {
        /// Whose.
        client: ClientId,
        /// The newest that has to go.
        epoch: SessionEpoch,
        /// Why.
        reason: Reason,
    },
}

/// Why a connection has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// A newer connection of the same client took over.
    TakenOver,
    /// An operator asked for it.
    Administrative,
    /// The client lost its right to be here.
    NotAuthorized,
}

impl From<EvictReason> for Reason {
    fn from(reason: EvictReason) -> Self {
        match reason {
            EvictReason::TakenOver => Self::TakenOver,
            EvictReason::Administrative => Self::Administrative,
            EvictReason::NotAuthorized => Self::NotAuthorized,
        }
    }
}

impl From<Reason> for EvictReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::TakenOver => Self::TakenOver,
            Reason::Administrative => Self::Administrative,
            Reason::NotAuthorized => Self::NotAuthorized,
        }
    }
}

/// See [`Broker::serve_ask`].
pub(super) fn serve_ask(
    broker: &Arc<Broker>,
    from: NodeId,
    ask: Ask,
) -> BoxFuture<'static, Result<Reply, String>> {
    match ask {
        Ask::Advertise(advertisement) => {
            let reply = broker.hear(from, &advertisement);
            Box::pin(std::future::ready(Ok(reply)))
        },
        Ask::Deliver(deliver) => broker.deliver_for(from, &deliver),
        Ask::Pick(pick) => broker.pick_for(from, pick),
        Ask::Retain {
            message,
            is_patient,
        } => broker.keep_for(&message, is_patient),
        Ask::RetainedPage(asked) => {
            let page = broker.retained_page(&asked);
            Box::pin(std::future::ready(Ok(Reply::RetainedPage(page))))
        },
    }
}

/// See [`Broker::serve_tell`].
pub(super) fn serve_tell(broker: &Arc<Broker>, from: NodeId, tell: Tell) {
    match tell {
        Tell::Deliver(deliver) => drop(broker.deliver_for(from, &deliver)),
        Tell::Pick(pick) => drop(broker.pick_for(from, pick)),
        Tell::Evict {
            client,
            epoch,
            reason,
        } => broker.evict_here(&client, epoch, reason.into()),
    }
}
