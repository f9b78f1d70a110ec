//! Which replicas this node has, who else has them, and changing that.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId};
use umbel_storage::{
    Owner, crash,
    log::{GroupId, LogError, Meta},
    snapshot::Snapshot,
};

use super::{ChangeError, Changed, Members, Shards, StartError, start_all};
use crate::{
    batcher,
    raft::group::{Begin, Group},
    shard::Shard,
    status::Health,
    vital::vital,
};

impl Shards {
    /// What to start with: all shards where there are no peers, and otherwise what is on disk.
    pub(super) fn found_on_disk(&self) -> Vec<(ShardId, Begin)> {
        let all = (0..self.config.shards).map(ShardId);
        let begin = Begin::again(&self.parts);
        all.chain([ShardId::META])
            .filter(|shard| {
                let everywhere = begin == Begin::Alone && *shard != ShardId::META;
                everywhere || self.is_on_disk(*shard)
            })
            .map(|shard| (shard, begin))
            .collect()
    }

    fn is_on_disk(&self, shard: ShardId) -> bool {
        let group = GroupId(u64::from(shard.0));
        !self.log.range(group).is_empty()
            || Meta::ALL
                .into_iter()
                .any(|key| self.log.meta(group, key).is_some())
    }

    /// Takes a started replica in.
    pub(super) fn begin(&self, shard: Arc<Shard>) {
        self.hosted.add(&shard);
        let (log, meters) = (Arc::clone(&self.log), Arc::clone(&self.meters));
        let batcher = batcher::run(shard, log, meters);
        let fatal = Arc::clone(&self.parts.fatal);
        self.batchers
            .lock()
            .spawn(vital("a batcher", fatal, batcher));
    }

    /// Begins a cluster: the meta group and every shard that is not here yet, with this node as only voter. To be called
    /// on one node of a cluster only, ever; again on that node it changes nothing.
    pub async fn found(&self) -> Result<(), StartError> {
        let _only = self.hosting.lock().await;
        let hosted = self.hosted.all();
        let missing = (0..self.config.shards)
            .map(ShardId)
            .chain([ShardId::META])
            .filter(|shard| !hosted.contains_key(shard))
            .map(|shard| (shard, Begin::Alone))
            .collect();
        for shard in start_all(&self.parts, missing).await? {
            self.begin(shard);
        }
        Ok(())
    }

    /// The shards this node has a replica of.
    pub fn hosted(&self) -> Vec<ShardId> {
        self.hosted.all().keys().copied().collect()
    }

    /// Begins a replica that has nothing and waits for what the shard's owner sends. Nothing happens if there is one.
    pub async fn host(&self, shard: ShardId) -> Result<(), ChangeError> {
        let _only = self.hosting.lock().await;
        if self.hosted.get(shard).is_some() {
            return Ok(());
        }
        if shard.0 >= self.config.shards && shard != ShardId::META {
            return Err(ChangeError::Replica("there is no such shard".to_owned()));
        }
        if !self.is_on_disk(shard) {
            // Rows without a log are what is left of a replica that was being erased.
            self.erase(shard).await?;
        }
        let (limits, parts) = (self.config.limits, self.parts.clone());
        crash::point("replica.begin");
        let shard = Shard::start(shard, limits, parts, Begin::Waiting).await;
        self.begin(Arc::new(shard));
        Ok(())
    }

    /// Stops a replica and erases it: log, votes, rows and snapshot. Only for one that is no member of its shard any more:
    /// a voter that forgets its votes could let two owners be.
    pub async fn retire(&self, shard: ShardId) -> Result<(), ChangeError> {
        let _only = self.hosting.lock().await;
        let Some(replica) = self.hosted.remove(shard) else {
            return Ok(());
        };
        replica.queue.close();
        replica.end().await;
        self.erase(shard).await
    }

    async fn erase(&self, shard: ShardId) -> Result<(), ChangeError> {
        let erased = self.parts.erase(shard).await;
        erased.map_err(ChangeError::Replica)
    }

    /// On the owner: brings the shard's members to what is asked for, as far as is possible and safe. Idempotent; an
    /// interrupted change is finished by asking again, here or at a later owner.
    pub async fn change_members(
        &self,
        shard: ShardId,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> Result<Changed, ChangeError> {
        let group = self.group(shard)?;
        group.change_members(&voters, &learners).await
    }

    /// On the owner: makes another voter the owner, without waiting for a lease to end. Proposals are refused with
    /// `NotOwner` meanwhile.
    pub async fn transfer(&self, shard: ShardId, to: NodeId) -> Result<(), ChangeError> {
        self.group(shard)?.transfer(to).await
    }

    /// Who belongs to a shard, as far as the replica here knows.
    pub fn members(&self, shard: ShardId) -> Option<Members> {
        self.group(shard).ok()?.members()
    }

    /// Who owns a shard, as far as the replica here has heard lately.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.owner(shard).map(|owner| owner.node)
    }

    /// Who owns a shard and in which term, as far as the replica here has heard lately.
    pub fn owner(&self, shard: ShardId) -> Option<Owner> {
        self.group(shard).ok()?.owner()
    }

    /// How the disk of this node is.
    pub fn health(&self) -> Health {
        Health {
            full: matches!(self.log.admit(), Err(LogError::Full)),
            pace: self.log.pace(),
        }
    }

    /// Index of the last entry applied here, as it grows; `None` if this node has no replica.
    pub fn applied(&self, shard: ShardId) -> Option<watch::Receiver<u64>> {
        self.hosted.with(shard, |shard| shard.applied())
    }

    /// A fresh, durable copy of a shard's rows, for a backup; only on its owner. It has everything that was acknowledged
    /// before it was asked for.
    pub async fn cut(&self, shard: ShardId) -> Result<Snapshot, String> {
        let group = self.group(shard).map_err(|error| error.to_string())?;
        // All that was committed before is applied where there is a term. It need not last until the end: what is in the
        // copy stays true.
        if group.term().is_none() {
            return Err(format!("this node does not own shard {shard}"));
        }
        group.cut().await.map_err(|error| error.to_string())
    }

    fn group(&self, shard: ShardId) -> Result<Arc<Group>, ChangeError> {
        let replica = self.hosted.get(shard).ok_or(ChangeError::NotHosted)?;
        replica
            .group()
            .ok_or_else(|| ChangeError::Replica(replica.quarantined().unwrap_or_default()))
    }
}
