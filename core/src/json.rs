//! JSON from strangers: bounded before it is built, and written back without whitespace.
//!
//! [`parse`] first runs over the text once and counts (bytes, nesting, nodes, key lengths, digits); only a text
//! within its [`JsonLimits`] is built. What it refuses that other parsers accept: keys that occur twice in one
//! object (two readers would see two documents) and integers that do not fit 64 bits (they would silently lose
//! digits).

use std::{cell::Cell, fmt, fmt::Write as _, sync::Arc};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
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

/// A JSON value, built for speed: texts and keys are shared, members are a list sorted by key.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any finite number.
    Number(Number),
    /// Text.
    Text(Arc<str>),
    /// Values in order.
    Array(Vec<Json>),
    /// Members with different keys.
    Object(Members),
}

/// Members of an object, sorted by key; no key occurs twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members(Vec<(Arc<str>, Json)>);

impl Members {
    /// Sorts members; `None` if a key occurs twice.
    fn new(mut members: Vec<(Arc<str>, Json)>) -> Option<Self> {
        if !members.is_sorted_by(|(left, _), (right, _)| left < right) {
            members.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
            if !members.is_sorted_by(|(left, _), (right, _)| left < right) {
                return None;
            }
        }
        Some(Self(members))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let at = self
            .0
            .binary_search_by(|(other, _)| other.as_ref().cmp(key))
            .ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        let at = self
            .0
            .binary_search_by(|(other, _)| other.as_ref().cmp(key))
            .ok()?;
        Some(self.0.remove(at).1)
    }

    /// The members in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Json)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(flag),
            Json::Number(number) => Self::Number(number),
            Json::Text(text) => Self::String(text.as_ref().to_owned()),
            Json::Array(items) => items.into_iter().map(Self::from).collect(),
            Json::Object(members) => members
                .0
                .into_iter()
                .map(|(key, value)| (key.as_ref().to_owned(), Self::from(value)))
                .collect(),
        }
    }
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

/// Builds a [`Json`] and notes a key that occurs twice.
#[derive(Clone, Copy)]
struct Build<'a> {
    duplicate: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(Arc::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value_seed(self)?));
        }
        Members::new(members).map(Json::Object).ok_or_else(|| {
            self.duplicate.set(true);
            A::Error::custom("duplicate key")
        })
    }
}

/// Builds a key without a `String` in between.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Arc<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<Arc<str>, E> {
        Ok(Arc::from(value))
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

/// Appends a number.
pub fn write_number(out: &mut String, number: &Number) {
    if let Some(integer) = number.as_u64() {
        write_u64(out, integer);
    } else {
        write_display(out, number);
    }
}

/// Appends an integer; documents and metadata are full of them, and formatting machinery would cost more than the rest.
pub(crate) fn write_u64(out: &mut String, integer: u64) {
    out.push_str(itoa::Buffer::new().format(integer));
}

/// Appends a value without whitespace.
pub fn write_value(out: &mut String, value: &Json) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Json::Number(number) => write_number(out, number),
        Json::Text(text) => write_string(out, text),
        Json::Array(items) => write_list(out, items.iter(), write_value),
        Json::Object(members) => write_members(out, members.iter(), write_value),
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
