//! The groups of a node, as its shards keep them.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{Ledger, Pairs, ReadError, Receipt, Table, Write};

use super::groups::{Groups, Members};
use crate::{link::BoxFuture, shards::Shards, status::Health};

/// Shards as [`Groups`].
pub struct ShardGroups(pub Arc<Shards>);

impl Ledger for ShardGroups {
    fn shards(&self) -> u16 {
        self.0.shards()
    }

    fn term(&self, shard: ShardId) -> Option<Term> {
        self.0.term(shard)
    }

    fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt {
        self.0.propose(shard, term, writes)
    }

    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.get(shard, table, key)
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        self.0.scan(shard, table, prefix, after, limit)
    }
}

impl Groups for ShardGroups {
    fn hosted(&self) -> Vec<ShardId> {
        self.0.hosted()
    }

    fn host(&self, shard: ShardId) -> BoxFuture<'static, Result<(), String>> {
        let shards = Arc::clone(&self.0);
        Box::pin(async move { shards.host(shard).await.map_err(|error| error.to_string()) })
    }

    fn retire(&self, shard: ShardId) -> BoxFuture<'static, Result<(), String>> {
        let shards = Arc::clone(&self.0);
        Box::pin(async move {
            shards
                .retire(shard)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn change_members(
        &self,
        shard: ShardId,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> BoxFuture<'static, Result<(), String>> {
        let shards = Arc::clone(&self.0);
        Box::pin(async move {
            shards
                .change_members(shard, voters, learners)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
    }

    fn transfer(&self, shard: ShardId, to: NodeId) -> BoxFuture<'static, Result<(), String>> {
        let shards = Arc::clone(&self.0);
        Box::pin(async move {
            shards
                .transfer(shard, to)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn members(&self, shard: ShardId) -> Option<Members> {
        let members = self.0.members(shard)?;
        Some(Members {
            voters: members.voters,
            learners: members.learners,
            joint: members.joint,
            caught_up: members.caught_up,
        })
    }

    fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.0.leader(shard)
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    fn applied(&self, shard: ShardId) -> Option<watch::Receiver<u64>> {
        self.0.applied(shard)
    }
}
