//! Sessions and what they want: the router of this node knows it at once, the other nodes soon after.

use std::sync::Arc;

use umbel_core::topic::Filter;

use super::{
    Broker,
    mailbox::{Mailbox, Options},
    ticket::Pending,
};

impl Broker {
    /// A session wants this from now on, or in another way than before. Done when every connected node knows, or soon
    /// after without: what is published on another node from then on gets here. May be called under the mailbox's lock.
    pub(crate) fn join(
        &self,
        filter: &Filter,
        mailbox: &Arc<Mailbox>,
        options: Options,
    ) -> Pending {
        let is_new = self.router.insert(filter, mailbox, options);
        let known = self.advertise(filter, mailbox, is_new);
        self.refresh_group(filter, mailbox);
        known
    }

    /// A session does not want this any more.
    pub(crate) fn leave(&self, filter: &Filter, mailbox: &Arc<Mailbox>) {
        if self.router.remove(filter, mailbox.client()) {
            self.withdraw(filter, mailbox);
            self.refresh_group(filter, mailbox);
        }
    }

    /// A session is over.
    pub(crate) fn leave_all(&self, subscriptions: &[(Filter, Options)], mailbox: &Arc<Mailbox>) {
        for (filter, _) in subscriptions {
            self.leave(filter, mailbox);
        }
    }

    /// A durable session is connected now, or is not any more: other nodes prefer members of shared groups that are. Not
    /// under the mailbox's lock.
    pub(crate) fn groups_changed(&self, mailbox: &Arc<Mailbox>) {
        if self.routes.is_none() {
            return;
        }
        let shared: Vec<_> = {
            let state = mailbox.lock();
            let filters = state.subscriptions.iter().map(|(filter, _)| filter);
            filters
                .filter(|filter| filter.group().is_some())
                .cloned()
                .collect()
        };
        for filter in &shared {
            self.refresh_group(filter, mailbox);
        }
    }
}
