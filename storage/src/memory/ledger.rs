//! A ledger without Raft and disk: commits at once, or when the test says so.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use umbel_core::ids::{ShardId, Term};

use super::rows::Rows;
use crate::{
    ledger::{Ledger, Receipt, Refusal},
    table::{Pairs, ReadError, Table, Write},
};

/// A [`Ledger`] in memory. Clones share one content; [`MemoryLedger::crash_copy`] is what a restart would find.
///
/// Owned in term 1 at first, commits at once. The controls change that for tests.
#[derive(Clone, Debug)]
pub struct MemoryLedger(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    shards: Vec<Shard>,
    held: VecDeque<Held>,
    holding: bool,
    refusal: Option<Refusal>,
    answers_lost: bool,
    proposals: u64,
    writes: u64,
}

#[derive(Clone, Debug)]
struct Shard {
    term: Option<Term>,
    rows: Rows,
    damaged: bool,
}

#[derive(Debug)]
struct Held {
    shard: ShardId,
    term: Term,
    writes: Vec<Write>,
    answer: oneshot::Sender<Result<(), Refusal>>,
}

impl MemoryLedger {
    /// An empty ledger of `shards` shards, each owned in term 1.
    pub fn new(shards: u16) -> Self {
        let shard = Shard {
            term: Some(Term(1)),
            rows: Rows::default(),
            damaged: false,
        };
        let shards = vec![shard; usize::from(shards.max(1))];
        Self(Arc::new(Mutex::new(Inner {
            shards,
            ..Inner::default()
        })))
    }

    /// What a restart after a crash now would find: committed content only, the next term, no controls set.
    #[must_use]
    pub fn crash_copy(&self) -> Self {
        let shards = self
            .0
            .lock()
            .shards
            .iter()
            .map(|shard| Shard {
                term: Some(Term(shard.term.map_or(1, |term| term.0) + 1)),
                rows: shard.rows.clone(),
                damaged: false,
            })
            .collect();
        Self(Arc::new(Mutex::new(Inner {
            shards,
            ..Inner::default()
        })))
    }

    /// From now on proposals wait, in order, until released.
    pub fn hold(&self) {
        self.0.lock().holding = true;
    }

    /// Commits everything held and ends the holding.
    pub fn release(&self) {
        self.0.lock().holding = false;
        while self.release_one() {}
    }

    /// Commits the oldest held proposal; false when there is none.
    pub fn release_one(&self) -> bool {
        let mut inner = self.0.lock();
        let Some(held) = inner.held.pop_front() else {
            return false;
        };
        let outcome = inner.commit(held.shard, held.term, &held.writes);
        drop(inner);
        if held.answer.send(outcome).is_err() {
            tracing::debug!("the proposer of a held write no longer waits");
        }
        true
    }

    /// How many proposals are held.
    pub fn held(&self) -> usize {
        self.0.lock().held.len()
    }

    /// From now on every proposal is refused with this, or, with `None`, served again.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.0.lock().refusal = refusal;
    }

    /// From now on proposals are committed but answered [`Refusal::Unknown`], as when an answer is lost.
    pub fn lose_answers(&self, lost: bool) {
        self.0.lock().answers_lost = lost;
    }

    /// Changes or ends the ownership of a shard. Held proposals of another term will be refused.
    pub fn set_term(&self, shard: ShardId, term: Option<Term>) {
        if let Some(shard) = self.0.lock().shards.get_mut(usize::from(shard.0)) {
            shard.term = term;
        }
    }

    /// From now on reads of the shard fail as damaged, or are served again.
    pub fn set_damaged(&self, shard: ShardId, damaged: bool) {
        if let Some(shard) = self.0.lock().shards.get_mut(usize::from(shard.0)) {
            shard.damaged = damaged;
        }
    }

    /// How many proposals were made, refused ones included.
    pub fn proposals(&self) -> u64 {
        self.0.lock().proposals
    }

    /// How many single writes were committed.
    pub fn writes(&self) -> u64 {
        self.0.lock().writes
    }
}

impl Inner {
    fn commit(&mut self, shard: ShardId, term: Term, writes: &[Write]) -> Result<(), Refusal> {
        let target = self
            .shards
            .get_mut(usize::from(shard.0))
            .ok_or(Refusal::NotOwner)?;
        if target.term != Some(term) {
            return Err(Refusal::NotOwner);
        }
        target.rows.apply(writes);
        self.writes += writes.len() as u64;
        if self.answers_lost {
            Err(Refusal::Unknown)
        } else {
            Ok(())
        }
    }

    fn readable(&self, shard: ShardId, table: Table) -> Result<Option<&Rows>, ReadError> {
        match self.shards.get(usize::from(shard.0)) {
            Some(shard) if shard.damaged => Err(ReadError::Damaged {
                table,
                detail: "damaged by a test".to_owned(),
            }),
            Some(shard) => Ok(Some(&shard.rows)),
            None => Ok(None),
        }
    }
}

impl Ledger for MemoryLedger {
    fn shards(&self) -> u16 {
        u16::try_from(self.0.lock().shards.len()).unwrap_or(u16::MAX)
    }

