//! Files that were changed behind the store's back, and batches that were cut in the middle.

use std::fs;

use super::*;

/// Rows of every shard as they were written.
fn filled(dir: &Path, rows: u32) -> Vec<Vec<(Table, Pairs)>> {
    let store = open(dir);
    for shard in 0..SHARDS {
        for index in 1..=10 {
            let writes: Vec<_> = (0..rows / 10)
                .map(|n| put(&format!("device-{index}-{n}"), &"some state ".repeat(20)))
                .collect();
            store
                .apply(ShardId(shard), index, b"meta", &writes)
                .expect("applied");
        }
        store.checkpoint(ShardId(shard)).expect("durable");
    }
    (0..SHARDS)
        .map(|shard| all(&store, ShardId(shard)).expect("sound"))
        .collect()
}

/// Opens a changed store: each shard has every row, or says that it is damaged, or (a store set aside) is as if it
/// had never been, which the log knows better. Returns how many shards are whole.
fn judge(dir: &Path, expected: &[Vec<(Table, Pairs)>], what: &str) -> usize {
    let store = open(dir);
    let mut whole = 0;
    for (shard, rows) in (0..).map(ShardId).zip(expected) {
        let Ok(mark) = store.applied(shard) else {
            assert!(store.damaged().contains(&shard), "{what}: not listed");
            assert!(
                store.get(shard, Table::Shadow, b"x").is_err(),
                "{what}: served"
            );
            continue;
        };
        match all(&store, shard) {
            Ok(found) if mark.index == 10 => {
                assert!(
                    found == *rows,
                    "{what}: shard {shard} claims index 10 and has other rows"
                );
                whole += 1;
            },
            // an earlier state that is consistent: the log is applied again from there
            Ok(_) => assert_eq!(mark.digest, recomputed(&store, shard), "{what}"),
            Err(_) => assert!(store.damaged().contains(&shard), "{what}: not listed"),
        }
    }
    whole
}

#[test]
fn no_flip_cut_or_hole_in_sleds_file_goes_unnoticed() {
    let (damages, hurt) = campaign(16);
    assert!(
        damages > 30 && hurt > 10,
        "{hurt} of {damages} did anything"
    );
}

#[test]
#[ignore = "minutes; run by hand before a release"]
#[expect(clippy::print_stderr, reason = "the figures are for a person")]
fn no_damage_to_sleds_file_goes_unnoticed_in_a_long_campaign() {
    let (damages, hurt) = campaign(400);
    assert!(damages > 1_000, "{damages}");
    eprintln!("state: {damages} damages, {hurt} hurt a shard and were reported, 0 silent");
}

/// Damages sled's file at `steps` places in three ways; panics on a silent loss.
fn campaign(steps: usize) -> (u32, u32) {
    let home = tempfile::tempdir().expect("temporary directory");
    let live = home.path().join("live");
    let expected = filled(&live, 300);
    let file = |dir: &Path| dir.join("sled").join("db");
    let bytes = fs::read(file(&live)).expect("readable");
    let control = home.path().join("control");
    copy(&live, &control);
    assert_eq!(
        judge(&control, &expected, "control"),
        usize::from(SHARDS),
        "nothing was damaged"
    );
    let (mut damages, mut hurt) = (0, 0);
    for step in 0..steps {
        let at = (bytes.len() * step / steps + step * 13) % bytes.len();
        for kind in ["flip", "cut", "hole"] {
            let mut changed = bytes.clone();
            match kind {
                "flip" => changed[at] ^= 1 << (step % 8),
                "cut" => changed.truncate(at),
                _ => {
                    let page = at / 4096 * 4096;
                    changed[page..(page + 4096).min(bytes.len())].fill(0);
                },
            }
            if changed == bytes {
                continue;
            }
            let case = home.path().join("case");
            copy(&live, &case);
            fs::write(file(&case), &changed).expect("writable");
            damages += 1;
            let whole = judge(&case, &expected, &format!("{kind} at {at}"));
            hurt += u32::from(whole < usize::from(SHARDS));
            fs::remove_dir_all(&case).expect("removed");
        }
    }
    (damages, hurt)
}

