//! The fuzz targets of `tests/fuzz`, fed with seeded mutations: no coverage to guide them, but every run tries the
//! same 100,000 inputs and more, in seconds.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[expect(
    unreachable_pub,
    reason = "libFuzzer links the same files as a library"
)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

mod mutate;
mod seeds;

use mutate::Mutator;

/// Inputs for each target.
const INPUTS: usize = 100_000;

/// Fewer accepted inputs than this and the target only sees garbage at the door.
const ACCEPTED_MIN: usize = INPUTS / 100;

fn hunt(target: fn(&[u8]) -> bool, seeds: &[Vec<u8>], words: &[&[u8]]) {
    let mut mutator = Mutator::new(0x5eed, seeds, words);
    for seed in seeds {
        assert!(
            target(seed),
            "a seed is refused: {}",
            String::from_utf8_lossy(seed)
        );
    }
    let mut accepted = 0;
    for _ in 0..INPUTS {
        let input = mutator.next();
        if target(&input) {
            accepted += 1;
            mutator.keep(input);
        }
    }
    assert!(
        accepted >= ACCEPTED_MIN,
        "only {accepted} inputs were accepted"
    );
}

#[test]
fn no_bytes_break_the_mqtt_codec() {
    hunt(targets::mqtt::run, &seeds::mqtt(), seeds::MQTT_WORDS);
}

#[test]
fn no_bytes_break_a_shadow() {
    hunt(targets::shadow::run, &seeds::shadow(), seeds::SHADOW_WORDS);
}

#[test]
fn no_bytes_break_the_reading_of_records() {
    hunt(
        targets::records::run,
        &seeds::records(),
        seeds::RECORD_WORDS,
    );
}

#[test]
fn no_text_breaks_the_topic_indexes() {
    hunt(targets::topics::run, &seeds::topics(), seeds::TOPIC_WORDS);
}

#[test]
fn no_text_breaks_a_policy() {
    hunt(targets::policy::run, &seeds::policy(), seeds::POLICY_WORDS);
}
