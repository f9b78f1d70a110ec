//! How far a shard is applied, and what was about to change: written before the rows of a batch.
//!
//! sled recovers a prefix of its operations, so after a crash the rows of the last batch may be there in part. The
//! intent names them with their hashes before and after, and the digest of all *other* rows. So a check after the
//! crash can still prove every row: the others by the digest, these one by one; and it knows whether the batch is whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    state::{Digest, Mark},
};

const FORMAT: u8 = 1;

/// The record in a shard's table 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Progress {
    /// Applying.
    Intent(Intent),
    /// Rows are being replaced or removed as a whole: nothing in the shard may be believed.
    Rebuilding,
}

/// What was about to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Index and meta once the batch is whole.
    pub(super) index: u64,
    pub(super) meta: Vec<u8>,
    /// Index and meta while it is not.
    pub(super) index_before: u64,
    pub(super) meta_before: Vec<u8>,
    /// More rows of the same entry follow with an intent of their own.
    pub(super) more: bool,
    /// Digest of the rows that do not change.
    pub(super) others: u128,
    /// The rows that change, by table and key.
    pub(super) touched: Vec<Touched>,
}

/// A row that changes. `None` is no row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Touched {
    /// Table number and key.
    pub(super) key: Vec<u8>,
    pub(super) before: Option<u128>,
    pub(super) after: Option<u128>,
}

impl Progress {
    pub(super) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(FORMAT, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(FORMAT, bytes)
    }
}

/// Adds up the rows of a shard against its intent.
#[derive(Debug)]
pub(super) struct Proof {
    intent: Intent,
    /// Hash found for each touched row.
    found: BTreeMap<Vec<u8>, Option<u128>>,
    others: Digest,
}

impl Proof {
    pub(super) fn of(intent: Intent) -> Self {
        let found = intent
            .touched
            .iter()
            .map(|row| (row.key.clone(), None))
            .collect();
        Self {
            intent,
            found,
            others: Digest::default(),
        }
    }

    /// Takes a row, named by table number and key.
    pub(super) fn row(&mut self, key: &[u8], hash: u128) {
        match self.found.get_mut(key) {
            Some(found) => *found = Some(hash),
            None => self.others = self.others.plus(hash),
        }
    }

    /// How far the shard is applied, if its rows are the ones that were written.
    pub(super) fn conclude(self) -> Result<Mark, String> {
        if self.others.0 != self.intent.others {
            return Err("rows are missing, old or not ours: the digest does not match".to_owned());
        }
        let mut whole = true;
        for Touched { key, before, after } in &self.intent.touched {
            let found = self.found.get(key).copied().flatten();
            if found != *before && found != *after {
                return Err("a row of the last batch is neither old nor new".to_owned());
            }
            whole &= found == *after;
        }
        let digest = self
            .found
            .values()
            .flatten()
            .fold(self.others, |sum, row| sum.plus(*row));
        let Intent {
            index,
            meta,
            index_before,
            meta_before,
            more,
            ..
        } = self.intent;
        Ok(if whole && !more {
            Mark {
                index,
                digest,
                meta,
            }
        } else {
            Mark {
                index: index_before,
                digest,
                meta: meta_before,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_sample_of_an_intent() {
        let intent = Intent {
            index: 7,
            meta: b"m".to_vec(),
            index_before: 6,
            meta_before: vec![],
            more: false,
            others: 3,
            touched: vec![Touched {
                key: b"\x01k".to_vec(),
                before: None,
                after: Some(9),
            }],
        };
        let bytes = Progress::Intent(intent.clone()).encode().expect("small");
        assert_eq!(
            bytes,
            [1, 0, 7, 1, b'm', 6, 0, 0, 3, 1, 2, 1, b'k', 0, 1, 9]
        );
        assert_eq!(Progress::decode(&bytes), Ok(Progress::Intent(intent)));
        assert_eq!(Progress::decode(&[1, 1]), Ok(Progress::Rebuilding));
    }

    fn conclude(found: Option<u128>, others: u128) -> Result<Mark, String> {
        let key = b"\x01k".to_vec();
        let mut proof = Proof::of(Intent {
            index: 7,
            index_before: 6,
            others: 3,
            touched: vec![Touched {
                key: key.clone(),
                before: Some(5),
                after: Some(9),
            }],
            ..Intent::default()
        });
        proof.row(b"\x01other", others);
        if let Some(hash) = found {
            proof.row(&key, hash);
        }
        proof.conclude()
    }

    #[test]
    fn a_batch_is_whole_partly_there_or_damaged() {
        assert_eq!(conclude(Some(9), 3).expect("whole").index, 7);
        assert_eq!(conclude(Some(5), 3).expect("not there yet").index, 6);
        assert_eq!(
            conclude(Some(5), 3).expect("not there yet").digest,
            Digest(8)
        );
        assert!(conclude(Some(6), 3).is_err(), "neither old nor new");
        assert!(conclude(None, 3).is_err(), "vanished");
        assert!(conclude(Some(9), 4).is_err(), "another row changed");
    }
}
