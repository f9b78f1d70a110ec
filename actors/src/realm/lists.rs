//! Questions about all devices: every owner is asked for its shards, and a part that is missing is an error. A list
//! that is silently short would be taken for the truth.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{task::JoinSet, time::Instant};
use umbel_core::{
    ids::{DeviceId, NodeId, ShardId},
    shadow::{self, Request},
};
use umbel_storage::{PeerError, nodes::Reach};

use super::{Inner, Realm, odd, route::Way};
use crate::{
    fleet::Counts,
    query::{Filter, PAGE_MAX, Page},
    refused::Refused,
    remote::{self, Answer, Verb},
    troubles::Quarantined,
};

/// Between two looks at shards that nobody serves.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl Realm {
    /// A page of devices in id order, of the whole cluster. Wakes nobody.
    pub async fn devices(
        &self,
        filter: Filter,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Page, Refused> {
        let limit = limit.clamp(1, PAGE_MAX);
        let ask = |shards| Verb::Devices {
            shards,
            filter: filter.clone(),
            after: after.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let mut pages = Vec::new();
        for answer in self.0.scatter(ask).await? {
            if let Answer::Devices(page) = answer {
                pages.push(page);
            } else {
                return Err(odd(&"devices", &answer));
            }
        }
        Ok(merge(pages, limit))
    }

    /// Numbers of the whole cluster.
    pub async fn counts(&self) -> Result<Counts, Refused> {
        let mut total = Counts::default();
        for answer in self.0.scatter(|shards| Verb::Counts { shards }).await? {
            let Answer::Counts(counts) = answer else {
                return Err(odd(&"counts", &answer));
            };
            total.devices += counts.devices;
            total.apps += counts.apps;
            total.awake += counts.awake;
            total.quarantined += counts.quarantined;
        }
        Ok(total)
    }

    /// The devices in quarantine, of the whole cluster, in id order.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>, Refused> {
        let mut all = Vec::new();
        let ask = |shards| Verb::Quarantined { shards };
        for answer in self.0.scatter(ask).await? {
            if let Answer::Quarantined(some) = answer {
                all.extend(some);
            } else {
                return Err(odd(&"quarantined", &answer));
            }
        }
        all.sort_by(|one, other| one.device.cmp(&other.device));
        Ok(all)
    }
}

/// Pages of several owners as one. What lies beyond the end of the shortest look is on the next page.
fn merge(pages: Vec<Page>, limit: usize) -> Page {
    let looked = pages.iter().filter_map(|page| page.next.clone()).min();
    let mut devices: Vec<_> = pages.into_iter().flat_map(|page| page.devices).collect();
    if let Some(looked) = &looked {
        devices.retain(|view| view.id.as_str() <= looked.as_str());
    }
    devices.sort_by(|one, other| one.id.cmp(&other.id));
    let mut next = looked;
    if devices.len() > limit {
        devices.truncate(limit);
        next = devices.last().and_then(|view| view.id.as_device());
    }
    Page { devices, next }
}

impl Inner {
    /// Asks the owner of every shard; the answers together are of each shard once.
    async fn scatter(
        self: &Arc<Self>,
        ask: impl Fn(Vec<ShardId>) -> Verb,
    ) -> Result<Vec<Answer>, Refused> {
        let deadline = Instant::now() + self.timing.deadline;
        let mut left: Vec<ShardId> = self.fleet.shards.iter().map(|shard| shard.id).collect();
        let mut answers = Vec::new();
        while !left.is_empty() {
            let mut asked: JoinSet<(Vec<ShardId>, Result<Answer, PeerError>)> = JoinSet::new();
            let mut nowhere = Vec::new();
            for (node, shards) in self.by_owner(&left, &mut nowhere) {
                let verb = ask(shards.clone());
                let within = deadline.saturating_duration_since(Instant::now());
                if node == self.me {
                    let inner = Arc::clone(self);
                    asked.spawn(async move {
                        let answer = remote::serve(&inner.fleet, inner.me, verb).await;
                        (shards, Ok(answer))
                    });
                } else {
                    let told = self.peers.ask(node, &verb, within);
                    asked.spawn(async move { (shards, told.await) });
                }
            }
            left = nowhere;
            while let Some(told) = asked.join_next().await {
                match told {
                    Ok((shards, Ok(Answer::NotOwner { .. }) | Err(_))) => left.extend(shards),
                    Ok((_, Ok(Answer::Refused(why)))) => return Err(why),
                    Ok((_, Ok(answer))) => answers.push(answer),
                    Err(_panicked) => return Err(Refused::Unavailable),
                }
            }
            if left.is_empty() {
                break;
            }
            let now = Instant::now();
            let is_hopeless = left.iter().any(|shard| {
                let since = self.orphans.missed(*shard, now);
                now.duration_since(since) >= self.timing.nobody_within
            });
            if now >= deadline || is_hopeless {
                return Err(Refused::Unavailable);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(answers)
    }

    fn by_owner(
        &self,
        shards: &[ShardId],
        nowhere: &mut Vec<ShardId>,
    ) -> BTreeMap<NodeId, Vec<ShardId>> {
        let mut owners: BTreeMap<NodeId, Vec<ShardId>> = BTreeMap::new();
        for id in shards {
            let way = self.fleet.numbered(*id).map(|shard| self.way(&shard));
            match way {
                Some(Way::Here) => owners.entry(self.me).or_default().push(*id),
                Some(Way::There(owner)) => owners.entry(owner.node).or_default().push(*id),
                Some(Way::Nowhere) | None => nowhere.push(*id),
            }
        }
        owners
    }

    /// Reads a shadow at whichever other node keeps a copy.
    pub(super) async fn glance_elsewhere(
        &self,
        device: &DeviceId,
        request: Request,
    ) -> Result<shadow::Reply, Refused> {
        let deadline = Instant::now() + self.timing.deadline;
        let verb = Verb::Glance {
            device: device.clone(),
            request,
        };
        let peers = self.nodes.peers();
        for peer in peers.iter().filter(|peer| peer.reach == Reach::Connected) {
            let within = deadline.saturating_duration_since(Instant::now());
            if let Ok(Answer::Shadow(reply)) = self.peers.ask(peer.node, &verb, within).await {
                return Ok(reply);
            }
        }
        Err(Refused::Unavailable)
    }
}
