//! Topics: their grammar, which filter matches which, and the indexes a broker looks them up in.
//!
//! Matching follows the standard (MQTT 5.0, 4.7): `a/#` matches `a`, and a filter that begins with a wildcard
//! never matches a topic that begins with `$`. AWS differs in the first of the two; we do not follow it there.
//!
//! Text from outside enters through [`check_name`], [`TopicName::parse`] and [`Filter::parse`]; behind them a
//! topic has at most [`LEVELS_MAX`] levels, which is what bounds the recursion of every walk below.

pub mod aws;
mod children;
mod filter;
mod group;
mod levels;
mod name;
mod own;
mod retained;
mod small_map;
mod subscribers;
mod trie;

pub use filter::{Filter, matches};
pub use group::Group;
pub use name::{LEVELS_MAX, Limits, TopicError, TopicName, check_name};
pub use own::device_scope;
pub use retained::{RetainedIndex, ScanLimit};
pub use subscribers::Match;
pub use trie::Trie;
