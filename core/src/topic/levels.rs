//! Cutting topics and filters into levels without copying them.
//!
//! A *rest* is what is left of a text behind some levels: empty, or with its leading slash.

use memchr::memchr;

/// The first level, and the rest with its leading slash.
pub(super) fn split_level(text: &str) -> (&str, &str) {
    let end = memchr(b'/', text.as_bytes()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// A rest without its leading slash; `None` when there is no further level.
pub(super) fn behind(rest: &str) -> Option<&str> {
    rest.strip_prefix('/')
}

/// The levels at the front of a rest that are no wildcards, slashes included.
pub(super) fn literal_run(rest: &str) -> &str {
    let mut end = 0;
    let mut left = rest;
    while let Some(text) = behind(left) {
        let (level, after) = split_level(text);
        if matches!(level, "+" | "#") {
            break;
        }
        end += 1 + level.len();
        left = after;
    }
    rest.get(..end).unwrap_or_default()
}

/// How many bytes two rests have in common, in whole levels.
pub(super) fn shared_levels(one: &str, other: &str) -> usize {
    let same = one
        .bytes()
        .zip(other.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let between = |text: &str| text.as_bytes().get(same).is_none_or(|byte| *byte == b'/');
    if between(one) && between(other) {
        return same;
    }
    one.as_bytes()
        .iter()
        .take(same)
        .rposition(|byte| *byte == b'/')
        .unwrap_or_default()
}
