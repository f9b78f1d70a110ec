//! Packets are sealed, because foca believes whatever it is given and anyone who can send UDP could declare nodes dead.
//!
//! `format (1) | key id (4) | cluster tag (4) | sender (8) | boot (8) | salt (8) | number (8) | ciphertext | tag (16)`
//!
//! Every life of a process seals under a key of its own, derived from the cluster's key, the cluster's id, its node id,
//! its boot and a random salt; the number counts its packets and is the nonce. So a nonce never repeats under a key, even
//! if a disk went back in time and a boot repeats. The whole head is associated data.

use std::{collections::BTreeMap, time::Duration};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use super::{keys::Keys, replay::Window};

const FORMAT: u8 = 1;
const HEAD: usize = 41;
const TAG: usize = 16;
/// What sealing adds to a packet.
pub(super) const OVERHEAD: usize = HEAD + TAG;
/// Senders remembered. More than a cluster has nodes; then the one silent for longest is forgotten.
const SENDERS_MAX: usize = 1024;

/// Why a packet changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rubbish {
    /// Shorter or longer than any packet.
    Size,
    /// Of a format this release does not speak.
    Format,
    /// Of another cluster.
    Cluster,
    /// Sealed with a key that is not, or not any more, accepted.
    Key,
    /// Not sealed by anyone who has the key.
    Forged,
    /// From this node's own id.
    Mirrored,
    /// Seen before, or too old to know.
    Replayed,
    /// From a life of a process after which a later one was heard, or to an earlier life of this one.
    Stale,
    /// Sealed well, and not to be understood.
    Content,
}

impl Rubbish {
    /// Every reason.
    pub(super) const ALL: [Self; 9] = [
        Self::Size,
        Self::Format,
        Self::Cluster,
        Self::Key,
        Self::Forged,
        Self::Mirrored,
        Self::Replayed,
        Self::Stale,
        Self::Content,
    ];

    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Format => "format",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Forged => "forged",
            Self::Mirrored => "mirrored",
            Self::Replayed => "replayed",
            Self::Stale => "stale",
            Self::Content => "content",
        }
    }
}

/// One life of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    boot: Boot,
    salt: u64,
}

/// What is known of a sender.
struct Sender {
    life: Life,
    window: Window,
    heard: Duration,
}

/// Seals this node's packets and opens the others'.
pub(super) struct Seal {
    cluster: String,
    me: NodeId,
    life: Life,
    keys: Keys,
    own: (u32, LessSafeKey),
    number: u64,
    senders: BTreeMap<NodeId, Sender>,
}

/// Chance itself is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

