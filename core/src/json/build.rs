//! A JSON value of our own, and how it is built.

use std::{cell::Cell, fmt, sync::Arc};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

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

/// Builds a [`Json`] and notes a key that occurs twice.
#[derive(Clone, Copy)]
pub(super) struct Build<'a> {
    pub(super) duplicate: &'a Cell<bool>,
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
