//! The cluster's secrets for gossip, and how one is replaced by the next.

use std::fmt;

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
/// Keys accepted at a time: a rotation needs two; more would only be forgotten ones.
const KEYS_MAX: usize = 4;

/// One secret and the number by which packets name it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Its number.
    pub id: u32,
    /// The secret.
    pub secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The key to seal with, and all keys to open with.
///
/// Rotation in three steps, each after all nodes have taken the one before: accept the new key too, seal with the new
/// key, forget the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    current: Key,
    also: Vec<Key>,
}

impl Keys {
    /// Seals with `current`, opens with it and with `also`, of which the first three count.
    pub fn new(current: Key, mut also: Vec<Key>) -> Self {
        also.truncate(KEYS_MAX - 1);
        Self { current, also }
    }

    pub(super) fn current(&self) -> (u32, &[u8]) {
        (self.current.id, &self.current.secret)
    }

    pub(super) fn accepts(&self, id: u32) -> Option<&[u8]> {
        let mut all = std::iter::once(&self.current).chain(&self.also);
        all.find(|key| key.id == id).map(|key| &key.secret[..])
    }
}
