//! What a restart finds: sessions that outlived it, what waits for them, and the retained messages.

use std::{collections::BTreeMap, sync::Arc};

use umbel_core::{
    ids::{ClientId, SessionEpoch, ShardId},
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

impl Broker {
    /// Reads what storage holds. Once, before the first connection; it blocks on the disk. A shard that cannot be read is
    /// left out and said so: it is quarantined, its neighbours are served.
    pub fn recover(self: &Arc<Self>) -> Recovered {
        let mut found = Recovered::default();
        for shard in (0..self.ledger.shards()).map(ShardId) {
            self.recover_subscriptions(shard, &mut found);
            self.recover_queues(shard, &mut found);
            self.recover_inbound(shard, &mut found);
            self.recover_retained(shard, &mut found);
        }
        found.sessions = self.sessions.len();
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
    pub fn end_orphans(&self, is_known: impl Fn(&ClientId) -> Option<bool>) -> usize {
        let mut recovered = Vec::new();
        self.sessions
            .for_each(|mailbox| recovered.push(mailbox.client().clone()));
        recovered.retain(|client| is_known(client) == Some(false));
        for client in &recovered {
            self.end(client, SessionEpoch::default());
        }
        if !recovered.is_empty() {
            tracing::warn!(
                sessions = recovered.len(),
                "rows of sessions that are over removed"
            );
        }
        recovered.len()
    }

    fn recover_subscriptions(self: &Arc<Self>, shard: ShardId, found: &mut Recovered) {
        self.each_row(shard, Table::Subscription, found, |found, key, value| {
            let Some((client, rest)) = rows::split(key) else {
                return false;
            };
            let filter = std::str::from_utf8(rest)
                .ok()
                .and_then(|text| Filter::parse(text, &umbel_core::topic::Limits::default()).ok());
            let (Some(filter), Ok(options)) = (filter, rows::decode_subscription(value)) else {
                return false;
            };
            let mailbox = self.recovered(&client, shard);
            mailbox.lock().subscribe(&filter, options);
            drop(self.join(&filter, &mailbox, options));
            found.subscriptions += 1;
            true
        });
    }

    fn recover_queues(self: &Arc<Self>, shard: ShardId, found: &mut Recovered) {
        let mut queues: BTreeMap<ClientId, Vec<(u64, usize)>> = BTreeMap::new();
        self.each_row(shard, Table::Queue, found, |found, key, value| {
            let place =
                rows::split(key).and_then(|(client, rest)| Some((client, rows::sequence(rest)?)));
            let Some((client, sequence)) = place else {
                return false;
            };
            // a row that does not decode still takes its number: it must not be given out again
            let row = rows::decode_queued(sequence, value);
            let size = row.as_ref().map_or(value.len(), |row| cost(&row.message));
            queues.entry(client).or_default().push((sequence, size));
            found.queued += 1;
            row.is_ok()
        });
        for (client, queue) in queues {
            let window = usize::from(self.config.inflight_max);
            self.recovered(&client, shard)
                .lock()
                .restore(Outbound::recovered(&queue, window));
        }
    }

    fn recover_inbound(self: &Arc<Self>, shard: ShardId, found: &mut Recovered) {
        self.each_row(shard, Table::Inbound, found, |_, key, _| {
            let place =
                rows::split(key).and_then(|(client, rest)| Some((client, rows::identifier(rest)?)));
            let Some((client, id)) = place else {
                return false;
            };
            self.recovered(&client, shard)
                .lock()
                .inbound
                .insert(id, Inbound::Received);
            true
        });
    }

    fn recover_retained(self: &Arc<Self>, shard: ShardId, found: &mut Recovered) {
        self.each_row(shard, Table::Retained, found, |found, _, value| {
            let Ok(message) = rows::decode_retained(value) else {
                return false;
            };
            self.retained.restore(&message);
            found.retained += 1;
            true
        });
    }

    /// The session a row belongs to.
    fn recovered(&self, client: &ClientId, shard: ShardId) -> Arc<Mailbox> {
        let mut place = self.sessions.lock(client);
        if let Some(known) = place.get(client) {
            return Arc::clone(known);
        }
        let mailbox = Arc::new(Mailbox::new(
            client.clone(),
            shard,
            SessionEpoch::default(),
            1,
        ));
        mailbox.lock().durable = true;
        place.insert(Arc::clone(&mailbox));
        mailbox
    }

    fn each_row(
        &self,
        shard: ShardId,
        table: Table,
        found: &mut Recovered,
        mut visit: impl FnMut(&mut Recovered, &[u8], &[u8]) -> bool,
    ) {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.page_of(shard, table, after.as_deref());
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    found.unreadable += 1;
                    tracing::error!(%shard, ?table, %error, "table cannot be read");
                    return;
                },
            };
            for (key, value) in &page {
                if !visit(found, key, value) {
                    found.unreadable += 1;
                    tracing::warn!(%shard, ?table, "row does not decode");
                }
            }
            if page.len() < PAGE {
                return;
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