#[test]
fn a_store_that_does_not_open_is_set_aside_and_rebuilt_from_snapshots() {
    let home = tempfile::tempdir().expect("temporary directory");
    let dir = home.path().join("state");
    let expected = filled(&dir, 50);
    {
        let store = open(&dir);
        store.snapshot(S).expect("written");
    }
    for (round, aside) in [(1, "damaged-1"), (2, "damaged-2"), (3, "damaged-3")] {
        fs::remove_file(dir.join("sled").join("db")).expect("removed");
        fs::create_dir(dir.join("sled").join("db")).expect("nothing sled can open");
        let store = open(&dir);
        assert!(dir.join(aside).is_dir(), "round {round}");
        assert_eq!(store.applied(S).expect("empty, not damaged").index, 0);
        let snapshot = store
            .latest_snapshot(S)
            .expect("readable")
            .expect("outlives the store");
        store.restore(&snapshot).expect("restored");
        assert_eq!(all(&store, S).expect("sound"), expected[usize::from(S.0)]);
    }
    assert!(
        !dir.join("damaged-1").exists(),
        "only the last ones are kept"
    );
}

#[test]
fn a_second_process_does_not_set_the_store_aside() {
    let home = tempfile::tempdir().expect("temporary directory");
    let store = open(home.path());
    store.apply(S, 1, b"", &[put("a", "1")]).expect("applied");
    assert!(StateStore::open(&options(home.path())).is_err());
    assert!(!home.path().join("damaged-1").exists());
    assert_eq!(value(&store, S, "a").as_deref(), Some("1"));
}

/// The store behind its back: what a crash between two operations of sled leaves.
fn raw(store: &StateStore) -> &Rows {
    &store.rows
}

#[test]
fn a_batch_cut_after_any_of_its_operations_is_replayed() {
    let before = [put("keep", "k"), put("change", "old"), put("remove", "r")];
    let batch = [
        put("change", "new"),
        Write::delete(Table::Shadow, "remove"),
        put("add", "a"),
        put("add too", "b"),
    ];
    let whole = Disk::new();
    whole.state().apply(S, 1, b"1", &before).expect("applied");
    whole.state().apply(S, 2, b"2", &batch).expect("applied");
    let expected = all(whole.state(), S).expect("sound");
    let intent = raw(whole.store.as_ref().expect("open")).get(&row_key(S, OWN, &[]));
    let intent = intent.expect("readable").expect("written");
    for cut in 0..=4 {
        let mut disk = Disk::new();
        disk.state().apply(S, 1, b"1", &before).expect("applied");
        let rows = raw(disk.store.as_ref().expect("open"));
        rows.put(&row_key(S, OWN, &[]), &intent).expect("written");
        // sled's order is the order of the keys within a batch
        let mut writes = batch.to_vec();
        writes.sort_by(|a, b| a.key.cmp(&b.key));
        for write in writes.iter().take(cut) {
            let key = row_key(S, Table::Shadow as u8, &write.key);
            match &write.operation {
                crate::table::Operation::Put(value) => rows.put(&key, value).expect("written"),
                crate::table::Operation::Delete | crate::table::Operation::DeletePrefix => {
                    rows.remove(&key).expect("removed");
                },
            }
        }
        disk.state().checkpoint(S).expect("durable");
        disk.crash();
        let mark = disk.state().applied(S).expect("sound");
        assert_eq!(mark.index, if cut == 4 { 2 } else { 1 }, "cut after {cut}");
        assert_eq!(mark.digest, recomputed(disk.state(), S));
        disk.state()
            .apply(S, 2, b"2", &batch)
            .expect("applied again");
        assert_eq!(
            all(disk.state(), S).expect("sound"),
            expected,
            "cut after {cut}"
        );
        assert_eq!(
            disk.state().applied(S).expect("sound").digest,
            recomputed(disk.state(), S)
        );
    }
}

