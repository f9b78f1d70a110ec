//! Topic aliases, both ways (MQTT 5.0, 3.3.2.3.4). They live as long as the connection.

use std::{collections::BTreeMap, num::NonZeroU16};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// What the client's aliases stand for.
    inbound: BTreeMap<NonZeroU16, Box<str>>,
    /// The aliases the client knows. The first topics get them and keep them: no eviction, no surprise.
    outbound: BTreeMap<Box<str>, NonZeroU16>,
}

/// How a topic is named towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By its name.
    Full,
    /// By its name, and the alias is introduced.
    Introduce(NonZeroU16),
    /// By the alias alone.
    Known(NonZeroU16),
}

impl Aliases {
    /// The client gives a topic an alias.
    pub(super) fn learn(&mut self, alias: NonZeroU16, topic: &str) {
        self.inbound.insert(alias, Box::from(topic));
    }

    /// What an alias of the client stands for.
    pub(super) fn resolve(&self, alias: NonZeroU16) -> Option<&str> {
        self.inbound.get(&alias).map(AsRef::as_ref)
    }

    /// How to name a topic towards a client that takes aliases up to `max`.
    pub(super) fn name(&self, topic: &str, max: u16) -> Naming {
        if let Some(alias) = self.outbound.get(topic) {
            return Naming::Known(*alias);
        }
        let next = u16::try_from(self.outbound.len() + 1).unwrap_or(u16::MAX);
        match NonZeroU16::new(next) {
            Some(alias) if next <= max => Naming::Introduce(alias),
            _ => Naming::Full,
        }
    }

    /// The client was sent a topic together with its alias.
    pub(super) fn introduced(&mut self, topic: &str, alias: NonZeroU16) {
        self.outbound.insert(Box::from(topic), alias);
    }
}
