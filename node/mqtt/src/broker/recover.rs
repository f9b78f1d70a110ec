//! What a restart finds: sessions that outlived it, what waits for them, and the retained messages.

use std::{collections::BTreeMap, sync::Arc};

use umbel_core::{
    ids::{ClientId, SessionEpoch, ShardId, Term},
    topic::Filter,
};
use umbel_storage::{Pairs, ReadError, Table};

use super::{
    Broker,
    delivery::{Delivery, cost},
    mailbox::{Inbound, Mailbox},
    outbound::Outbound,
    rows,
};

/// Rows read at a time.
const PAGE: usize = 1_000;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Persistent sessions.
    pub sessions: usize,
    /// Their subscriptions.
    pub subscriptions: usize,
    /// Messages that wait in them.
    pub queued: usize,
    /// Retained messages.
    pub retained: usize,
    /// Rows that do not decode, and tables that cannot be read.
    pub unreadable: usize,
}

/// What the queues of a shard hold.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    rows: BTreeMap<ClientId, Vec<(u64, usize)>>,
    unreadable: usize,
    /// The table could be read to its end.
    pub(crate) is_whole: bool,
    /// Of the home before; see [`super::home`].
    pub(crate) generation: u64,
    /// The highest sequence number.
    pub(crate) highest: u64,
}

impl Broker {
    /// Reads what storage holds. Once, before the first connection; it blocks on the disk. A shard that cannot be read is
    /// left out and said so: it is quarantined, its neighbours are served.
    ///
    /// For a node that is alone; in a cluster, shards come and go, and [`Self::start`] follows them.
    pub fn recover(self: &Arc<Self>) -> Recovered {
        let mut found = Recovered::default();
        for shard in (0..self.ledger.shards()).map(ShardId) {
            let queues = self.read_queues(shard);
            self.recover_shard(shard, Term::default(), queues, &mut found);
        }
        found.sessions = self.homes.len();
        tracing::info!(
            sessions = found.sessions,
            subscriptions = found.subscriptions,
            queued = found.queued,
            retained = found.retained,
            unreadable = found.unreadable,
            "sessions and retained messages recovered"
        );
        found
    }

    /// Ends recovered sessions that the fleet does not know, and says how many. A row that was on its way when its
    /// session ended may come to rest behind the deletions of that end; a crash then leaves a session that nobody owns,
    /// nothing expires, and messages gather in. `is_known` answers `None` when it cannot be known now.
    ///
    /// Once, between the fleet's recovery and the first connection.
    pub fn end_orphans(self: &Arc<Self>, is_known: impl Fn(&ClientId) -> Option<bool>) -> usize {
        let mut recovered = Vec::new();
        self.homes
            .for_each(|mailbox| recovered.push(mailbox.client().clone()));
        recovered.retain(|client| is_known(client) == Some(false));
        for client in &recovered {
            self.end_home(client, SessionEpoch::default());
        }
        if !recovered.is_empty() {
            tracing::warn!(
                sessions = recovered.len(),
                "rows of sessions that are over removed"
            );
        }
        recovered.len()
    }

    /// Takes up what one shard holds, the queues of which were read.
    pub(crate) fn recover_shard(
        self: &Arc<Self>,
        shard: ShardId,
        term: Term,
        queues: Queues,
        found: &mut Recovered,
    ) {
        found.unreadable += queues.unreadable;
        let floor = self.homes.floor(shard);
        let window = usize::from(self.config.inflight_max);
        for (client, queue) in queues.rows {
            found.queued += queue.len();
            self.recovered(&client, shard, term)
                .lock()
                .restore(Outbound::recovered(&queue, window, floor));
        }
        self.recover_inbound(shard, term, found);
        // last: from here on messages come
        self.recover_subscriptions(shard, term, found);
        self.recover_retained(shard, found);
    }

    fn recover_subscriptions(self: &Arc<Self>, shard: ShardId, term: Term, found: &mut Recovered) {
        let mut subscriptions = 0;
        self.each_row(
            shard,
            Table::Subscription,
            &mut found.unreadable,
            |key, value| {
                let Some((client, rest)) = rows::split(key) else {
                    return false;
                };
                let filter = std::str::from_utf8(rest).ok().and_then(|text| {
                    Filter::parse(text, &umbel_core::topic::Limits::default()).ok()
                });
                let (Some(filter), Ok(options)) = (filter, rows::decode_subscription(value)) else {
                    return false;
                };
                let home = self.recovered(&client, shard, term);
                home.lock().subscribe(&filter, options);
                drop(self.join(&filter, &home, options));
                subscriptions += 1;
                true
            },
        );
        found.subscriptions += subscriptions;
    }

