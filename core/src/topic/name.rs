//! Topic names: what a message is published to.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// Most levels a topic or filter may have, whatever the limits say: walks recurse once a level.
pub const LEVELS_MAX: usize = 128;

/// Bounds on the text of a topic or filter. For a shared subscription they hold for the filter behind the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Most levels; [`LEVELS_MAX`] holds if this is larger.
    pub levels_max: usize,
}

impl Default for Limits {
    /// What the protocol can carry, at [`LEVELS_MAX`] levels.
    fn default() -> Self {
        Self {
            bytes_max: 65_535,
            levels_max: LEVELS_MAX,
        }
    }
}

/// Why a text is not a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TopicError {
    /// No characters (MQTT-4.7.3-1).
    #[error("topic is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("topic is longer than {max} bytes")]
    TooLong {
        /// Most bytes allowed.
        max: usize,
    },
    /// More levels than allowed.
    #[error("topic has more than {max} levels")]
    TooDeep {
        /// Most levels allowed.
        max: usize,
    },
    /// NUL (MQTT-4.7.3-2) or another control character.
    #[error("topic holds a control character")]
    ControlCharacter,
    /// A wildcard in a name (MQTT-3.3.2-2), or one that shares its level or stands before the end
    /// (MQTT-4.7.1-1, MQTT-4.7.1-2).
    #[error("wildcard where none is allowed")]
    Wildcard,
    /// `$share` without a usable group (MQTT-4.8.2-1, MQTT-4.8.2-2).
    #[error("shared subscription without a valid group name")]
    Group,
}

/// Checks a topic name without keeping it.
pub fn check_name(text: &str, limits: &Limits) -> Result<(), TopicError> {
    if check_text(text, limits)? {
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

/// A valid topic name: no wildcards, bounded. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks and wraps a text.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, TopicError> {
        check_name(text, limits)?;
        Ok(Self(Arc::from(text)))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The rules that names and filters share. Gives whether there are wildcard characters.
///
/// Every publish comes by here, hence one pass without an early end, which the compiler turns into wide
/// instructions; characters are decoded only where bytes cannot tell.
pub(super) fn check_text(text: &str, limits: &Limits) -> Result<bool, TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > limits.bytes_max {
        return Err(TopicError::TooLong {
            max: limits.bytes_max,
        });
    }
    let (mut slashes, mut control, mut wildcard) = (0_usize, false, false);
    for byte in text.bytes() {
        slashes += usize::from(byte == b'/');
        control |= byte.is_ascii_control();
        wildcard |= matches!(byte, b'+' | b'#');
    }
    let levels_max = limits.levels_max.min(LEVELS_MAX);
    if slashes >= levels_max {
        return Err(TopicError::TooDeep { max: levels_max });
    }
    if control || (!text.is_ascii() && text.chars().any(char::is_control)) {
        return Err(TopicError::ControlCharacter);
    }
    Ok(wildcard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_without_wildcards_within_the_limits() {
        let limits = Limits {
            bytes_max: 16,
            levels_max: 3,
        };
        for good in ["a", "/", "a//b", "$SYS/x", "ä/ö", "a b", "sixteen--bytes--"] {
            assert_eq!(check_name(good, &limits), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", TopicError::Empty),
            ("seventeen--bytes-", TopicError::TooLong { max: 16 }),
            ("a/b/c/d", TopicError::TooDeep { max: 3 }),
            ("///", TopicError::TooDeep { max: 3 }),
            ("a\0b", TopicError::ControlCharacter),
            ("a\u{7f}", TopicError::ControlCharacter),
            ("ä\u{85}", TopicError::ControlCharacter),
            ("a/+", TopicError::Wildcard),
            ("a#", TopicError::Wildcard),
        ] {
            assert_eq!(check_name(bad, &limits), Err(error), "{bad}");
            assert_eq!(TopicName::parse(bad, &limits), Err(error), "{bad}");
        }
    }

    #[test]
    fn the_hard_level_limit_cannot_be_lifted() {
        let limits = Limits {
            bytes_max: usize::MAX,
            levels_max: usize::MAX,
        };
        assert_eq!(check_name(&"/".repeat(LEVELS_MAX - 1), &limits), Ok(()));
        assert_eq!(
            check_name(&"/".repeat(LEVELS_MAX), &limits),
            Err(TopicError::TooDeep { max: LEVELS_MAX })
        );
    }
}