    fn term(&self, shard: ShardId) -> Option<Term> {
        self.0
            .lock()
            .shards
            .get(usize::from(shard.0))
            .and_then(|shard| shard.term)
    }

    fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt {
        let mut inner = self.0.lock();
        inner.proposals += 1;
        if let Some(refusal) = inner.refusal {
            return Receipt::ready(Err(refusal));
        }
        if inner.holding {
            let (answer, receipt) = Receipt::pending();
            inner.held.push_back(Held {
                shard,
                term,
                writes,
                answer,
            });
            return receipt;
        }
        Receipt::ready(inner.commit(shard, term, &writes))
    }

    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self
            .0
            .lock()
            .readable(shard, table)?
            .and_then(|rows| rows.get(table, key)))
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        let inner = self.0.lock();
        let rows = inner.readable(shard, table)?;
        Ok(rows
            .map(|rows| rows.scan(table, prefix, after, limit))
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(0);
    const TERM: Term = Term(1);

    fn put(key: &str, value: &str) -> Vec<Write> {
        vec![Write::put(Table::Device, key, value.into())]
    }

    fn read(ledger: &MemoryLedger, key: &str) -> Option<Vec<u8>> {
        ledger
            .get(SHARD, Table::Device, key.as_bytes())
            .expect("healthy shard")
    }

    #[tokio::test]
    async fn a_resolved_receipt_means_readable() {
        let ledger = MemoryLedger::new(2);
        assert_eq!(ledger.propose(SHARD, TERM, put("a", "1")).await, Ok(()));
        assert_eq!(read(&ledger, "a"), Some(b"1".to_vec()));
        assert_eq!(
            ledger
                .get(ShardId(1), Table::Device, b"a")
                .expect("healthy"),
            None
        );
    }

    #[tokio::test]
    async fn held_writes_are_neither_readable_nor_in_a_crash_copy() {
        let ledger = MemoryLedger::new(1);
        ledger.hold();
        let receipt = ledger.propose(SHARD, TERM, put("a", "1"));
        assert_eq!((ledger.held(), read(&ledger, "a")), (1, None));
        let copy = ledger.crash_copy();
        ledger.release();
        assert_eq!(receipt.await, Ok(()));
        assert_eq!(read(&ledger, "a"), Some(b"1".to_vec()));
        assert_eq!(read(&copy, "a"), None);
        assert_eq!(copy.term(SHARD), Some(Term(2)));
    }

    #[tokio::test]
    async fn a_change_of_term_fences_what_was_held() {
        let ledger = MemoryLedger::new(1);
        ledger.hold();
        let receipt = ledger.propose(SHARD, TERM, put("a", "1"));
        ledger.set_term(SHARD, Some(Term(5)));
        ledger.release();
        assert_eq!(receipt.await, Err(Refusal::NotOwner));
        assert_eq!(read(&ledger, "a"), None);
        assert_eq!(ledger.propose(SHARD, Term(5), put("a", "2")).await, Ok(()));
    }

    #[tokio::test]
    async fn refusals_and_lost_answers() {
        let ledger = MemoryLedger::new(1);
        ledger.refuse(Some(Refusal::StorageFull));
        assert_eq!(
            ledger.propose(SHARD, TERM, put("a", "1")).await,
            Err(Refusal::StorageFull)
        );
        ledger.refuse(None);
        ledger.lose_answers(true);
        assert_eq!(
            ledger.propose(SHARD, TERM, put("a", "1")).await,
            Err(Refusal::Unknown)
        );
        assert_eq!(read(&ledger, "a"), Some(b"1".to_vec()));
        assert_eq!((ledger.proposals(), ledger.writes()), (2, 1));
        ledger.set_damaged(SHARD, true);
        assert!(ledger.get(SHARD, Table::Device, b"a").is_err());
    }

    #[tokio::test]
    async fn scans_page_in_key_order_within_prefix_and_table() {
        let ledger = MemoryLedger::new(1);
        for key in ["b\0", "a\x001", "a\x002", "a\x003", "aa"] {
            ledger
                .propose(SHARD, TERM, put(key, key))
                .await
                .expect("committed");
        }
        let other = vec![Write::put(Table::Queue, "a\x009", vec![])];
        ledger.propose(SHARD, TERM, other).await.expect("committed");
        let keys = |after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
            let pairs = ledger
                .scan(SHARD, Table::Device, b"a\0", after, limit)
                .expect("healthy");
            pairs.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(None, 2), [b"a\x001", b"a\x002"]);
        assert_eq!(keys(Some(b"a\x002"), 9), [b"a\x003"]);
        assert_eq!(keys(Some(b"a"), 9).len(), 3);
        let writes = vec![Write::delete_prefix(Table::Device, "a\0")];
        ledger
            .propose(SHARD, TERM, writes)
            .await
            .expect("committed");
        assert_eq!(keys(None, 9), Vec::<Vec<u8>>::new());
        assert_eq!(read(&ledger, "aa"), Some(b"aa".to_vec()));
    }
}
