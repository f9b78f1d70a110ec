//! Subscriptions: in memory at once, in storage before the client is told.

use std::{mem, sync::Arc};

use umbel_core::{
    device::events,
    ids::SessionEpoch,
    topic::{Filter, aws::LifecycleEvent},
};
use umbel_storage::{Table, Write};

use super::{
    Broker,
    durable::Patience,
    mailbox::{Mailbox, Options, State},
    rows,
    ticket::{Outcome, Pending},
    window::Verdicts,
};

/// A subscription that was asked for and may be given.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) filter: Filter,
    pub(crate) options: Options,
    /// Retained messages are due even if the subscription was there already (retain handling 0).
    pub(crate) retained_if_known: bool,
    /// Retained messages are due if the subscription is new (retain handling 0 and 1).
    pub(crate) retained_if_new: bool,
}

impl Broker {
    /// Adds subscriptions; done when they are kept as long as the session is. `None`: another connection speaks for the
    /// client. What cannot be kept is taken back. A home says which of them found room.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        asked: &[Asked],
    ) -> Option<(Option<Verdicts>, Pending)> {
        if asked.is_empty() {
            return Some((None, Pending::Ready(Outcome::Done)));
        }
        let (verdicts, kept) = if mailbox.is_window() {
            drop(mailbox.lock_as(epoch)?);
            let (verdicts, kept) = self.ask_subscribe(mailbox, epoch, asked);
            (Some(verdicts), kept)
        } else {
            // the session has judged whether there is room
            let (_, kept) = self.keep(mailbox, epoch, asked)?;
            (None, kept)
        };
        let (broker, mailbox) = (Arc::clone(self), Arc::clone(mailbox));
        let filters: Vec<_> = asked.iter().map(|one| one.filter.clone()).collect();
        let granted = verdicts.clone();
        let kept = kept.then(move |outcome| {
            if outcome.is_done() {
                let granted = granted.as_ref().and_then(|granted| granted.get());
                broker.announce(
                    &mailbox,
                    &filters,
                    granted.map(Vec::as_slice),
                    LifecycleEvent::Subscribed,
                );
            }
            outcome
        });
        Some((verdicts, kept))
    }

    /// The subscriptions themselves, where the session's lasting part is. Says which found room.
    pub(crate) fn keep(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        asked: &[Asked],
    ) -> Option<(Vec<bool>, Pending)> {
        let mut granted = Vec::with_capacity(asked.len());
        let mut replaced = Vec::with_capacity(asked.len());
        let mut owed = Vec::new();
        let mut known = Pending::Ready(Outcome::Done);
        let kept = {
            let mut state = mailbox.lock_as(epoch)?;
            let mut writes = Vec::new();
            for one in asked {
                let has_room = state.subscriptions.len() < self.config.subscriptions_max
                    || state.is_subscribed(&one.filter);
                granted.push(has_room);
                if !has_room {
                    continue;
                }
                let before = state.subscribe(&one.filter, one.options);
                // under the mailbox's lock: a session that ends now takes this entry with it
                known = known.and(self.join(&one.filter, mailbox, one.options));
                if one.retained_if_known || before.is_none() && one.retained_if_new {
                    owed.push((one.filter.clone(), one.options));
                }
                if mailbox.is_home() {
                    let key = rows::subscription_key(mailbox.client(), one.filter.as_str());
                    let row = rows::encode_subscription(one.options);
                    writes.push(Write::put(Table::Subscription, key, row));
                }
                replaced.push((one.filter.clone(), before));
            }
            if known.known().is_some() {
                state.owe(mem::take(&mut owed));
            }
            // proposed under the lock: the deletions of a session that ends now come behind these rows
            if writes.is_empty() {
                Pending::Ready(Outcome::Done)
            } else {
                self.write(mailbox, writes)
            }
        };
        // what is retained is read when every node sends what comes from then on: a message that is kept behind the reading
        // and routed by a node that has not heard of the filter would come in neither way
        let known = if owed.is_empty() {
            known
        } else {
            let (broker, mailbox) = (Arc::clone(self), Arc::clone(mailbox));
            known.then(move |outcome| {
                mailbox.lock().owe(owed);
                broker.look_again(&mailbox);
                outcome
            })
        };
        let (broker, mailbox) = (Arc::clone(self), Arc::clone(mailbox));
        let kept = kept.then(move |outcome| {
            if !outcome.is_done() {
                broker.take_back(&mailbox, replaced);
            }
            outcome
        });
        Some((granted, kept.and(known)))
    }

    /// Removes subscriptions; done when a restart will not bring them back. `None`: another connection speaks for the
    /// client. The verdicts say which existed.
    pub(crate) fn unsubscribe(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        filters: &[Filter],
    ) -> Option<(Verdicts, Pending)> {
        let (verdicts, forgotten) = if mailbox.is_window() {
            drop(mailbox.lock_as(epoch)?);
            self.ask_unsubscribe(mailbox, epoch, filters)
        } else {
            let filters: Vec<_> = filters.iter().cloned().map(Some).collect();
            let (existed, forgotten) = self.forget(mailbox, epoch, &filters)?;
            (Arc::new(std::sync::OnceLock::from(existed)), forgotten)
        };
        let (broker, mailbox) = (Arc::clone(self), Arc::clone(mailbox));
        let filters = filters.to_vec();
        let existed = Arc::clone(&verdicts);
        let forgotten = forgotten.then(move |outcome| {
            if outcome.is_done() {
                let existed = existed.get().map(Vec::as_slice);
                broker.announce(&mailbox, &filters, existed, LifecycleEvent::Unsubscribed);
            }
            outcome
        });
        Some((verdicts, forgotten))
    }

    /// The other way round of [`Self::keep`]. Says which existed.
    pub(crate) fn forget(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        filters: &[Option<Filter>],
    ) -> Option<(Vec<bool>, Pending)> {
        let mut existed = Vec::with_capacity(filters.len());
        let mut removed = Vec::new();
        let forgotten = {
            let mut state = mailbox.lock_as(epoch)?;
            for filter in filters {
                let before = filter.as_ref().and_then(|filter| state.unsubscribe(filter));
                existed.push(before.is_some());
                if let (Some(filter), Some(options)) = (filter, before) {
                    self.leave(filter, mailbox);
                    removed.push((filter.clone(), Some(options)));
                }
            }
            // under the lock: these deletions do not come behind a row of the client's next session
            if !mailbox.is_home() || removed.is_empty() {
                Pending::Ready(Outcome::Done)
            } else {
                let writes = removed.iter().map(|(filter, _)| {
                    let key = rows::subscription_key(mailbox.client(), filter.as_str());
                    Write::delete(Table::Subscription, key)
                });
                self.write(mailbox, writes.collect())
            }
        };
        let (broker, mailbox) = (Arc::clone(self), Arc::clone(mailbox));
        let forgotten = forgotten.then(move |outcome| {
            if !outcome.is_done() {
                broker.take_back(&mailbox, removed);
            }
            outcome
        });
        Some((existed, forgotten))
    }

    /// Storage refused a change: each filter is again what it was.
    fn take_back(&self, mailbox: &Arc<Mailbox>, before: Vec<(Filter, Option<Options>)>) {
        let mut state = mailbox.lock();
        if state.ended {
            return;
        }
        for (filter, options) in before {
            if let Some(options) = options {
                state.subscribe(&filter, options);
                drop(self.join(&filter, mailbox, options));
            } else {
                state.unsubscribe(&filter);
                self.leave(&filter, mailbox);
            }
        }
    }

    /// Tells watchers what a client subscribed to or no longer does, if any watch.
    fn announce(
        self: &Arc<Self>,
        mailbox: &Mailbox,
        filters: &[Filter],
        verdicts: Option<&[bool]>,
        event: LifecycleEvent,
    ) {
        if !self.config.subscription_events {
            return;
        }
        let is_so = |index: usize| verdicts.is_none_or(|each| each.get(index) == Some(&true));
        let filters: Vec<_> = filters
            .iter()
            .enumerate()
            .filter(|(index, _)| is_so(*index))
            .map(|(_, filter)| filter.as_str())
            .collect();
        let is_watched = !filters.is_empty()
            && event
                .topic(mailbox.client())
                .is_some_and(|topic| self.is_wanted(&topic));
        let connection = mailbox.lock().connection.clone().filter(|_| is_watched);
        let Some(connection) = connection else { return };
        let subject = events::Subject {
            client: mailbox.client(),
            kind: connection.kind,
            epoch: mailbox.epoch(),
            principal: &connection.principal,
        };
        let message = if event == LifecycleEvent::Subscribed {
            events::subscribed(subject, &filters, self.now())
        } else {
            events::unsubscribed(subject, &filters, self.now())
        };
        if let Some(message) = message {
            drop(self.route(message, Patience::Never));
        }
    }
}

