//! A section's state and the times of its values, as one tree.
//!
//! Metadata mirrors state by construction: there is no way to hold a value without its time, a time without a
//! value, or a null. Subtrees are shared, so the next state costs only what a patch touches.

use std::sync::Arc;

use serde_json::Number;

use super::StoredError;
use crate::json::{self, Json, Members};

/// Members of an object, sorted by key.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Arc<[Member]>);

pub(super) type Member = (Arc<str>, Node);

/// A value and when it was set.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A scalar, set at this second.
    Leaf(Scalar, u64),
    /// An array; always replaced whole.
    Array(Arc<[Node]>),
    /// Members with their own times.
    Object(Object),
}

/// A value without parts. There is no null: null removes.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// Any JSON number.
    Number(Number),
    /// Text.
    Text(Arc<str>),
}

impl Object {
    /// Wraps members that are sorted and have different keys.
    pub(super) fn sorted(members: Vec<Member>) -> Self {
        debug_assert!(members.is_sorted_by(|(left, _), (right, _)| left < right));
        Self(members.into())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let at = self
            .0
            .binary_search_by(|(other, _)| other.as_ref().cmp(key))
            .ok()?;
        self.0.get(at).map(|(_, node)| node)
    }

    /// The members in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Node)> {
        self.0.iter().map(|(key, node)| (key, node))
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the state as JSON.
    pub fn write_state(&self, out: &mut String) {
        json::write_members(out, self.iter(), |out, node| node.write_state(out));
    }

    /// Appends the metadata as JSON: the same tree with `{"timestamp":s}` for every scalar.
    pub fn write_metadata(&self, out: &mut String) {
        json::write_members(out, self.iter(), |out, node| node.write_metadata(out));
    }

    /// Every time, in the order in which the values stand in the state's JSON.
    pub(super) fn stamps(&self, out: &mut Vec<u64>) {
        self.iter().for_each(|(_, node)| node.stamps(out));
    }

    /// Puts a stored state and its times together again.
    pub(super) fn restore(
        members: &Members,
        stamps: &mut impl Iterator<Item = u64>,
    ) -> Result<Self, StoredError> {
        let members: Result<_, StoredError> = members
            .iter()
            .map(|(key, value)| Ok((Arc::clone(key), Node::restore(value, stamps)?)))
            .collect();
        Ok(Self(members?))
    }
}

impl Node {
    fn write_state(&self, out: &mut String) {
        match self {
            Self::Leaf(Scalar::Bool(flag), _) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Leaf(Scalar::Number(number), _) => json::write_number(out, number),
            Self::Leaf(Scalar::Text(text), _) => json::write_string(out, text),
            Self::Array(items) => {
                json::write_list(out, items.iter(), |out, item| item.write_state(out));
            },
            Self::Object(object) => object.write_state(out),
        }
    }

    fn write_metadata(&self, out: &mut String) {
        match self {
            Self::Leaf(_, at) => write_stamp(out, *at),
            Self::Array(items) => {
                json::write_list(out, items.iter(), |out, item| item.write_metadata(out));
            },
            Self::Object(object) => object.write_metadata(out),
        }
    }

    fn stamps(&self, out: &mut Vec<u64>) {
        match self {
            Self::Leaf(_, at) => out.push(*at),
            Self::Array(items) => items.iter().for_each(|item| item.stamps(out)),
            Self::Object(object) => object.stamps(out),
        }
    }

    fn restore(value: &Json, stamps: &mut impl Iterator<Item = u64>) -> Result<Self, StoredError> {
        Ok(match value {
            Json::Null => return Err(StoredError::Null),
            Json::Bool(flag) => Self::Leaf(Scalar::Bool(*flag), stamp(stamps)?),
            Json::Number(number) => Self::Leaf(Scalar::Number(number.clone()), stamp(stamps)?),
            Json::Text(text) => Self::Leaf(Scalar::Text(Arc::clone(text)), stamp(stamps)?),
            Json::Array(items) => {
                let items: Result<Vec<_>, _> = items
                    .iter()
                    .map(|item| Self::restore(item, stamps))
                    .collect();
                Self::Array(items?.into())
            },
            Json::Object(members) => Self::Object(Object::restore(members, stamps)?),
        })
    }

    /// Whether both are the same value, whenever they were set. Numbers are compared as numbers: 1 equals 1.0.
    pub fn same_value(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(left, _), Self::Leaf(right, _)) => left.same_value(right),
            (Self::Array(left), Self::Array(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right.iter())
                        .all(|(left, right)| left.same_value(right))
            },
            (Self::Object(left), Self::Object(right)) => {
                left.0.len() == right.0.len()
                    && left
                        .iter()
                        .zip(right.iter())
                        .all(|((left_key, left), (key, right))| {
                            left_key == key && left.same_value(right)
                        })
            },
            (Self::Leaf(..) | Self::Array(_) | Self::Object(_), _) => false,
        }
    }
}

impl Scalar {
    fn same_value(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => {
                // Two integers are compared exactly; a float beside anything as floats.
                left == right
                    || ((left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64())
            },
            (left, right) => left == right,
        }
    }
}

/// Appends the metadata of one value.
pub(super) fn write_stamp(out: &mut String, at: u64) {
    out.push_str("{\"timestamp\":");
    json::write_u64(out, at);
    out.push('}');
}

fn stamp(stamps: &mut impl Iterator<Item = u64>) -> Result<u64, StoredError> {
    stamps.next().ok_or(StoredError::Stamps)
}
