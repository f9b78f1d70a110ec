//! Topic filters: what a client subscribes to.

use std::{fmt, sync::Arc};

use super::name::{Limits, TopicError, check_text};

/// First level of a shared subscription, in MQTT 3.1.1 as in 5.0 (MQTT 5.0, 4.8.2).
const SHARE: &str = "$share";

/// Most characters of a shared group's name (the limit of AWS).
const GROUP_CHARACTERS_MAX: usize = 128;

/// A valid topic filter, shared or not. Cheap to clone. Order and equality are those of the whole text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    text: Arc<str>,
    /// Where the pattern begins: 0, or behind `$share/{group}/`.
    pattern_at: u16,
    wildcards: bool,
}

impl Filter {
    /// Checks and wraps a text; the limits hold for the part behind `$share/{group}/`.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, TopicError> {
        let pattern_at = pattern_start(text)?;
        let pattern = text.get(usize::from(pattern_at)..).unwrap_or_default();
        let wildcards = check_text(pattern, limits)?;
        if wildcards {
            check_wildcards(pattern)?;
        }
        Ok(Self {
            text: Arc::from(text),
            pattern_at,
            wildcards,
        })
    }

    /// The whole text, as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that topics are matched against, and that a policy judges.
    pub fn pattern(&self) -> &str {
        self.text
            .get(usize::from(self.pattern_at)..)
            .unwrap_or_default()
    }

    /// The group of a shared subscription.
    pub fn group(&self) -> Option<&str> {
        let end = usize::from(self.pattern_at).checked_sub(1)?;
        self.text.get(SHARE.len() + 1..end)
    }

    /// Whether more than one topic can match.
    pub const fn has_wildcards(&self) -> bool {
        self.wildcards
    }

    /// Whether a topic name matches.
    pub fn matches(&self, topic: &str) -> bool {
        if self.wildcards {
            matches(self.pattern(), topic)
        } else {
            self.pattern() == topic
        }
    }
}

impl AsRef<str> for Filter {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Whether a valid pattern (no `$share`) matches a topic name. One pass, no allocation.
pub fn matches(pattern: &str, topic: &str) -> bool {
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false; // MQTT-4.7.2-1
    }
    let mut levels = topic.split('/');
    for wanted in pattern.split('/') {
        match (wanted, levels.next()) {
            // also when the topic has ended: `a/#` matches `a`
            ("#", _) => return true,
            ("+", Some(_)) => {},
            (literal, Some(level)) if literal == level => {},
            _ => return false,
        }
    }
    levels.next().is_none()
}

fn pattern_start(text: &str) -> Result<u16, TopicError> {
    let Some(rest) = text.strip_prefix(SHARE) else {
        return Ok(0);
    };
    let Some(rest) = rest.strip_prefix('/') else {
        // `$shared/…` is an ordinary filter, `$share` alone is a mistake
        return if rest.is_empty() {
            Err(TopicError::Group)
        } else {
            Ok(0)
        };
    };
    let (group, _) = rest.split_once('/').ok_or(TopicError::Group)?;
    let valid = !group.is_empty()
        && !group.contains(['+', '#'])
        && group.chars().count() <= GROUP_CHARACTERS_MAX
        && !group.chars().any(char::is_control);
    if !valid {
        return Err(TopicError::Group);
    }
    // `$share/` + group + `/`
    u16::try_from(SHARE.len() + 1 + group.len() + 1).or(Err(TopicError::Group))
}

