//! Writes until it is stopped, or says whether everything that was acknowledged is there.
//!
//! `durable write DIR` prints a line `group index` for each acknowledged entry, and applies the entries to a state that
//! it snapshots now and then. `durable check DIR < lines` opens what a kill or a power cut left. For power cuts: freeze
//! the writer, wait, cut (`xfs_io -x -c shutdown`), remount, check; a writer that is cut while it prints acknowledges
//! what no disk has seen.

#![expect(clippy::print_stdout, reason = "acknowledgements go to whoever judges")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tool for tests may fail loudly"
)]

use std::{
    collections::BTreeMap,
    env, io,
    path::Path,
    process::exit,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use umbel_core::ids::ShardId;
use umbel_storage::{
    State,
    log::{Done, Fatal, GroupId, GroupLog, Log, LogOptions, Meta},
    store::{StateOptions, StateStore},
    table::{Table, Write},
};

const GROUPS: u16 = 8;
const SNAPSHOT_EVERY: u64 = 500;

fn main() {
    let words: Vec<String> = env::args().collect();
    match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [_, "write", dir] => write(Path::new(dir)),
        [_, "check", dir] => check(Path::new(dir)),
        _ => panic!("durable write|check DIR"),
    }
}

fn open(dir: &Path) -> (Log, StateStore) {
    let fatal: Fatal = Arc::new(|reason| panic!("{reason}"));
    let mut options = LogOptions::new(dir.join("log"), fatal);
    options.reserve_bytes = 0;
    options.file_bytes = 1 << 20;
    options.purge_bytes = 4 << 20;
    let log = Log::open(&options).unwrap();
    let state = StateStore::open(&StateOptions::new(dir.join("state"), GROUPS)).unwrap();
    (log, state)
}

fn data(group: u16, index: u64) -> Bytes {
    format!("{group} {index} {}", "payload ".repeat(40)).into()
}

fn row(index: u64) -> Write {
    Write::put(
        Table::Shadow,
        (index % 100).to_string(),
        index.to_string().into_bytes(),
    )
}

fn write(dir: &Path) {
    let (log, state) = open(dir);
    let (sender, receiver) = mpsc::channel();
    let append = |group: u16, index: u64| {
        let sender = sender.clone();
        let done: Done = Box::new(move |outcome: Result<(), _>| {
            if let Err(error) = outcome {
                println!("# {error}");
                exit(3);
            }
            sender.send((group, index)).unwrap();
        });
        log.append(
            GroupId(group.into()),
            vec![(index, data(group, index))],
            done,
        );
    };
    for group in 0..GROUPS {
        append(group, log.range(GroupId(group.into())).end.max(1));
    }
    for (group, index) in receiver {
        println!("{group} {index}");
        let shard = ShardId(group);
        state
            .apply(shard, index, &index.to_le_bytes(), &[row(index)])
            .unwrap();
        if index % SNAPSHOT_EVERY == 0 {
            state.checkpoint(shard).unwrap();
            let snapshot = state.snapshot(shard).unwrap();
            let upto = snapshot.mark.index;
            let id = upto.to_le_bytes().to_vec().into();
            log.purge(
                GroupId(group.into()),
                upto,
                id,
                Box::new(|outcome| outcome.unwrap()),
            );
        }
        append(group, index + 1);
    }
}

fn check(dir: &Path) {
    let mut acknowledged = BTreeMap::new();
    for line in io::stdin().lines() {
        let line = line.unwrap();
        // the last line may be cut in the middle
        let Some((group, index)) = line.split_once(' ') else {
            continue;
        };
        let (Ok(group), Ok(index)) = (group.parse::<u16>(), index.parse::<u64>()) else {
            continue;
        };
        acknowledged
            .entry(group)
            .and_modify(|last: &mut u64| *last = index.max(*last))
            .or_insert(index);
    }
    let (log, state) = open(dir);
    let (mut compared, mut rebuilt) = (0, 0);
    for (group, last) in acknowledged {
        let (id, shard) = (GroupId(group.into()), ShardId(group));
        let range = log.range(id);
        let purged = log
            .meta(id, Meta::Purged)
            .map_or(0, |id| u64::from_le_bytes(id.as_ref().try_into().unwrap()));
        assert!(
            range.end > last || purged >= last,
            "group {group}: {range:?}, acknowledged {last}"
        );
        assert!(
            range.is_empty() || range.start <= purged + 1,
            "group {group}: hole before {range:?}"
        );
        let entries = log.read(id, range.clone(), usize::MAX).unwrap();
        for (index, bytes) in &entries {
            assert_eq!(*bytes, data(group, *index), "group {group}");
            compared += 1;
        }
        let applied = state.applied(shard).map(|mark| mark.index);
        if applied.is_err() || applied.is_ok_and(|index| index < purged) {
            state
                .restore(&state.latest_snapshot(shard).unwrap().unwrap())
                .unwrap();
            rebuilt += 1;
        }
        let from = state.applied(shard).unwrap().index;
        for (index, _) in entries.iter().filter(|(index, _)| *index > from) {
            state.apply(shard, *index, b"", &[row(*index)]).unwrap();
        }
        let end = range.end.max(purged + 1);
        for index in end.saturating_sub(100).max(1)..end {
            let key = (index % 100).to_string();
            let value = state
                .get(shard, Table::Shadow, key.as_bytes())
                .unwrap()
                .unwrap();
            assert_eq!(
                value,
                index.to_string().into_bytes(),
                "group {group} row {key}"
            );
            compared += 1;
        }
    }
    assert!(compared > 0, "nothing to compare");
    println!("{compared} compared, {rebuilt} shards rebuilt from their snapshot");
}
