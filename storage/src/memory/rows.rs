//! The rows of one shard in a map: what every table operation means, in its plainest form.

use std::{collections::BTreeMap, ops::Bound};

use crate::table::{Operation, Pairs, Table, Write};

/// Rows of one shard, ordered by table and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Rows {
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&(table, key.to_vec())).cloned()
    }

    pub(crate) fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            let key = (write.table, write.key.clone());
            match &write.operation {
                Operation::Put(value) => {
                    self.0.insert(key, value.clone());
                },
                Operation::Delete => {
                    self.0.remove(&key);
                },
                Operation::DeletePrefix => {
                    for key in self.keys_with_prefix(write.table, &write.key) {
                        self.0.remove(&(write.table, key));
                    }
                },
            }
        }
    }

    pub(crate) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Pairs {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((table, after.to_vec())),
            Some(_) | None => Bound::Included((table, prefix.to_vec())),
        };
        self.0
            .range((start, Bound::Unbounded))
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.0
            .iter()
            .map(|((table, key), value)| (*table, key.as_slice(), value.as_slice()))
    }

    fn keys_with_prefix(&self, table: Table, prefix: &[u8]) -> Vec<Vec<u8>> {
        self.0
            .range((table, prefix.to_vec())..)
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .map(|((_, key), _)| key.clone())
            .collect()
    }
}