impl Seal {
    pub(super) fn new(
        cluster: &str,
        me: NodeId,
        boot: Boot,
        keys: Keys,
    ) -> Result<Self, NoRandomness> {
        let mut salt = [0; 8];
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_unspecified| NoRandomness)?;
        let life = Life {
            boot,
            salt: u64::from_be_bytes(salt),
        };
        let own = own_key(cluster, me, life, &keys).ok_or(NoRandomness)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            me,
            life,
            keys,
            own,
            number: 0,
            senders: BTreeMap::new(),
        })
    }

    /// Seals with these keys from now on. Numbers go on, so that going back to an old key repeats none.
    pub(super) fn set_keys(&mut self, keys: Keys) {
        if let Some(own) = own_key(&self.cluster, self.me, self.life, &keys) {
            self.own = own;
            self.keys = keys;
        }
    }

    /// A packet around these bytes; `None` after 2^64 of them.
    pub(super) fn seal(&mut self, content: &[u8]) -> Option<Vec<u8>> {
        self.number = self.number.checked_add(1)?;
        let head = Head {
            key: self.own.0,
            cluster: tag(&self.cluster),
            sender: self.me,
            life: self.life,
            number: self.number,
        }
        .bytes();
        let mut body = content.to_vec();
        let aad = Aad::from(self.associated(&head));
        self.own
            .1
            .seal_in_place_append_tag(nonce(self.number), aad, &mut body)
            .ok()?;
        let mut packet = head;
        packet.append(&mut body);
        Some(packet)
    }

    /// The sender and the bytes within, if the packet is to be believed.
    pub(super) fn open<'p>(
        &mut self,
        packet: &'p mut [u8],
        now: Duration,
    ) -> Result<(NodeId, Boot, &'p [u8]), Rubbish> {
        if packet.len() < OVERHEAD {
            return Err(Rubbish::Size);
        }
        let (head_bytes, body) = packet.split_at_mut(HEAD);
        let head = Head::parse(head_bytes)?;
        if head.cluster != tag(&self.cluster) {
            return Err(Rubbish::Cluster);
        }
        let secret = self.keys.accepts(head.key).ok_or(Rubbish::Key)?;
        let key = derived(&self.cluster, head.sender, head.life, secret).ok_or(Rubbish::Key)?;
        let aad = Aad::from(self.associated(head_bytes));
        let content = key
            .open_in_place(nonce(head.number), aad, body)
            .map_err(|_unspecified| Rubbish::Forged)?;
        // Only here is anything in the head to be believed.
        if head.sender == self.me {
            return Err(Rubbish::Mirrored);
        }
        self.remember(&head, now)?;
        Ok((head.sender, head.life.boot, content))
    }

    fn remember(&mut self, head: &Head, now: Duration) -> Result<(), Rubbish> {
        let fresh = || Sender {
            life: head.life,
            window: Window::default(),
            heard: now,
        };
        if !self.senders.contains_key(&head.sender) && self.senders.len() >= SENDERS_MAX {
            let silent = self.senders.iter().min_by_key(|(_, sender)| sender.heard);
            if let Some(node) = silent.map(|(node, _)| *node) {
                self.senders.remove(&node);
            }
        }
        let sender = self.senders.entry(head.sender).or_insert_with(fresh);
        if head.life.boot > sender.life.boot {
            *sender = fresh();
        } else if head.life != sender.life {
            return Err(Rubbish::Stale);
        }
        if !sender.window.is_fresh(head.number) {
            return Err(Rubbish::Replayed);
        }
        sender.window.take(head.number);
        sender.heard = now;
        Ok(())
    }

    fn associated(&self, head: &[u8]) -> Vec<u8> {
        [head, self.cluster.as_bytes()].concat()
    }
}

/// The first bytes of a packet, in clear.
struct Head {
    key: u32,
    cluster: u32,
    sender: NodeId,
    life: Life,
    number: u64,
}

impl Head {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.push(FORMAT);
        bytes.extend(self.key.to_be_bytes());
        bytes.extend(self.cluster.to_be_bytes());
        bytes.extend(self.sender.0.to_be_bytes());
        bytes.extend(self.life.boot.0.to_be_bytes());
        bytes.extend(self.life.salt.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes
    }

    fn parse(mut bytes: &[u8]) -> Result<Self, Rubbish> {
        let [format] = word(&mut bytes)?;
        if format != FORMAT {
            return Err(Rubbish::Format);
        }
        Ok(Self {
            key: u32::from_be_bytes(word(&mut bytes)?),
            cluster: u32::from_be_bytes(word(&mut bytes)?),
            sender: NodeId(u64::from_be_bytes(word(&mut bytes)?)),
            life: Life {
                boot: Boot(u64::from_be_bytes(word(&mut bytes)?)),
                salt: u64::from_be_bytes(word(&mut bytes)?),
            },
            number: u64::from_be_bytes(word(&mut bytes)?),
        })
    }
}

fn word<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Rubbish> {
    let (word, rest) = bytes.split_first_chunk().ok_or(Rubbish::Size)?;
    *bytes = rest;
    Ok(*word)
}

/// Tells clusters apart in the counters; the seal itself depends on the whole id.
fn tag(cluster: &str) -> u32 {
    crc32fast::hash(cluster.as_bytes())
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (_, low) = bytes.split_at_mut(NONCE_LEN - 8);
    low.copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn own_key(cluster: &str, me: NodeId, life: Life, keys: &Keys) -> Option<(u32, LessSafeKey)> {
    let (id, secret) = keys.current();
    Some((id, derived(cluster, me, life, secret)?))
}

fn derived(cluster: &str, sender: NodeId, life: Life, secret: &[u8]) -> Option<LessSafeKey> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"umbel gossip 1");
    let (node, boot) = (sender.0.to_be_bytes(), life.boot.0.to_be_bytes());
    let info = [
        &node[..],
        &boot,
        &life.salt.to_be_bytes(),
        cluster.as_bytes(),
    ];
    let key = salt.extract(secret);
    let key = key.expand(&info, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

#[cfg(test)]
mod tests;
