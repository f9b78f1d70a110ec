//! Whose data this is: written once into the log, compared at every start.
//!
//! Another number of shards would look for every key in the wrong place; another node id would wait for ever for
//! votes that were never asked for. Both are slips in a settings file, and have to be told before anything is read.

use std::{collections::BTreeMap, fmt};

use tokio::sync::oneshot;
use umbel_core::ids::NodeId;
use umbel_storage::{
    Boot,
    log::{GroupId, GroupLog, Meta},
};

use crate::{
    codec::{CodecError, decode_meta, encode_meta},
    config::Config,
    shards::StartError,
};

/// The group whose only entry is the identity. Shards count from 0 and end below 2^16; the last two numbers are the log's
/// own.
const GROUP: GroupId = GroupId(1 << 32);

/// What must never change under a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The cluster's number of shards.
    pub shards: u16,
}

impl Identity {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            node: config.node,
            shards: config.shards,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "node {} of a cluster with {} shards",
            self.node.0, self.shards
        )
    }
}

/// Compares with what is stored, or stores it in new data.
pub(crate) async fn check(configured: Identity, log: &dyn GroupLog) -> Result<(), StartError> {
    let unknown = |error: &dyn fmt::Display| StartError::IdentityUnknown(error.to_string());
    let found = log.read(GROUP, 0..1, 1).map_err(|error| unknown(&error))?;
    if let Some((_, bytes)) = found.first() {
        let (node, shards) = decode_meta("identity", bytes).map_err(|error| unknown(&error))?;
        let stored = Identity {
            node: NodeId(node),
            shards,
        };
        return if stored == configured {
            Ok(())
        } else {
            Err(StartError::Identity { stored, configured })
        };
    }
    let bytes =
        encode_meta((configured.node.0, configured.shards)).map_err(|error| unknown(&error))?;
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    log.append(GROUP, vec![(0, bytes.into())], done);
    let outcome = receiver.await.map_err(|error| unknown(&error))?;
    outcome.map_err(|error| unknown(&error))
}

/// How many bits of a [`Boot`] are chance: lives that a restored disk counts again are told apart by them.
const CHANCE_BITS: u32 = 20;

/// Begins a life of the node: counts it, durably, before anything is said to anybody.
///
/// A number that is not above the highest that other nodes have met means that the disk went back in time.
pub async fn begin_life(log: &dyn GroupLog) -> Result<Boot, StartError> {
    let unknown = |error: &dyn fmt::Display| StartError::IdentityUnknown(error.to_string());
    let life = lives(log).map_err(|error| unknown(&error))? + 1;
    set_lives(log, life)
        .await
        .map_err(|error| unknown(&error))?;
    let chance = rand::random::<u64>() & ((1 << CHANCE_BITS) - 1);
    Ok(Boot((life << CHANCE_BITS) | chance))
}

/// The number of a life without its part of chance: grows by one at each start.
pub const fn life(boot: Boot) -> u64 {
    boot.0 >> CHANCE_BITS
}

/// How often the node was started.
pub(crate) fn lives(log: &dyn GroupLog) -> Result<u64, CodecError> {
    log.meta(GROUP, Meta::Lives)
        .map_or(Ok(0), |bytes| decode_meta("number of lives", &bytes))
}

/// Counts from there on, durably.
pub(crate) async fn set_lives(log: &dyn GroupLog, lives: u64) -> Result<(), String> {
    let bytes = encode_meta(lives).map_err(|error| error.to_string())?;
    set(log, GROUP, Meta::Lives, bytes).await
}

/// The newest life met of each other node.
pub(crate) fn met(log: &dyn GroupLog) -> Result<BTreeMap<NodeId, Boot>, CodecError> {
    let bytes = log.meta(GROUP, Meta::Met);
    let met: Vec<(u64, u64)> = bytes.map_or(Ok(Vec::new()), |bytes| {
        decode_meta("lives of other nodes", &bytes)
    })?;
    Ok(met
        .into_iter()
        .map(|(node, boot)| (NodeId(node), Boot(boot)))
        .collect())
}

/// Remembers them, durably.
pub(crate) async fn set_met(
    log: &dyn GroupLog,
    met: &BTreeMap<NodeId, Boot>,
) -> Result<(), String> {
    let met: Vec<(u64, u64)> = met.iter().map(|(node, boot)| (node.0, boot.0)).collect();
    let bytes = encode_meta(met).map_err(|error| error.to_string())?;
    set(log, GROUP, Meta::Met, bytes).await
}

/// Sets a value beside the log and waits until it is durable.
pub(crate) async fn set(
    log: &dyn GroupLog,
    group: GroupId,
    key: Meta,
    bytes: Vec<u8>,
) -> Result<(), String> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    log.set_meta(group, key, bytes.into(), done);
    match receiver.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
