//! What every [`GroupLog`] does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::memory::MemoryLog;

/// A log that can lose its process.
trait Site {
    fn log(&self) -> &dyn GroupLog;
    /// What a restart after a crash finds.
    fn crash(&mut self);
}

struct Memory(MemoryLog);

impl Site for Memory {
    fn log(&self) -> &dyn GroupLog {
        &self.0
    }

    fn crash(&mut self) {
        self.0 = self.0.crash_copy();
    }
}

struct Disk {
    log: Option<Log>,
    home: tempfile::TempDir,
    life: u32,
}

impl Disk {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        let log = Log::open(&options(&home.path().join("0"))).expect("opens");
        Self {
            log: Some(log),
            home,
            life: 0,
        }
    }
}

impl Site for Disk {
    fn log(&self) -> &dyn GroupLog {
        self.log.as_ref().expect("open")
    }

    fn crash(&mut self) {
        let old = self.home.path().join(self.life.to_string());
        self.life += 1;
        let new = self.home.path().join(self.life.to_string());
        copy(&old, &new);
        self.log = Some(Log::open(&options(&new)).expect("opens again"));
        std::fs::remove_dir_all(&old).expect("removed");
    }
}

fn sites() -> Vec<Box<dyn Site>> {
    vec![Box::new(Memory(MemoryLog::new())), Box::new(Disk::new())]
}

fn value(site: &dyn Site, key: Meta) -> Option<Bytes> {
    site.log().meta(G, key)
}

#[test]
fn acknowledged_entries_and_votes_survive_a_crash() {
    for mut site in sites() {
        append(site.log(), G, 1, &["a", "b"]).expect("durable");
        append(site.log(), GroupId(0), 7, &["x"]).expect("durable");
        wait(|done| site.log().set_meta(G, Meta::Vote, "me".into(), done)).expect("durable");
        append(site.log(), G, 3, &["c"]).expect("durable");
        for _ in 0..2 {
            assert_eq!(site.log().range(G), 1..4);
            assert_eq!(
                all(site.log(), G),
                [(1, "a".into()), (2, "b".into()), (3, "c".into())]
            );
            assert_eq!(all(site.log(), GroupId(0)), [(7, "x".into())]);
            assert_eq!(value(site.as_ref(), Meta::Vote), Some("me".into()));
            assert_eq!(value(site.as_ref(), Meta::Committed), None);
            assert_eq!(site.log().range(GroupId(9)), 0..0);
            site.crash();
        }
    }
}

#[test]
fn a_truncated_end_stays_away_and_is_replaced() {
    for mut site in sites() {
        append(site.log(), G, 1, &["a", "b", "c", "d"]).expect("durable");
        wait(|done| site.log().truncate(G, 3, done)).expect("durable");
        site.crash();
        assert_eq!(all(site.log(), G), [(1, "a".into()), (2, "b".into())]);
        append(site.log(), G, 3, &["C"]).expect("durable");
        site.crash();
        assert_eq!(
            all(site.log(), G),
            [(1, "a".into()), (2, "b".into()), (3, "C".into())]
        );
    }
}

#[test]
fn a_log_that_was_cut_to_nothing_begins_anywhere() {
    for begin in [1, 2, 5, 40] {
        for mut site in sites() {
            append(site.log(), G, 2, &["a", "b", "c"]).expect("durable");
            wait(|done| site.log().truncate(G, 2, done)).expect("durable");
            assert_eq!(site.log().range(G), 0..0);
            site.crash();
            append(site.log(), G, begin, &["new"]).expect("durable");
            site.crash();
            assert_eq!(
                all(site.log(), G),
                [(begin, "new".into())],
                "begins at {begin}"
            );
        }
    }
}

#[test]
fn purging_keeps_the_rest_and_the_purged_id() {
    for mut site in sites() {
        append(site.log(), G, 1, &["a", "b", "c"]).expect("durable");
        wait(|done| site.log().purge(G, 2, "id-2".into(), done)).expect("durable");
        site.crash();
        assert_eq!(all(site.log(), G), [(3, "c".into())]);
        assert_eq!(value(site.as_ref(), Meta::Purged), Some("id-2".into()));
        // an installed snapshot may be ahead of the log
        wait(|done| site.log().purge(G, 9, "id-9".into(), done)).expect("durable");
        assert_eq!(site.log().range(G), 0..0);
        append(site.log(), G, 10, &["k"]).expect("durable");
        site.crash();
        assert_eq!(all(site.log(), G), [(10, "k".into())]);
        assert_eq!(value(site.as_ref(), Meta::Purged), Some("id-9".into()));
    }
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    for site in sites() {
        append(site.log(), G, 5, &["a"]).expect("an empty log begins anywhere");
        for index in [4, 5, 7] {
            let outcome = append(site.log(), G, index, &["b"]);
            assert_eq!(
                outcome,
                Err(LogError::Gap {
                    group: G,
                    index,
                    last: 5
                })
            );
        }
        let holed = vec![entry(6, "b"), entry(8, "c")];
        assert!(wait(|done| site.log().append(G, holed, done)).is_err());
        assert_eq!(all(site.log(), G), [(5, "a".into())]);
    }
}

