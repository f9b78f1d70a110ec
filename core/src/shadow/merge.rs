//! Patch + section → next section.
//!
//! Laws, each with a property test of its name:
//! *merge is idempotent* (but for times), *null removes*, *arrays are replaced whole*, *metadata mirrors state*,
//! *untouched values keep their time*. Two cases that AWS documents nowhere are fixed here: an object that loses
//! its last member stays as `{}`, and a new object made only of nulls is not added (`{}` itself is).

use std::sync::Arc;

use super::{
    error::ShadowError,
    tree::{Member, Node, Object, Scalar},
};
use crate::json::{Json, Members};

/// A patch of one section, checked: an object, not nested too deep, no null inside an array.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a>(&'a Members);

impl<'a> Patch<'a> {
    /// Checks a patch: at most `depth` objects and arrays below the section's root.
    pub fn check(members: &'a Members, depth: usize) -> Result<Self, ShadowError> {
        for (_, value) in members.iter() {
            check(value, depth, depth, false)?;
        }
        Ok(Self(members))
    }

    /// The patch as it was sent.
    pub fn members(self) -> &'a Members {
        self.0
    }
}

fn check(value: &Json, left: usize, depth: usize, in_array: bool) -> Result<(), ShadowError> {
    match value {
        Json::Null if in_array => Err(ShadowError::null_in_array()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => Ok(()),
        Json::Array(_) | Json::Object(_) if left == 0 => Err(ShadowError::too_deep(depth)),
        Json::Array(items) => items
            .iter()
            .try_for_each(|item| check(item, left - 1, depth, true)),
        Json::Object(members) => members
            .iter()
            .try_for_each(|(_, value)| check(value, left - 1, depth, in_array)),
    }
}

/// The section after the patch, its touched values set at second `at`.
pub fn merge(section: Option<&Object>, patch: Patch<'_>, at: u64) -> Object {
    merge_members(section, patch.0, at)
}

/// Joins two sorted lists of members.
fn merge_members(object: Option<&Object>, patch: &Members, at: u64) -> Object {
    let mut kept = object.map(Object::iter).into_iter().flatten().peekable();
    let mut members: Vec<Member> = Vec::with_capacity(patch.len());
    for (key, value) in patch.iter() {
        while let Some((name, node)) = kept.next_if(|(name, _)| *name < key) {
            members.push((Arc::clone(name), node.clone()));
        }
        let old = kept.next_if(|(name, _)| *name == key);
        if let Some(node) = merge_value(old.map(|(_, node)| node), value, at) {
            let name = old.map_or(key, |(name, _)| name);
            members.push((Arc::clone(name), node));
        }
    }
    members.extend(kept.map(|(name, node)| (Arc::clone(name), node.clone())));
    Object::sorted(members)
}

/// What a key holds after the patch; `None` when it holds nothing.
fn merge_value(old: Option<&Node>, value: &Json, at: u64) -> Option<Node> {
    match (old, value) {
        (Some(Node::Object(object)), Json::Object(patch)) => {
            Some(Node::Object(merge_members(Some(object), patch, at)))
        },
        (_, value) => fresh(value, at),
    }
}

fn fresh(value: &Json, at: u64) -> Option<Node> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(flag) => Node::Leaf(Scalar::Bool(*flag), at),
        Json::Number(number) => Node::Leaf(Scalar::Number(number.clone()), at),
        Json::Text(text) => Node::Leaf(Scalar::Text(Arc::clone(text)), at),
        Json::Array(items) => {
            Node::Array(items.iter().filter_map(|item| fresh(item, at)).collect())
        },
        Json::Object(patch) => {
            let object = merge_members(None, patch, at);
            if object.is_empty() && !patch.is_empty() {
                return None;
            }
            Node::Object(object)
        },
    })
}