impl State {
    /// Whether there is a subscription to this filter.
    pub(crate) fn is_subscribed(&self, filter: &Filter) -> bool {
        self.subscriptions
            .binary_search_by(|(known, _)| known.cmp(filter))
            .is_ok()
    }

    /// Keeps a subscription; gives back what it replaced.
    pub(crate) fn subscribe(&mut self, filter: &Filter, options: Options) -> Option<Options> {
        match self
            .subscriptions
            .binary_search_by(|(known, _)| known.cmp(filter))
        {
            Ok(index) => {
                let (_, known) = self.subscriptions.get_mut(index)?;
                Some(mem::replace(known, options))
            },
            Err(index) => {
                self.subscriptions.reserve_exact(1);
                self.subscriptions.insert(index, (filter.clone(), options));
                None
            },
        }
    }

    /// Retained messages of these subscriptions are due, unless they are gone or others by now.
    fn owe(&mut self, owed: Vec<(Filter, Options)>) {
        if self.ended {
            return;
        }
        for (filter, options) in owed {
            let known = self
                .subscriptions
                .binary_search_by(|(known, _)| known.cmp(&filter));
            let known = known.ok().and_then(|index| self.subscriptions.get(index));
            if known.is_some_and(|(_, known)| *known == options) {
                let backfill = self.backfill.get_or_insert_default();
                backfill.add(filter, options);
            }
        }
    }

    /// Forgets a subscription and the retained messages still owed to it.
    pub(crate) fn unsubscribe(&mut self, filter: &Filter) -> Option<Options> {
        if let Some(backfill) = &mut self.backfill {
            backfill.remove(filter);
        }
        let index = self
            .subscriptions
            .binary_search_by(|(known, _)| known.cmp(filter))
            .ok()?;
        let (_, options) = self.subscriptions.remove(index);
        Some(options)
    }
}
