//! What every [`State`] does.

use proptest::prelude::*;

use super::*;
use crate::state::{Health, Mark};

#[test]
fn applied_rows_are_read_and_scanned_in_their_shard() {
    for site in sites() {
        let state = site.state();
        let writes = [
            put("a\0", "0"),
            put("a\0x", "1"),
            put("a\0y", "2"),
            put("b\0", "3"),
        ];
        state.apply(S, 1, b"one", &writes).expect("applied");
        state
            .apply(ShardId(2), 1, b"", &[put("a\0", "other")])
            .expect("applied");
        assert_eq!(value(state, S, "a\0x").as_deref(), Some("1"));
        assert_eq!(value(state, ShardId(2), "a\0").as_deref(), Some("other"));
        assert_eq!(state.get(S, Table::Device, b"a\0").expect("sound"), None);
        let keys = |after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
            let pairs = state
                .scan(S, Table::Shadow, b"a\0", after, limit)
                .expect("sound");
            pairs.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(None, 2), [b"a\0".to_vec(), b"a\0x".to_vec()]);
        assert_eq!(keys(Some(b"a\0x"), 9), [b"a\0y".to_vec()]);
        assert_eq!(keys(Some(b"a"), 9).len(), 3);
        let mark = state.applied(S).expect("sound");
        assert_eq!((mark.index, mark.meta.as_slice()), (1, b"one".as_slice()));
        assert_eq!(mark.digest, recomputed(state, S));
        assert_eq!(state.applied(ShardId(3)).expect("sound"), Mark::default());
    }
}

#[test]
fn later_writes_of_an_entry_win_and_prefixes_go_as_a_whole() {
    for site in sites() {
        let state = site.state();
        state
            .apply(
                S,
                1,
                b"",
                &[put("q\0a", "1"), put("q\0b", "2"), put("r", "3")],
            )
            .expect("applied");
        let writes = [
            put("q\0c", "gone"),
            Write::delete_prefix(Table::Shadow, "q\0"),
            put("q\0d", "new"),
            put("r", "x"),
            Write::delete(Table::Shadow, "r"),
            Write::delete(Table::Shadow, "never there"),
        ];
        state.apply(S, 2, b"", &writes).expect("applied");
        let left = state.scan(S, Table::Shadow, b"", None, 9).expect("sound");
        assert_eq!(left, [(b"q\0d".to_vec(), b"new".to_vec())]);
        assert_eq!(
            state.applied(S).expect("sound").digest,
            recomputed(state, S)
        );
    }
}

#[test]
fn a_checkpoint_survives_a_crash() {
    for mut site in sites() {
        site.state()
            .apply(S, 7, b"m", &[put("a", "1")])
            .expect("applied");
        let mark = site.state().checkpoint(S).expect("durable");
        site.crash();
        assert_eq!(site.state().applied(S).expect("sound"), mark);
        assert_eq!(value(site.state(), S, "a").as_deref(), Some("1"));
    }
}

#[test]
fn a_snapshot_brings_back_exactly_its_rows() {
    for mut site in sites() {
        let many: Vec<_> = (0..700)
            .map(|n| put(&format!("k{n:03}"), "value"))
            .collect();
        site.state().apply(S, 3, b"three", &many).expect("applied");
        let snapshot = site.state().snapshot(S).expect("written");
        let mark = site.state().applied(S).expect("sound");
        assert_eq!(snapshot.mark, mark);
        site.state()
            .apply(S, 4, b"four", &[put("late", "x"), put("k000", "y")])
            .expect("applied");
        site.crash();
        let snapshot = site
            .state()
            .latest_snapshot(S)
            .expect("readable")
            .expect("there");
        site.state().restore(&snapshot).expect("restored");
        assert_eq!(site.state().applied(S).expect("sound"), mark);
        assert_eq!(value(site.state(), S, "late"), None);
        assert_eq!(recomputed(site.state(), S), mark.digest);
        assert!(
            site.state()
                .latest_snapshot(ShardId(0))
                .expect("readable")
                .is_none()
        );
    }
}

