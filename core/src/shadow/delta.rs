//! What the device still has to do: desired − reported.
//!
//! Law: *the delta is empty exactly when desired is a subset of reported*. Values in a delta keep the times at
//! which they were desired.

use std::sync::Arc;

use super::tree::{Member, Node, Object};

/// The part of desired that reported lacks or holds differently; `None` when there is no difference.
/// The walk goes down only where both sides are objects; everything else is compared, and sent, whole.
pub fn delta(desired: &Object, reported: Option<&Object>) -> Option<Object> {
    let Some(reported) = reported else {
        return (!desired.is_empty()).then(|| desired.clone());
    };
    let members: Vec<Member> = desired
        .iter()
        .filter_map(|(key, want)| Some((Arc::clone(key), difference(want, reported.get(key))?)))
        .collect();
    (!members.is_empty()).then(|| Object::sorted(members))
}

fn difference(want: &Node, have: Option<&Node>) -> Option<Node> {
    match (want, have) {
        (Node::Object(want), Some(Node::Object(have))) => delta(want, Some(have)).map(Node::Object),
        (want, Some(have)) if want.same_value(have) => None,
        (want, _) => Some(want.clone()),
    }
}
