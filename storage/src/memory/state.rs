//! A state without disk.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use umbel_core::ids::ShardId;

use super::rows::Rows;
use crate::{
    digest,
    snapshot::{self, Snapshot},
    state::{Digest, Health, Mark, State, StateError},
    table::{Pairs, ReadError, Table, Write},
};

/// A [`State`] in memory. Clones share one content; [`MemoryState::crash_copy`] is what a restart would find.
#[derive(Clone, Debug, Default)]
pub struct MemoryState(Arc<Mutex<Inner>>);

#[derive(Clone, Debug, Default)]
struct Inner {
    shards: BTreeMap<ShardId, Shard>,
    durable: BTreeMap<ShardId, Shard>,
    snapshots: BTreeMap<ShardId, Snapshot>,
    incoming: BTreeMap<ShardId, (u64, Vec<u8>)>,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    rows: Rows,
    index: u64,
    meta: Vec<u8>,
    damage: Option<String>,
}

impl Shard {
    fn mark(&self) -> Mark {
        let digest = self
            .rows
            .iter()
            .fold(Digest::default(), |sum, (table, key, value)| {
                sum.plus(digest::of_row(table as u8, key, value))
            });
        Mark {
            index: self.index,
            digest,
            meta: self.meta.clone(),
        }
    }
}

impl MemoryState {
    /// Without any shard.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a restart after a power cut now would find: the last checkpoint and the snapshots.
    #[must_use]
    pub fn crash_copy(&self) -> Self {
        let inner = self.0.lock();
        Self(Arc::new(Mutex::new(Inner {
            shards: inner.durable.clone(),
            durable: inner.durable.clone(),
            snapshots: inner.snapshots.clone(),
            incoming: BTreeMap::new(),
        })))
    }

    fn sound<T>(
        &self,
        shard: ShardId,
        then: impl FnOnce(&mut Shard) -> T,
    ) -> Result<T, StateError> {
        let mut inner = self.0.lock();
        let of = inner.shards.entry(shard).or_default();
        match &of.damage {
            Some(detail) => Err(StateError::Damaged {
                shard,
                detail: detail.clone(),
            }),
            None => Ok(then(of)),
        }
    }

    fn readable<T: Default>(
        &self,
        shard: ShardId,
        table: Table,
        then: impl FnOnce(&Rows) -> T,
    ) -> Result<T, ReadError> {
        match self.0.lock().shards.get(&shard) {
            Some(Shard {
                damage: Some(detail),
                ..
            }) => Err(ReadError::Damaged {
                table,
                detail: detail.clone(),
            }),
            Some(shard) => Ok(then(&shard.rows)),
            None => Ok(T::default()),
        }
    }
}

