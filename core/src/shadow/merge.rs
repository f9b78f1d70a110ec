//! Patch + section → next section.
//!
//! Laws, each with a property test of its name:
//! *merge is idempotent* (but for times), *null removes*, *arrays are replaced whole*, *metadata mirrors state*,
//! *untouched values keep their time*. Two cases that AWS documents nowhere are fixed here: an object that loses
//! its last member stays as `{}`, and a new object made only of nulls is not added (`{}` itself is).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    error::ShadowError,
    tree::{Member, Node, Object, Scalar},
};

/// A patch of one section, checked: an object, not nested too deep, no null inside an array.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a>(&'a Map<String, Value>);

impl<'a> Patch<'a> {
    /// Checks a patch: at most `depth` objects and arrays below the section's root.
    pub fn check(members: &'a Map<String, Value>, depth: usize) -> Result<Self, ShadowError> {
        for value in members.values() {
            check(value, depth, depth, false)?;
        }
        Ok(Self(members))
    }

    /// The patch as it was sent.
    pub fn members(self) -> &'a Map<String, Value> {
        self.0
    }
}

fn check(value: &Value, left: usize, depth: usize, in_array: bool) -> Result<(), ShadowError> {
    match value {
        Value::Null if in_array => Err(ShadowError::null_in_array()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        Value::Array(_) | Value::Object(_) if left == 0 => Err(ShadowError::too_deep(depth)),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check(item, left - 1, depth, true)),
        Value::Object(members) => members
            .values()
            .try_for_each(|value| check(value, left - 1, depth, in_array)),
    }
}

/// The section after the patch, its touched values set at second `at`.
pub fn merge(section: Option<&Object>, patch: Patch<'_>, at: u64) -> Object {
    merge_members(section, patch.0, at)
}

/// Joins two sorted lists of members.
fn merge_members(object: Option<&Object>, patch: &Map<String, Value>, at: u64) -> Object {
    let mut kept = object.map(Object::iter).into_iter().flatten().peekable();
    let mut members: Vec<Member> = Vec::with_capacity(patch.len());
    for (key, value) in sorted(patch) {
        while let Some((name, node)) = kept.next_if(|(name, _)| name.as_ref() < key.as_str()) {
            members.push((Arc::clone(name), node.clone()));
        }
        let old = kept.next_if(|(name, _)| name.as_ref() == key.as_str());
        if let Some(node) = merge_value(old.map(|(_, node)| node), value, at) {
            let name = old.map_or_else(|| Arc::from(key.as_str()), |(name, _)| Arc::clone(name));
            members.push((name, node));
        }
    }
    members.extend(kept.map(|(name, node)| (Arc::clone(name), node.clone())));
    Object::new(members)
}

/// What a key holds after the patch; `None` when it holds nothing.
fn merge_value(old: Option<&Node>, value: &Value, at: u64) -> Option<Node> {
    match (old, value) {
        (Some(Node::Object(object)), Value::Object(patch)) => {
            Some(Node::Object(merge_members(Some(object), patch, at)))
        },
        (_, value) => fresh(value, at),
    }
}

fn fresh(value: &Value, at: u64) -> Option<Node> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => Node::Leaf(Scalar::Bool(*flag), at),
        Value::Number(number) => Node::Leaf(Scalar::Number(number.clone()), at),
        Value::String(text) => Node::Leaf(Scalar::Text(Arc::from(text.as_str())), at),
        Value::Array(items) => {
            Node::Array(items.iter().filter_map(|item| fresh(item, at)).collect())
        },
        Value::Object(patch) => {
            let object = merge_members(None, patch, at);
            if object.is_empty() && !patch.is_empty() {
                return None;
            }
            Node::Object(object)
        },
    })
}

/// Members in key order. They come sorted already unless another crate switches `serde_json` to insertion order.
fn sorted(patch: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut members: Vec<_> = patch.iter().collect();
    members.sort_by_key(|(key, _)| *key);
    members.into_iter()
}