#[test]
fn reads_are_bounded_but_never_empty_handed() {
    for mut site in sites() {
        let data: Vec<_> = (0..9).map(|_| "0123456789").collect();
        append(site.log(), G, 1, &data).expect("durable");
        for _ in 0..2 {
            let lengths = |range, bytes| site.log().read(G, range, bytes).expect("readable").len();
            // the bound may count a few bytes of framing
            assert!((2..=3).contains(&lengths(1..10, 30)));
            assert_eq!(lengths(1..10, 1), 1);
            assert_eq!(lengths(8..100, 1000), 2);
            assert_eq!(lengths(0..5, 1000), 0, "a hole at the start");
            assert_eq!(lengths(50..60, 1000), 0);
            site.crash();
        }
    }
}

#[test]
fn a_removed_group_is_gone_and_may_begin_again() {
    for mut site in sites() {
        append(site.log(), G, 1, &["a"]).expect("durable");
        wait(|done| site.log().set_meta(G, Meta::Vote, "v".into(), done)).expect("durable");
        wait(|done| site.log().remove(G, done)).expect("durable");
        site.crash();
        assert_eq!(
            (site.log().range(G), value(site.as_ref(), Meta::Vote)),
            (0..0, None)
        );
        append(site.log(), G, 9, &["b"]).expect("durable");
        site.crash();
        assert_eq!(all(site.log(), G), [(9, "b".into())]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, usize),
    Truncate(u64),
    Purge(u64),
    Vote(u8),
    Remove,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<(u8, Step)>> {
    let step = prop_oneof![
        6 => (any::<u8>(), 1..4usize).prop_map(|(data, count)| Step::Append(data, count)),
        2 => (0..6u64).prop_map(Step::Truncate),
        2 => (0..6u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Remove),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec((0..3u8, step), 1..40)
}

fn take(site: &mut dyn Site, group: GroupId, step: &Step) {
    let range = site.log().range(group);
    match step {
        Step::Append(data, count) => {
            let first = if range.is_empty() {
                u64::from(*data) + 1
            } else {
                range.end
            };
            let entries = (first..)
                .take(*count)
                .map(|index| (index, vec![*data; 9].into()));
            let entries = entries.collect();
            wait(|done| site.log().append(group, entries, done)).expect("follows");
        },
        Step::Truncate(back) => {
            let since = range.end.saturating_sub(*back).max(range.start);
            wait(|done| site.log().truncate(group, since, done)).expect("durable");
        },
        Step::Purge(forth) if !range.is_empty() => {
            let upto = range.start + forth;
            let id = upto.to_string().into();
            wait(|done| site.log().purge(group, upto, id, done)).expect("durable");
        },
        Step::Purge(_) => {},
        Step::Vote(vote) => {
            let value = vec![*vote].into();
            wait(|done| site.log().set_meta(group, Meta::Vote, value, done)).expect("durable");
        },
        Step::Remove => wait(|done| site.log().remove(group, done)).expect("durable"),
        Step::Crash => site.crash(),
    }
}

type Content = BTreeMap<u64, (Vec<(u64, Bytes)>, Vec<Option<Bytes>>)>;

fn content(site: &dyn Site) -> Content {
    let of = |group: u64| {
        let id = GroupId(group);
        let entries = site
            .log()
            .read(id, site.log().range(id), usize::MAX)
            .expect("readable");
        let metas = Meta::ALL.map(|key| site.log().meta(id, key)).to_vec();
        (group, (entries, metas))
    };
    (0..3).map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_agree_after_any_steps_and_crashes(steps in steps()) {
        let (mut disk, mut memory) = (Disk::new(), Memory(MemoryLog::new()));
        for (group, step) in &steps {
            let group = GroupId(u64::from(*group));
            take(&mut disk, group, step);
            take(&mut memory, group, step);
            prop_assert_eq!(disk.log().range(group), memory.log().range(group));
        }
        prop_assert_eq!(content(&disk), content(&memory));
        disk.crash();
        prop_assert_eq!(content(&disk), content(&memory));
    }
}