#[test]
fn rows_that_vanish_change_or_move_are_found_at_start_and_by_the_scrub() {
    type Harm = fn(&Rows);
    let key = |name: &str| row_key(S, Table::Shadow as u8, name.as_bytes());
    let harms: [(&str, Harm); 4] = [
        ("vanished", |rows| {
            rows.remove(&row_key(S, Table::Shadow as u8, b"a"))
                .expect("removed");
        }),
        ("an older value", |rows| {
            rows.put(&row_key(S, Table::Shadow as u8, b"a"), b"old")
                .expect("written");
        }),
        ("from nowhere", |rows| {
            rows.put(&row_key(S, Table::Queue as u8, b"new"), b"1")
                .expect("written");
        }),
        ("progress gone", |rows| {
            rows.remove(&row_key(S, OWN, &[])).expect("removed");
        }),
    ];
    for (what, harm) in harms {
        let mut disk = Disk::new();
        disk.state()
            .apply(S, 1, b"", &[put("a", "1"), put("b", "2")])
            .expect("applied");
        disk.state()
            .apply(S, 2, b"", &[put("c", "3")])
            .expect("applied");
        disk.state()
            .apply(ShardId(0), 1, b"", &[put("a", "1")])
            .expect("applied");
        harm(raw(disk.store.as_ref().expect("open")));
        disk.state().checkpoint(S).expect("durable");
        if what != "progress gone" {
            while !disk.state().scrub(1) {}
            assert_eq!(disk.state().damaged(), vec![S], "{what}, by the scrub");
        }
        disk.crash();
        assert_eq!(disk.state().damaged(), vec![S], "{what}, at start");
        assert_eq!(
            value(disk.state(), ShardId(0), "a").as_deref(),
            Some("1"),
            "neighbour"
        );
        disk.state().drop_shard(S).expect("dropped");
        assert_eq!(disk.state().damaged(), vec![]);
    }
    // a value under another key's name is noticed when it is read
    let disk = Disk::new();
    disk.state()
        .apply(S, 1, b"", &[put("a", "1"), put("b", "2")])
        .expect("applied");
    let rows = raw(disk.store.as_ref().expect("open"));
    rows.put_raw(&key("a"), &crate::codec::seal(&key("b"), b"2"));
    assert!(disk.state().get(S, Table::Shadow, b"a").is_err());
    assert_eq!(disk.state().damaged(), vec![S]);
}

#[test]
fn an_interrupted_rebuild_is_damage() {
    let mut disk = Disk::new();
    disk.state()
        .apply(S, 1, b"", &[put("a", "1")])
        .expect("applied");
    let rows = raw(disk.store.as_ref().expect("open"));
    apply::put_progress(rows, S, &Progress::Rebuilding).expect("written");
    disk.state().checkpoint(S).expect("durable");
    disk.crash();
    assert_eq!(disk.state().damaged(), vec![S]);
}

#[test]
fn a_scrub_under_changes_neither_misses_nor_invents_damage() {
    let disk = Disk::new();
    let state = disk.state();
    let many: Vec<_> = (0..40).map(|n| put(&format!("k{n:02}"), "v")).collect();
    state.apply(S, 1, b"", &many).expect("applied");
    for round in 2..60u64 {
        state.scrub(3);
        let key = format!("k{:02}", (round * 7) % 45);
        let write = match round % 3 {
            0 => Write::delete(Table::Shadow, key.as_str()),
            _ => put(&key, &round.to_string()),
        };
        state.apply(S, round, b"", &[write]).expect("applied");
    }
    while !state.scrub(3) {}
    assert_eq!(state.damaged(), vec![]);
}