/// Each wildcard has its level for itself, and `#` is last.
fn check_wildcards(pattern: &str) -> Result<(), TopicError> {
    let mut levels = pattern.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let valid = level == "+" || level == "#" && last || !level.contains(['+', '#']);
        if !valid {
            return Err(TopicError::Wildcard);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filter, TopicError> {
        Filter::parse(text, &Limits::default())
    }

    #[test]
    fn wildcards_stand_alone_and_hash_stands_last() {
        for good in [
            "#", "+", "/", "/+", "+/#", "a/+/b", "a//#", "$SYS/#", "+/+/+",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["a#", "#a", "#/a", "a/#/b", "a+", "+a", "a/+b/c", "##", "++"] {
            assert_eq!(parse(bad), Err(TopicError::Wildcard), "{bad}");
        }
        for bad in ["a\0", "a/\u{1}"] {
            assert_eq!(parse(bad), Err(TopicError::ControlCharacter), "{bad}");
        }
    }

    #[test]
    fn a_shared_filter_is_a_group_and_a_filter() {
        let filter = parse("$share/workers/a/+/#").expect("valid");
        assert_eq!(filter.group(), Some("workers"));
        assert_eq!(filter.pattern(), "a/+/#");
        assert_eq!(filter.as_str(), "$share/workers/a/+/#");
        assert!(filter.has_wildcards() && filter.matches("a/b"));

        for bad in [
            "$share",
            "$share/",
            "$share/g",
            "$share//a",
            "$share/g+/a",
            "$share/#/a",
        ] {
            assert_eq!(parse(bad), Err(TopicError::Group), "{bad}");
        }
        assert_eq!(parse("$share/g/"), Err(TopicError::Empty));
        assert_eq!(parse("$share/g/a#"), Err(TopicError::Wildcard));
        assert_eq!(
            parse(&format!("$share/{}/a", "g".repeat(129))),
            Err(TopicError::Group)
        );

        let ordinary = parse("$shared/g/a").expect("valid");
        assert_eq!(
            (ordinary.group(), ordinary.pattern()),
            (None, "$shared/g/a")
        );
    }

    #[test]
    fn the_group_does_not_count_towards_the_limits() {
        let limits = Limits {
            bytes_max: 3,
            levels_max: 2,
        };
        assert!(Filter::parse("$share/group/a/b", &limits).is_ok());
        assert_eq!(
            Filter::parse("$share/group/abcd", &limits),
            Err(TopicError::TooLong { max: 3 })
        );
        assert_eq!(
            Filter::parse("$share/g///", &limits),
            Err(TopicError::TooDeep { max: 2 })
        );
    }

    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        for (pattern, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("#", "/"),
            ("+", "a"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("sport/+", "sport/"),
            ("+/tennis/#", "sport/tennis"),
            ("$SYS/#", "$SYS/a"),
            ("$SYS/+/b", "$SYS/a/b"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("+", "/finance"),
            ("sport/+", "sport"),
            ("sport/+", "sport/a/b"),
            ("sport/tennis/+", "sport/tennis/a/b"),
            ("a", "a/"),
            ("a/", "a"),
            ("A", "a"),
            ("#", "$SYS/a"),
            ("+/a", "$SYS/a"),
            ("+", "$SYS"),
            ("#", "$"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn wildcards_do_not_leak_dollar_topics_in_all_pairs_of_forty() {
        let tails = [
            "", "/", "/a", "/+", "/#", "/+/#", "/a/b", "/a/+", "/+/b", "//",
        ];
        let heads = ["#", "+", "a", "$SYS"];
        let mut filters = Vec::new();
        for head in heads {
            filters.extend(tails.iter().map(|tail| format!("{head}{tail}")));
        }
        let roots = ["$SYS", "$aws/things", "$", "a"];
        let mut topics = Vec::new();
        for root in roots {
            let tails = [
                "", "/", "/a", "/b", "/a/b", "/a/c", "//", "/a/b/c", "/x", "/$SYS",
            ];
            topics.extend(tails.iter().map(|tail| format!("{root}{tail}")));
        }
        assert_eq!((filters.len(), topics.len()), (40, 40));

        let mut compared = 0;
        for text in &filters {
            let Ok(filter) = parse(text) else { continue };
            for topic in &topics {
                compared += 1;
                if topic.starts_with('$') && text.starts_with(['+', '#']) {
                    assert!(!filter.matches(topic), "{text} {topic}");
                }
            }
        }
        assert!(
            compared >= 30 * 40,
            "too few valid filters were compared: {compared}"
        );
    }
}