    /// The queues of a shard, by the numbers and sizes of their rows.
    pub(crate) fn read_queues(&self, shard: ShardId) -> Queues {
        let mut queues = Queues::default();
        let (mut rows, mut generation, mut highest) = (BTreeMap::new(), 0, 0);
        let generation_key = rows::generation_key();
        let unreadable = &mut queues.unreadable;
        let is_whole = self.each_row(shard, Table::Queue, unreadable, |key, value| {
            if key == generation_key {
                generation = rows::decode_generation(value).unwrap_or_default();
                return generation > 0;
            }
            let place =
                rows::split(key).and_then(|(client, rest)| Some((client, rows::sequence(rest)?)));
            let Some((client, sequence)) = place else {
                return false;
            };
            highest = highest.max(sequence);
            // a row that does not decode still takes its number: it must not be given out again
            let row = rows::decode_queued(sequence, value);
            let size = row.as_ref().map_or(value.len(), |row| cost(&row.message));
            let queue: &mut Vec<_> = rows.entry(client).or_default();
            queue.push((sequence, size));
            row.is_ok()
        });
        Queues {
            rows,
            is_whole,
            generation,
            highest,
            ..queues
        }
    }

    fn recover_inbound(self: &Arc<Self>, shard: ShardId, term: Term, found: &mut Recovered) {
        self.each_row(shard, Table::Inbound, &mut found.unreadable, |key, _| {
            let place =
                rows::split(key).and_then(|(client, rest)| Some((client, rows::identifier(rest)?)));
            let Some((client, id)) = place else {
                return false;
            };
            self.recovered(&client, shard, term)
                .lock()
                .inbound
                .insert(id, Inbound::Received);
            true
        });
    }

    fn recover_retained(self: &Arc<Self>, shard: ShardId, found: &mut Recovered) {
        let mut retained = 0;
        self.each_row(shard, Table::Retained, &mut found.unreadable, |_, value| {
            let Ok(message) = rows::decode_retained(value) else {
                return false;
            };
            self.retained.restore(&message);
            retained += 1;
            true
        });
        found.retained += retained;
    }

    /// The session a row belongs to.
    fn recovered(&self, client: &ClientId, shard: ShardId, term: Term) -> Arc<Mailbox> {
        let mut place = self.homes.lock(client);
        if let Some(known) = place.get(client) {
            if known.term() == term {
                return Arc::clone(known);
            }
            // of a term that is over: it came in when the homes of that term had been given up
            let old = Arc::clone(known);
            let subscriptions = old.end(None);
            self.leave_all(&subscriptions, &old);
        }
        let floor = self.homes.floor(shard);
        let home = Arc::new(Mailbox::home(
            client.clone(),
            shard,
            term,
            SessionEpoch::default(),
            floor,
        ));
        place.insert(Arc::clone(&home));
        home
    }

    fn each_row(
        &self,
        shard: ShardId,
        table: Table,
        unreadable: &mut usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> bool {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.page_of(shard, table, after.as_deref());
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    *unreadable += 1;
                    tracing::error!(%shard, ?table, %error, "table cannot be read");
                    return false;
                },
            };
            for (key, value) in &page {
                if !visit(key, value) {
                    *unreadable += 1;
                    tracing::warn!(%shard, ?table, "row does not decode");
                }
            }
            if page.len() < PAGE {
                return true;
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }

    fn page_of(
        &self,
        shard: ShardId,
        table: Table,
        after: Option<&[u8]>,
    ) -> Result<Pairs, ReadError> {
        self.ledger.scan(shard, table, &[], after, PAGE)
    }

    /// Up to `limit` rows of a client's queue behind a sequence number, and whether these were the last.
    pub(crate) fn read_queue(
        &self,
        mailbox: &Mailbox,
        after: u64,
        limit: usize,
    ) -> (Vec<Delivery>, bool) {
        let prefix = rows::prefix(mailbox.client());
        let after = rows::queue_key(mailbox.client(), after);
        let page = self
            .ledger
            .scan(mailbox.shard(), Table::Queue, &prefix, Some(&after), limit);
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "queued messages cannot be read");
                return (Vec::new(), false);
            },
        };
        let is_last = page.len() < limit;
        let queued = page.into_iter().filter_map(|(key, value)| {
            let (_, rest) = rows::split(&key)?;
            rows::decode_queued(rows::sequence(rest)?, &value)
                .inspect_err(|error| {
                    super::metrics::dropped(super::metrics::Drop::Unreadable, 1);
                    tracing::warn!(%error, "queued message does not decode");
                })
                .ok()
        });
        (queued.collect(), is_last)
    }
}
