//! "Did you mean": the nearest known key for a mistyped one.

/// Edits we still take for a slip of the finger.
const EDITS_MAX: usize = 3;
/// Letters from which on one word is taken for the start of another.
const START_MIN: usize = 4;

/// The known word nearest to `word`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_start = |a: &str, b: &str| a.len() >= START_MIN && b.starts_with(a);
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, candidate)| {
            *edits <= EDITS_MAX.min(candidate.len() / 2)
                || is_start(word, candidate)
                || is_start(candidate, word)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Adds a suggestion to serde's "unknown field `x`, expected one of `a`, `b`" text.
pub(super) fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown ");
    let suggestion = match quoted.next() {
        Some(word) if unknown => nearest(word, quoted),
        _ => None,
    };
    match suggestion {
        Some(candidate) => format!("{message}; did you mean `{candidate}`?"),
        None => message.to_owned(),
    }
}

/// Levenshtein distance in one row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = *cell;
            left = substituted.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key_and_rubbish_finds_none() {
        let known = ["data_dir", "id", "drain"];
        assert_eq!(nearest("datadir", known.into_iter()), Some("data_dir"));
        assert_eq!(nearest("drian", known.into_iter()), Some("drain"));
        assert_eq!(nearest("wibble", known.into_iter()), None);
        assert_eq!(nearest("data", known.into_iter()), Some("data_dir"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_suggestion_is_added_to_the_message_of_serde() {
        let text = "unknown field `bnd`, expected `bind` or `name`";
        assert_eq!(
            with_suggestion(text),
            format!("{text}; did you mean `bind`?")
        );
        assert_eq!(with_suggestion("invalid type `x`"), "invalid type `x`");
    }
}
