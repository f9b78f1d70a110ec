use proptest::prelude::*;

use super::*;

struct Fixed(&'static str);

impl Values for Fixed {
    fn value(&self, _variable: u16) -> Option<&str> {
        Some(self.0)
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(&tokens(text).expect("a pattern"), |_| 0)
}

fn matches(text: &str, name: &str) -> bool {
    pattern(text).matches(name, &Fixed("me"))
}

#[test]
fn stars_span_levels_and_mqtt_wildcards_are_literal() {
    for (text, name) in [
        ("*", ""),
        ("a/*", "a/"),
        ("a/*", "a/b/c"),
        ("a/*/c", "a/b/b/c"),
        ("*b*b*", "abcabc"),
        ("a?c", "aöc"),
        ("a/+/#", "a/+/#"),
        ("${iot:ClientId}/x", "me/x"),
        ("*/${iot:ClientId}", "a/meme/me"),
        ("*${iot:ClientId}*x?", "amebxxx"),
        ("a${*}b", "a*b"),
        ("*ab", "aab"),
        ("*?b", "öb"),
    ] {
        assert!(matches(text, name), "{text} {name}");
    }
    for (text, name) in [
        ("", "a"),
        ("a/*", "a"),
        ("a?", "a"),
        ("a/+", "a/b"),
        ("a/#", "a/b"),
        ("a${*}b", "axb"),
        ("*ab", "aba"),
        ("*ü", "ö"),
        ("${iot:ClientId}", "m"),
    ] {
        assert!(!matches(text, name), "{text} {name}");
    }
    assert!(!pattern("a/*${iot:ClientId}").matches("a/me", &NoValues));
}

#[test]
fn a_hostile_text_is_refused_in_bounded_time() {
    let text = "a".repeat(65_535);
    assert!(!matches("*a*a*a*a*a*a*a*a*a*a*a*b", &text));
    assert!(!matches("*aaaaaaaaaaaaaaaab?", &text));
}

/// Defines what a pattern means, at exponential cost.
fn naive(tokens: &[Token], text: &str, value: &str) -> bool {
    let Some((token, behind)) = tokens.split_first() else {
        return text.is_empty();
    };
    match token {
        Token::Any => {
            naive(behind, text, value)
                || skip_one(text).is_some_and(|rest| naive(tokens, rest, value))
        },
        Token::One => skip_one(text).is_some_and(|rest| naive(behind, rest, value)),
        Token::Character(character) => text
            .strip_prefix(*character)
            .is_some_and(|rest| naive(behind, rest, value)),
        Token::Variable(_) => text
            .strip_prefix(value)
            .is_some_and(|rest| naive(behind, rest, value)),
    }
}

fn pattern_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["a", "b", "/", "*", "*", "?", "ö", "${iot:ClientId}"]);
    prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["a", "b", "/", "ö", "ab"]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_pattern_matches_what_its_definition_says(pattern in pattern_text(), text in text()) {
        let tokens = tokens(&pattern).expect("a pattern");
        let found = Pattern::new(&tokens, |_| 0).matches(&text, &Fixed("ab"));
        prop_assert_eq!(found, naive(&tokens, &text, "ab"));
    }

    #[test]
    fn what_is_behind_a_prefix_matches_what_the_whole_matches(
        pattern in pattern_text(),
        prefix in text(),
        name in text(),
    ) {
        // a variable never matches into the prefix, by design
        let tokens = tokens(&pattern.replace("${iot:ClientId}", "")).expect("a pattern");
        let whole = naive(&tokens, &format!("{prefix}{name}"), "");
        let behind = behind_prefix(&tokens, &prefix).iter().any(|rest| naive(rest, &name, ""));
        prop_assert_eq!(behind, whole);
    }

    #[test]
    fn no_text_makes_the_reader_fail(text in any::<String>()) {
        if let Ok(tokens) = tokens(&text) {
            Pattern::new(&tokens, |_| 0).matches(&text, &NoValues);
        }
    }
}
