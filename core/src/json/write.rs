//! JSON without whitespace, appended to a text.

use std::fmt::{Display, Write as _};

use serde_json::Number;

use super::Json;

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
pub(crate) fn write_display(out: &mut String, value: impl Display) {
    write!(out, "{value}").expect("a String takes every write");
}
