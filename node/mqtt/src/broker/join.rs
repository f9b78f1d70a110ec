//! Subscriptions on their way into the router.

use std::sync::Arc;

use umbel_core::{
    ids::{ShardId, Term},
    topic::Filter,
};

use super::{
    Broker,
    mailbox::{Mailbox, Options},
    ticket::{Outcome, Pending},
};

impl Broker {
    /// A session gets what matches the filter from here on; done when every node knows.
    pub(crate) fn join(&self, filter: &Filter, mailbox: &Arc<Mailbox>, options: Options) -> Pending {
        self.router.insert(filter, mailbox, options);
        Pending::Ready(Outcome::Done)
    }

    /// And no longer.
    pub(crate) fn leave(&self, filter: &Filter, mailbox: &Arc<Mailbox>) {
        self.router.remove(filter, mailbox.client());
    }

    /// See [`Self::leave`].
    pub(crate) fn leave_all(&self, subscriptions: &[(Filter, Options)], mailbox: &Arc<Mailbox>) {
        for (filter, _) in subscriptions {
            self.leave(filter, mailbox);
        }
    }

    /// The homes of a shard are here.
    pub(crate) fn shard_ready(&self, shard: ShardId, term: Term) {
        let _ = (shard, term);
    }

    /// And no longer.
    pub(crate) fn shard_lost(&self, shard: ShardId) {
        let _ = shard;
    }
}
