//! The retained messages of all nodes, as operators and the HTTP edge see them.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use tokio::time::{self, Duration, Instant};
use umbel_core::{
    ids::{NodeId, ShardId},
    message::Message,
};

use super::{Broker, peers::routes::PageAsk};

/// Most entries of a page.
const PAGE_MAX: usize = 1_000;

/// How long a shard without an owner is waited for.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Before an owner is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Retained messages in the order of their topics.
#[derive(Clone, Debug, Default)]
pub struct RetainedPage {
    /// The messages.
    pub messages: Vec<Message>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// The owner of a shard does not answer, or there is none: what is retained there is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a shard of retained messages cannot be read now")]
pub struct RetainedUnavailable;

impl Broker {
    /// The retained message of a topic, as it is committed.
    pub async fn retained_get(&self, topic: &str) -> Result<Option<Message>, RetainedUnavailable> {
        let shard = ShardId::of(topic, self.ledger.shards());
        let page = self.gather(topic, BTreeSet::from([shard]), None, 1).await?;
        Ok(page.messages.into_iter().next())
    }

    /// Retained messages after a topic, in the order of their topics.
    pub async fn retained_list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RetainedPage, RetainedUnavailable> {
        let all = (0..self.ledger.shards()).map(ShardId).collect();
        self.gather("#", all, after, limit.clamp(1, PAGE_MAX)).await
    }

    /// Asks the owners of some shards, and puts their answers together.
    async fn gather(
        &self,
        filter: &str,
        mut shards: BTreeSet<ShardId>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RetainedPage, RetainedUnavailable> {
        let until = Instant::now() + WAIT_MAX;
        let mut changes = self.nodes.changes();
        let mut found = Vec::new();
        // behind the least of these not everything is known
        let mut horizon: Option<String> = None;
        loop {
            changes.mark_unchanged();
            let asked = self.by_owner(&shards).into_iter().map(|(node, shards)| {
                let asked = PageAsk {
                    filter: filter.to_owned(),
                    shards,
                    after: after.map(str::to_owned),
                    limit,
                    committed: true,
                };
                let of = asked.shards.clone();
                (of, self.ask_page(node, asked))
            });
            // all of them first, so that they work side by side
            let asked: Vec<_> = asked.collect();
            for (of, answer) in asked {
                let Some(page) = answer.await else { continue };
                for shard in of.iter().filter(|shard| !page.refused.contains(shard)) {
                    shards.remove(shard);
                }
                found.extend(page.messages);
                horizon = match (horizon, page.next) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            if shards.is_empty() {
                return Ok(cut(found, horizon, limit));
            }
            if Instant::now() >= until {
                return Err(RetainedUnavailable);
            }
            drop(time::timeout(AGAIN_AFTER, changes.changed()).await);
        }
    }

    fn by_owner(&self, shards: &BTreeSet<ShardId>) -> BTreeMap<NodeId, Vec<ShardId>> {
        let mut by_owner: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for shard in shards {
            if let Some(owner) = self.nodes.owner(*shard) {
                by_owner.entry(owner.node).or_default().push(*shard);
            }
        }
        by_owner
    }
}

/// The first of the messages, as far as everything before them is known.
fn cut(mut messages: Vec<Message>, horizon: Option<String>, limit: usize) -> RetainedPage {
    messages.sort_by(|one, other| one.topic.cmp(&other.topic));
    messages.dedup_by(|one, other| one.topic == other.topic);
    if let Some(horizon) = &horizon {
        messages.retain(|message| message.topic <= *horizon);
    }
    let mut next = horizon;
    if messages.len() > limit {
        messages.truncate(limit);
        next = messages.last().map(|message| message.topic.clone());
    }
    RetainedPage { messages, next }
}
