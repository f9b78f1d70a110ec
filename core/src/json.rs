//! JSON from strangers: bounded before it is built, and written back without whitespace.
//!
//! [`parse`] first runs over the text once and counts (bytes, nesting, nodes, key lengths, digits); only a text
//! within its [`JsonLimits`] is built. What it refuses that other parsers accept: keys that occur twice in one
//! object (two readers would see two documents) and integers that do not fit 64 bits (they would silently lose
//! digits).

use std::{cell::Cell, fmt, fmt::Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

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

/// Builds a value from bytes, if they are JSON within the limits.
pub fn parse(bytes: &[u8], limits: &JsonLimits) -> Result<Value, JsonError> {
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

/// Builds a [`Value`] and notes a key that occurs twice.
#[derive(Clone, Copy)]
struct Build<'a> {
    duplicate: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            if members.insert(key, value).is_some() {
                self.duplicate.set(true);
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(members))
    }
}

/// Appends a string literal.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest
        .bytes()
        .position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(control) => write_display(out, format_args!("\\u{:04x}", u32::from(control))),
            None => {},
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// Appends a value without whitespace.
pub fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_display(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => write_list(out, items.iter(), write_value),
        Value::Object(members) => write_members(out, members.iter(), write_value),
    }
}

/// Appends an array.
pub(crate) fn write_list<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

/// Appends an object.
pub(crate) fn write_members<K: AsRef<str>, T>(
    out: &mut String,
    members: impl Iterator<Item = (K, T)>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('{');
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, key.as_ref());
        out.push(':');
        write(out, value);
    }
    out.push('}');
}

/// Appends whatever can be displayed.
pub(crate) fn write_display(out: &mut String, value: impl fmt::Display) {
    write!(out, "{value}").expect("a String takes every write");
}
