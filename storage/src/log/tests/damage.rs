//! Files that were changed behind the log's back: it says so, or has everything.

use std::fs;

use super::*;

/// Writes a log of some flushes of two groups and closes its process the hard way; the entries of each group.
fn written(home: &Path, file_bytes: u64) -> Vec<(u64, String)> {
    let live = home.join("live");
    let options = LogOptions {
        file_bytes,
        ..options(&live)
    };
    let log = Log::open(&options).expect("opens");
    let mut expected = Vec::new();
    for index in 1..=60 {
        let data = format!("{index:>3} {}", "payload ".repeat(20));
        append(&log, G, index, &[&data]).expect("durable");
        append(&log, GroupId(4), index, &[&data]).expect("durable");
        expected.push((index, data));
    }
    wait(|done| log.set_meta(G, Meta::Vote, "vote".into(), done)).expect("durable");
    copy(&live, &home.join("crashed"));
    expected
}

fn log_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("engine")).expect("readable");
    let mut files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "raftlog"));
    files.sort();
    files
}

/// Whether the log in `dir` has everything (true) or says that it does not (false). Panics on a silent loss.
fn whole_or_reported(dir: &Path, expected: &[(u64, String)], what: &str) -> bool {
    let log = match Log::open(&options(dir)) {
        Ok(log) => log,
        Err(OpenError::Damaged { .. } | OpenError::Lost { .. }) => return false,
        Err(error) => panic!("{what}: {error}"),
    };
    for group in [G, GroupId(4)] {
        assert_eq!(log.range(group), 1..61, "{what}: entries are silently gone");
        for (index, data) in expected {
            match log.read(group, *index..index + 1, usize::MAX) {
                Ok(found) => assert_eq!(found, [entry(*index, data)], "{what}"),
                Err(LogError::Damaged { .. }) => return false,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert_eq!(
        log.meta(G, Meta::Vote),
        Some("vote".into()),
        "{what}: the vote is silently gone"
    );
    true
}

#[test]
fn a_torn_end_is_cut_off_and_nothing_acknowledged_with_it() {
    let home = tempfile::tempdir().expect("temporary directory");
    let expected = written(home.path(), 1 << 20);
    let crashed = home.path().join("crashed");
    let last = log_files(&crashed).pop().expect("a file");
    let length = fs::read(&last).expect("readable");
    let used = length
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("not empty")
        + 1;
    for torn in [
        &b"\x01"[..],
        &b"\xff\xff\xff\xff\xff\xff\xff\xff half a batch"[..],
    ] {
        let mut bytes = length[..used].to_vec();
        bytes.extend_from_slice(torn);
        bytes.extend_from_slice(&[0; 4096]);
        let case = home.path().join("case");
        copy(&crashed, &case);
        fs::write(log_files(&case).pop().expect("a file"), &bytes).expect("writable");
        assert!(whole_or_reported(&case, &expected, "torn end"));
        fs::remove_dir_all(&case).expect("removed");
    }
}

#[test]
fn no_flip_cut_or_hole_in_a_log_file_goes_unnoticed() {
    let (damages, noticed) = campaign(7);
    assert!(
        damages > 100 && noticed > damages / 2,
        "{noticed} of {damages} noticed"
    );
}

#[test]
#[ignore = "minutes; run by hand before a release"]
#[expect(clippy::print_stderr, reason = "the figures are for a person")]
fn no_damage_to_a_log_file_goes_unnoticed_in_a_long_campaign() {
    let (damages, noticed) = campaign(120);
    assert!(damages > 1_000, "{noticed} of {damages} noticed");
    eprintln!("log: {damages} damages, {noticed} reported, the others harmless, 0 silent");
}

/// Damages each of several files, closed ones and the last, at `steps` places in three ways; panics on a silent loss.
fn campaign(steps: usize) -> (u32, u32) {
    let home = tempfile::tempdir().expect("temporary directory");
    let expected = written(home.path(), 6 << 10);
    let crashed = home.path().join("crashed");
    let files = log_files(&crashed);
    assert!(files.len() > 2, "several files");
    let (mut damages, mut noticed) = (0, 0);
    for file in &files {
        let bytes = fs::read(file).expect("readable");
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        for step in 0..steps {
            let at = used * step / steps;
            for kind in ["flip", "cut", "hole"] {
                let mut changed = bytes.clone();
                match kind {
                    "flip" => changed[at] ^= 1 << (step % 8),
                    "cut" => changed.truncate(at),
                    _ => changed[at..(at + 512).min(used)].fill(0),
                }
                if changed == bytes {
                    continue;
                }
                let case = home.path().join("case");
                copy(&crashed, &case);
                let name = file.file_name().expect("has a name");
                fs::write(case.join("engine").join(name), &changed).expect("writable");
                let what = format!("{kind} at {at} of {}", file.display());
                damages += 1;
                noticed += u32::from(!whole_or_reported(&case, &expected, &what));
                // a second look is not reassured by what the first one cut off
                if step % 4 == 0 {
                    whole_or_reported(&case, &expected, &format!("{what}, opened again"));
                }
                fs::remove_dir_all(&case).expect("removed");
            }
        }
    }
    (damages, noticed)
}

#[test]
fn a_deleted_log_is_reported_lost_until_the_loss_is_accepted() {
    let home = tempfile::tempdir().expect("temporary directory");
    written(home.path(), 1 << 20);
    let crashed = home.path().join("crashed");
    fs::remove_dir_all(crashed.join("engine")).expect("removed");
    for _ in 0..2 {
        let error = Log::open(&options(&crashed)).expect_err("the log is gone");
        assert!(
            matches!(
                error,
                OpenError::Lost {
                    found: 0,
                    expected: 121,
                    ..
                }
            ),
            "{error}"
        );
    }
    fs::remove_file(crashed.join("high-water")).expect("removed");
    let log = Log::open(&options(&crashed)).expect("the operator accepted");
    assert_eq!(log.range(G), 0..0);
}

#[test]
fn a_second_process_on_the_directory_is_refused() {
    let home = tempfile::tempdir().expect("temporary directory");
    let log = Log::open(&options(home.path())).expect("opens");
    assert!(Log::open(&options(home.path())).is_err());
    append(&log, G, 1, &["a"]).expect("the first one goes on");
}

#[test]
fn what_clean_up_rewrote_is_guarded_too() {
    let home = tempfile::tempdir().expect("temporary directory");
    let live = home.path().join("live");
    let small = LogOptions {
        file_bytes: 8 << 10,
        purge_bytes: 16 << 10,
        ..options(&live)
    };
    let quiet = GroupId(9);
    {
        let log = Log::open(&small).expect("opens");
        append(&log, quiet, 1, &["quiet"]).expect("durable");
        wait(|done| log.set_meta(quiet, Meta::Vote, "vote".into(), done)).expect("durable");
        let data = noise(1000);
        for index in 1..=90 {
            append(&log, G, index, &[&data]).expect("durable");
            let purged = index.to_string().into();
            wait(|done| log.purge(G, index, purged, done)).expect("durable");
        }
    }
    // opening cleans up at once; the second process was killed some time after that
    let log = Log::open(&small).expect("opens");
    let noted = || fs::read_to_string(live.join("rewritten")).unwrap_or_default();
    eventually(|| {
        noted()
            .split(' ')
            .next()
            .is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 100))
    });
    append(&log, G, 91, &["last"]).expect("durable");
    let crashed = home.path().join("crashed");
    copy(&live, &crashed);
    let rewritten = fs::read_dir(crashed.join("engine")).expect("readable");
    let rewritten = rewritten.map(|file| file.expect("readable").path());
    let file = rewritten
        .filter(|path| path.extension().is_some_and(|kind| kind == "rewrite"))
        .max();
    let file = file.expect("clean-up rewrote something");
    let bytes = fs::read(&file).expect("readable");
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("not empty")
        + 1;
    let mut reported = 0;
    for at in (0..used).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let case = home.path().join("case");
        copy(&crashed, &case);
        fs::write(
            case.join("engine").join(file.file_name().expect("named")),
            changed,
        )
        .expect("writable");
        match Log::open(&options(&case)) {
            Ok(log) => {
                assert_eq!(log.range(quiet), 1..2, "flip at {at}");
                assert_eq!(
                    log.meta(quiet, Meta::Vote),
                    Some("vote".into()),
                    "flip at {at}"
                );
            },
            Err(_) => reported += 1,
        }
        fs::remove_dir_all(&case).expect("removed");
    }
    assert!(reported > used / 4, "{reported} of {used}");
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> String {
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + u8::try_from(seed >> 59).expect("five bits"))
    };
    (0..bytes).map(|_| next()).collect()
}

fn eventually(condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed().as_secs() < 30, "it does not happen");
        std::thread::yield_now();
    }
}
