//! Who may do what: policy documents in the language of AWS IoT Core, compiled for one client.
//!
//! The default is no; a matching `Deny` beats every `Allow`. Resources are compared as text: `*` and `?` are the
//! policy's wildcards, `+` and `#` stand for themselves, so a grant on `topicfilter/a/*` covers the filters `a/+`
//! and `a/#`. A subscription is judged on its filter and every delivery on its topic ([`Action::Receive`]), so a
//! filter that is wider than a grant still delivers nothing that is not granted.
//!
//! A policy is parsed once, bound to a client by [`Policy::compile`], and asked for every packet: asking walks
//! the patterns of one action and allocates nothing. Some topics belong to the server whatever a policy says:
//! see [`client_may_publish`].
//!
//! Refused, with an error that names it: `Condition`, `NotAction`, `NotResource`, `Principal`, and variables
//! this server has no value for. A policy that is half understood would be a hole.

mod action;
mod compiled;
mod document;
mod pattern;
mod reserved;

pub use action::Action;
pub use compiled::{Compiled, Context, Policy};
pub use document::{PATTERNS_MAX, POLICY_BYTES_MAX, PolicyError};
pub use reserved::client_may_publish;