impl State for MemoryState {
    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.readable(shard, table, |rows| rows.get(table, key))
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        self.readable(shard, table, |rows| rows.scan(table, prefix, after, limit))
    }

    fn apply(
        &self,
        shard: ShardId,
        index: u64,
        meta: &[u8],
        writes: &[Write],
    ) -> Result<(), StateError> {
        self.sound(shard, |shard| {
            shard.rows.apply(writes);
            shard.index = index;
            shard.meta = meta.to_vec();
        })
    }

    fn applied(&self, shard: ShardId) -> Result<Mark, StateError> {
        self.sound(shard, |shard| shard.mark())
    }

    fn checkpoint(&self, shard: ShardId) -> Result<Mark, StateError> {
        let mark = self.applied(shard)?;
        let mut inner = self.0.lock();
        inner.durable = inner.shards.clone();
        Ok(mark)
    }

    fn snapshot(&self, shard: ShardId) -> Result<Snapshot, StateError> {
        let io = |error: std::io::Error| StateError::Io(error.to_string());
        let bytes = self.sound(shard, |of| {
            let mut writer = snapshot::Writer::begin(Vec::new(), shard, &of.mark())?;
            for (table, key, value) in of.rows.iter() {
                writer.row(table as u8, key, value)?;
            }
            writer.finish().map(|(bytes, _)| bytes)
        })?;
        self.receive_snapshot(shard, &bytes.map_err(io)?)
    }

    fn latest_snapshot(&self, shard: ShardId) -> Result<Option<Snapshot>, StateError> {
        Ok(self.0.lock().snapshots.get(&shard).cloned())
    }

    fn incoming(&self, shard: ShardId, id: u64) -> Result<u64, StateError> {
        let mut inner = self.0.lock();
        let gathered = inner.incoming.entry(shard).or_default();
        if gathered.0 != id {
            *gathered = (id, Vec::new());
        }
        Ok(gathered.1.len() as u64)
    }

    fn receive(
        &self,
        shard: ShardId,
        id: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StateError> {
        let here = self.incoming(shard, id)?;
        if here != offset {
            return Ok(here);
        }
        let mut inner = self.0.lock();
        let gathered = &mut inner.incoming.entry(shard).or_default().1;
        gathered.extend_from_slice(bytes);
        Ok(gathered.len() as u64)
    }

    fn received(&self, shard: ShardId, id: u64) -> Result<Snapshot, StateError> {
        self.incoming(shard, id)?;
        let gathered = self.0.lock().incoming.remove(&shard).unwrap_or_default().1;
        let mark = snapshot::read(&mut gathered.as_slice(), shard, |_, _, _| Ok(()))?;
        Ok(Snapshot::in_memory(shard, mark, gathered.into()))
    }

    fn adopt(&self, received: &Snapshot) -> Result<Snapshot, StateError> {
        let snapshot = received.clone();
        self.0
            .lock()
            .snapshots
            .insert(snapshot.shard, snapshot.clone());
        Ok(snapshot)
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        let mut writes = Vec::new();
        let mut input = snapshot
            .open()
            .map_err(|error| StateError::Io(error.to_string()))?;
        let mark = snapshot::read(&mut input, snapshot.shard, |table, key, value| {
            let table = Table::from_number(table).ok_or_else(|| StateError::Snapshot {
                shard: snapshot.shard,
                detail: format!("unknown table {table}"),
            })?;
            writes.push(Write::put(table, key, value.to_vec()));
            Ok(())
        })?;
        let mut rows = Rows::default();
        rows.apply(&writes);
        let shard = Shard {
            rows,
            index: mark.index,
            meta: mark.meta,
            damage: None,
        };
        self.0.lock().shards.insert(snapshot.shard, shard);
        Ok(())
    }

    fn drop_shard(&self, shard: ShardId) -> Result<(), StateError> {
        self.0.lock().shards.remove(&shard);
        Ok(())
    }

    fn erase(&self, shard: ShardId) -> Result<(), StateError> {
        let mut inner = self.0.lock();
        inner.shards.remove(&shard);
        inner.durable.remove(&shard);
        inner.snapshots.remove(&shard);
        Ok(())
    }

    fn health(&self, shard: ShardId) -> Health {
        let damage = self
            .0
            .lock()
            .shards
            .get(&shard)
            .and_then(|shard| shard.damage.clone());
        match damage {
            Some(detail) => Health::Damaged(detail),
            None => Health::Sound,
        }
    }

    fn damaged(&self) -> Vec<ShardId> {
        let inner = self.0.lock();
        let damaged = inner
            .shards
            .iter()
            .filter(|(_, shard)| shard.damage.is_some());
        damaged.map(|(id, _)| *id).collect()
    }

    fn quarantine(&self, shard: ShardId, detail: &str) {
        self.0.lock().shards.entry(shard).or_default().damage = Some(detail.to_owned());
    }

    fn scrub(&self, _rows_max: usize) -> bool {
        true
    }

    fn size_bytes(&self) -> u64 {
        let inner = self.0.lock();
        let rows = inner.shards.values().flat_map(|shard| shard.rows.iter());
        rows.map(|(_, key, value)| (key.len() + value.len()) as u64)
            .sum()
    }
}