#[test]
fn a_snapshot_travels_and_is_checked_on_arrival() {
    for (from, to) in sites().into_iter().zip(sites().into_iter().rev()) {
        from.state()
            .apply(S, 3, b"m", &[put("a", "1"), put("b", "2")])
            .expect("applied");
        let bytes = from
            .state()
            .snapshot(S)
            .expect("written")
            .bytes()
            .expect("readable");
        to.state()
            .apply(S, 9, b"", &[put("c", "3")])
            .expect("applied");
        for bit in (0..bytes.len() * 8).step_by(5) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                to.state().receive_snapshot(S, &damaged).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..bytes.len() {
            assert!(
                to.state().receive_snapshot(S, &bytes[..length]).is_err(),
                "length {length}"
            );
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(to.state().receive_snapshot(S, &longer).is_err());
        assert!(
            to.state().receive_snapshot(ShardId(2), &bytes).is_err(),
            "another shard's"
        );
        assert_eq!(
            value(to.state(), S, "c").as_deref(),
            Some("3"),
            "nothing changed"
        );
        let snapshot = to.state().receive_snapshot(S, &bytes).expect("whole");
        to.state().restore(&snapshot).expect("restored");
        assert_eq!(
            all(to.state(), S).expect("sound"),
            all(from.state(), S).expect("sound")
        );
        assert_eq!(
            to.state().applied(S).expect("sound"),
            from.state().applied(S).expect("sound")
        );
    }
}

#[test]
fn a_quarantined_shard_serves_nothing_until_it_is_rebuilt() {
    for site in sites() {
        let state = site.state();
        state.apply(S, 1, b"", &[put("a", "1")]).expect("applied");
        let snapshot = state.snapshot(S).expect("written");
        state.quarantine(S, "found out");
        assert_eq!(
            (state.health(S), state.damaged()),
            (Health::Damaged("found out".into()), vec![S])
        );
        assert!(state.get(S, Table::Shadow, b"a").is_err());
        assert!(state.scan(S, Table::Shadow, b"", None, 1).is_err());
        assert!(state.apply(S, 2, b"", &[]).is_err());
        assert!(
            state.applied(S).is_err() && state.checkpoint(S).is_err() && state.snapshot(S).is_err()
        );
        assert_eq!(value(state, ShardId(0), "a"), None, "the neighbours serve");
        state.restore(&snapshot).expect("restored");
        assert_eq!((state.health(S), state.damaged()), (Health::Sound, vec![]));
        assert_eq!(value(state, S, "a").as_deref(), Some("1"));
        state.quarantine(S, "again");
        state.drop_shard(S).expect("dropped");
        assert_eq!(state.applied(S).expect("sound"), Mark::default());
        assert_eq!(value(state, S, "a"), None);
        assert!(
            state.latest_snapshot(S).expect("readable").is_some(),
            "the snapshot stays"
        );
    }
}

fn write() -> impl Strategy<Value = Write> {
    let key = prop::collection::vec(0..3u8, 0..3);
    let table = prop::sample::select(vec![Table::Device, Table::Queue]);
    (table, key, any::<u8>(), 0..10u8).prop_map(|(table, key, value, kind)| match kind {
        0 => Write::delete_prefix(table, key),
        1..=3 => Write::delete(table, key),
        _ => Write::put(table, key, vec![value]),
    })
}

fn entries() -> impl Strategy<Value = Vec<Vec<Write>>> {
    prop::collection::vec(prop::collection::vec(write(), 0..90), 1..8)
}

fn apply_all(state: &dyn State, entries: &[Vec<Write>], from: u64) {
    for (index, writes) in (1..).zip(entries).filter(|(index, _)| *index >= from) {
        state
            .apply(S, index, &index.to_le_bytes(), writes)
            .expect("applied");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn digest_equals_full_recomputation_and_both_stores_agree(entries in entries()) {
        let (disk, memory) = (Disk::new(), Memory(MemoryState::new()));
        apply_all(disk.state(), &entries, 1);
        apply_all(memory.state(), &entries, 1);
        let mark = disk.state().applied(S).expect("sound");
        prop_assert_eq!(mark.digest, recomputed(disk.state(), S));
        prop_assert_eq!(&mark, &memory.state().applied(S).expect("sound"));
        prop_assert_eq!(all(disk.state(), S).expect("sound"), all(memory.state(), S).expect("sound"));
        while !disk.state().scrub(7) {}
        prop_assert_eq!(disk.state().damaged(), vec![]);
    }

    #[test]
    fn replay_from_anywhere_is_idempotent(entries in entries(), back in 0..8u64) {
        for site in sites() {
            apply_all(site.state(), &entries, 1);
            let before = all(site.state(), S).expect("sound");
            apply_all(site.state(), &entries, back);
            prop_assert_eq!(all(site.state(), S).expect("sound"), before);
            prop_assert_eq!(site.state().applied(S).expect("sound").digest, recomputed(site.state(), S));
        }
    }

    #[test]
    fn a_crash_loses_a_tail_of_entries_that_replay_brings_back(entries in entries(), kept in 0..8usize) {
        let mut disk = Disk::new();
        let kept = kept.min(entries.len());
        apply_all(disk.state(), &entries[..kept], 1);
        disk.state().checkpoint(S).expect("durable");
        apply_all(disk.state(), &entries, 1);
        let before = all(disk.state(), S).expect("sound");
        disk.crash();
        let mark = disk.state().applied(S).expect("sound after a crash");
        prop_assert!(mark.index >= kept as u64, "{} of {kept}", mark.index);
        apply_all(disk.state(), &entries, mark.index + 1);
        prop_assert_eq!(all(disk.state(), S).expect("sound"), before);
        prop_assert_eq!(disk.state().applied(S).expect("sound").digest, recomputed(disk.state(), S));
    }
}
