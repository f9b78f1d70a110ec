//! Names that parse. A value of one of these types is valid; nothing downstream checks again.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// The text has no characters.
    #[error("{kind} is empty")]
    Empty {
        /// Which identifier.
        kind: &'static str,
    },
    /// The text is longer than allowed.
    #[error("{kind} is longer than {max} bytes")]
    TooLong {
        /// Which identifier.
        kind: &'static str,
        /// Most bytes allowed.
        max: usize,
    },
    /// The text holds a character outside the allowed set.
    #[error("{kind} holds a character that is not allowed")]
    Character {
        /// Which identifier.
        kind: &'static str,
    },
}

fn check(
    kind: &'static str,
    text: &str,
    max: usize,
    allowed: fn(char) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if text.len() > max {
        return Err(IdError::TooLong { kind, max });
    }
    if !text.chars().all(allowed) {
        return Err(IdError::Character { kind });
    }
    Ok(())
}

fn thing_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Most bytes a value may have.
            pub const MAX_BYTES: usize = $max;

            /// Checks and wraps a text.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($kind, text, $max, $allowed)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_id!(
    /// A device, in AWS terms a thing name: 1–128 of `[a-zA-Z0-9:_-]`.
    DeviceId, "device id", 128, thing_character
);

text_id!(
    /// An MQTT client: 1–128 bytes of UTF-8 without control characters. Each connection acts for one client;
    /// a client whose id is a [`DeviceId`] may speak for that device.
    ClientId, "client id", 128, |c| !c.is_control()
);

text_id!(
    /// The name of a named shadow: 1–64 of `[a-zA-Z0-9:_$-]`.
    ShadowName, "shadow name", 64, |c| thing_character(c) || c == '$'
);

impl ClientId {
    /// The device of the same name, if the id is one.
    pub fn as_device(&self) -> Option<DeviceId> {
        check("device id", &self.0, DeviceId::MAX_BYTES, thing_character)
            .is_ok()
            .then(|| DeviceId(Arc::clone(&self.0)))
    }
}

impl From<DeviceId> for ClientId {
    /// Every device id is a valid client id.
    fn from(id: DeviceId) -> Self {
        Self(id.0)
    }
}

/// A shard: one ordered, replicated log and the state applied from it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The group that holds what the cluster knows about itself. No key hashes to it.
    pub const META: Self = Self(u16::MAX);

    /// The shard of a key (device id, client id or topic) in a cluster of `shards` shards: XXH3-64, seed 0,
    /// modulo `shards`. Published and stable: clients and other languages may compute it.
    pub fn of(key: &str, shards: u16) -> Self {
        let bucket = xxh3_64(key.as_bytes()) % u64::from(shards.max(1));
        Self(u16::try_from(bucket).unwrap_or_default())
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A node of the cluster. Never reused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The Raft term in which a node owns a shard. Every effect that leaves an owner carries it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

/// Counts the accepted connections of one client. Never repeats; a higher epoch takes over.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionEpoch(pub u64);

impl SessionEpoch {
    /// The epoch of the connection after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thing_names_follow_the_aws_pattern() {
        for good in ["a", "Camera_7:front-door", &"x".repeat(128)] {
            assert!(DeviceId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a+b", "a b", "ä", &"x".repeat(129)] {
            assert!(DeviceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_id_may_hold_what_a_device_id_may_not() {
        let client = ClientId::parse("app/1 ü").expect("valid client id");
        assert_eq!(client.as_device(), None);
        assert!(ClientId::parse("a\nb").is_err());
    }

    #[test]
    fn shard_hash_is_published_and_stable() {
        assert_eq!(
            xxh3_64(b"device-1") % 64,
            u64::from(ShardId::of("device-1", 64).0)
        );
        assert_eq!(ShardId::of("anything", 0), ShardId(0));
    }
}
