//! JSON from strangers: bounded before it is built, and written back without whitespace.
//!
//! [`parse`] first runs over the text once and counts (bytes, nesting, nodes, key lengths, digits); only a text
//! within its [`JsonLimits`] is built. What it refuses that other parsers accept: keys that occur twice in one
//! object (two readers would see two documents) and integers that do not fit 64 bits (they would silently lose
//! digits).

mod build;
mod write;

use std::cell::Cell;

use serde::de::DeserializeSeed as _;
use serde_json::Value;
use thiserror::Error;

pub use build::{Json, Members};
pub(crate) use write::{write_display, write_list, write_members, write_u64};
pub use write::{write_number, write_string, write_value};

use build::Build;

/// Deepest nesting any caller can allow: the builder recurses once per level.
pub const DEPTH_MAX: usize = 120;

/// What a text may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// Most bytes of text.
    pub bytes: usize,
    /// Most nested objects and arrays, the outermost included; never more than [`DEPTH_MAX`].
    pub depth: usize,
    /// Most values, the outermost included.
    pub nodes: usize,
    /// Most bytes of a key, as written.
    pub key_bytes: usize,
}

impl Default for JsonLimits {
    /// 128 KiB (the largest MQTT payload of AWS), 64 levels, 16,384 values, keys of 8 KiB (the largest document).
    fn default() -> Self {
        Self {
            bytes: 128 * 1024,
            depth: 64,
            nodes: 16 * 1024,
            key_bytes: 8 * 1024,
        }
    }
}

/// Why a text is not acceptable JSON. Nothing was built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// The text has too many bytes.
    #[error("longer than {max} bytes")]
    TooLarge {
        /// Most bytes allowed.
        max: usize,
    },
    /// Objects and arrays are nested too deep.
    #[error("more than {max} levels of nesting")]
    TooDeep {
        /// Most levels allowed.
        max: usize,
    },
    /// The text holds too many values.
    #[error("more than {max} values")]
    TooManyNodes {
        /// Most values allowed.
        max: usize,
    },
    /// A key is too long.
    #[error("a key is longer than {max} bytes")]
    KeyTooLong {
        /// Most bytes allowed.
        max: usize,
    },
    /// An integer does not fit 64 bits, or a number is not finite.
    #[error("number out of range")]
    Number,
    /// A key occurs twice in one object.
    #[error("a key occurs twice in one object")]
    DuplicateKey,
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(String),
}

/// Builds a value of `serde_json`'s from bytes, if they are JSON within the limits.
pub fn parse(bytes: &[u8], limits: &JsonLimits) -> Result<Value, JsonError> {
    read(bytes, limits).map(Value::from)
}

/// Builds a value from bytes, if they are JSON within the limits.
pub fn read(bytes: &[u8], limits: &JsonLimits) -> Result<Json, JsonError> {
    if bytes.len() > limits.bytes {
        return Err(JsonError::TooLarge { max: limits.bytes });
    }
    let text = str::from_utf8(bytes).map_err(|_utf8| JsonError::Utf8)?;
    measure(text.as_bytes(), limits)?;
    let duplicate = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Build {
        duplicate: &duplicate,
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value))
    .map_err(|error| describe(&error, duplicate.get()))
}

fn describe(error: &serde_json::Error, duplicate: bool) -> JsonError {
    let text = error.to_string();
    if duplicate {
        JsonError::DuplicateKey
    } else if text.starts_with("number out of range") {
        JsonError::Number
    } else {
        JsonError::Syntax(text)
    }
}

/// Counts what building the text would cost. Says nothing about syntax: garbage passes and fails later.
fn measure(text: &[u8], limits: &JsonLimits) -> Result<(), JsonError> {
    let depth_max = limits.depth.min(DEPTH_MAX);
    let (mut depth, mut nodes, mut string_bytes) = (0_usize, 1_usize, 0_usize);
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => (string_bytes, rest) = skip_string(rest),
            b'{' | b'[' => {
                depth += 1;
                nodes += 1;
            },
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => nodes += 1,
            b':' if string_bytes > limits.key_bytes => {
                return Err(JsonError::KeyTooLong {
                    max: limits.key_bytes,
                });
            },
            b'-' | b'0'..=b'9' => rest = skip_number(byte, rest)?,
            _ => {},
        }
        if depth > depth_max {
            return Err(JsonError::TooDeep { max: depth_max });
        }
        if nodes > limits.nodes {
            return Err(JsonError::TooManyNodes { max: limits.nodes });
        }
    }
    Ok(())
}

/// The length of the string that begins here, and what follows its closing quote.
fn skip_string(text: &[u8]) -> (usize, &[u8]) {
    let mut escaped = false;
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (index, text.get(index + 1..).unwrap_or_default()),
            _ => {},
        }
    }
    (text.len(), &[])
}

/// What follows the number that begins with `first`; refuses an integer that needs more than 64 bits.
fn skip_number(first: u8, text: &[u8]) -> Result<&[u8], JsonError> {
    let length = text
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        .unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(length).unwrap_or((text, &[]));
    // Eighteen digits always fit, and nearly every number is shorter.
    if length < 18 || number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return Ok(rest);
    }
    let digits = str::from_utf8(number).unwrap_or_default();
    let fits = if first == b'-' {
        digits
            .parse::<u64>()
            .is_ok_and(|magnitude| magnitude <= i64::MIN.unsigned_abs())
    } else {
        format!("{}{digits}", char::from(first))
            .parse::<u64>()
            .is_ok()
    };
    if fits {
        Ok(rest)
    } else {
        Err(JsonError::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: JsonLimits = JsonLimits {
        bytes: 100,
        depth: 3,
        nodes: 6,
        key_bytes: 4,
    };

    fn refused(text: &str) -> JsonError {
        parse(text.as_bytes(), &LIMITS).expect_err(text)
    }

    #[test]
    fn limits_hold_before_anything_is_built() {
        assert_eq!(refused(&" ".repeat(101)), JsonError::TooLarge { max: 100 });
        assert_eq!(refused("[[[[1]]]]"), JsonError::TooDeep { max: 3 });
        assert_eq!(refused(&"[".repeat(90)), JsonError::TooDeep { max: 3 });
        assert_eq!(refused("[1,2,3,4,5,6]"), JsonError::TooManyNodes { max: 6 });
        assert_eq!(refused(r#"{"abcde":1}"#), JsonError::KeyTooLong { max: 4 });
        for good in [
            "[[[1]]]",
            "[1,2,3,4,5]",
            r#"{"abcd":"abcdef"}"#,
            r#"{"[{\"":"[[[["}"#,
        ] {
            assert!(parse(good.as_bytes(), &LIMITS).is_ok(), "{good}");
        }
    }

    #[test]
    fn no_limit_lets_the_builder_recurse_without_bound() {
        let deepest = JsonLimits {
            depth: usize::MAX,
            ..JsonLimits::default()
        };
        let text = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(parse(text.as_bytes(), &deepest).is_ok());
        let error = parse(format!("[{text}]").as_bytes(), &deepest);
        assert_eq!(error, Err(JsonError::TooDeep { max: DEPTH_MAX }));
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused() {
        assert_eq!(refused(r#"{"a":1,"a":1}"#), JsonError::DuplicateKey);
        let escaped = parse(br#"{"a":1,"\u0061":1}"#, &JsonLimits::default());
        assert_eq!(escaped, Err(JsonError::DuplicateKey));
        assert!(parse(br#"{"a":{"b":1},"b":1}"#, &LIMITS).is_ok());
    }

    #[test]
    fn integers_keep_all_their_digits_or_are_refused() {
        for good in [
            "18446744073709551615",
            "-9223372036854775808",
            "1e20",
            "-0",
            "1.5e-7",
        ] {
            assert!(parse(good.as_bytes(), &LIMITS).is_ok(), "{good}");
        }
        for bad in [
            "18446744073709551616",
            "-9223372036854775809",
            "1e999",
            "-1e999",
        ] {
            assert_eq!(refused(bad), JsonError::Number, "{bad}");
        }
    }

    #[test]
    fn what_is_not_json_is_a_syntax_error() {
        for text in [
            "",
            "{",
            "tru",
            "1 2",
            "[1,]",
            "{\"a\" 1}",
            "\"\\ud800\"",
            "\"\n\"",
            "'a'",
            "01",
        ] {
            assert!(matches!(refused(text), JsonError::Syntax(_)), "{text}");
        }
        assert_eq!(parse(b"\"\xc3\x28\"", &LIMITS), Err(JsonError::Utf8));
    }

    #[test]
    fn strings_are_escaped_as_json_wants() {
        let mut out = String::new();
        write_string(&mut out, "a\"\\\n\r\t\u{1}\u{1f}/ü\u{2028}");
        assert_eq!(out, "\"a\\\"\\\\\\n\\r\\t\\u0001\\u001f/ü\u{2028}\"");
        assert_eq!(
            serde_json::from_str::<String>(&out).unwrap(),
            "a\"\\\n\r\t\u{1}\u{1f}/ü\u{2028}"
        );
    }
}
