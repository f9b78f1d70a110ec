//! The options of the fleet, checked by whoever reads the configuration.

use std::{sync::Arc, time::Duration};

use umbel_core::{device::Rules, ids::ClientId};

use crate::supervise::RestartPolicy;

/// A hook that runs before a device's actor decides. Tests make it panic; production has none.
pub type FailPoint = Arc<dyn Fn(&ClientId) + Send + Sync>;

/// How much work the fleet takes on, and for how long it stays awake.
#[derive(Clone)]
pub struct Config {
    /// An actor that holds state hot sleeps after this much idle time. Zero: never.
    pub sleep_after: Duration,
    /// Most actors awake on this node. One costs 7 KB, with a shadow held hot about 11 KB: the default is 220 MB
    /// at worst. It also bounds how many devices are worked on at once.
    pub awake_max: usize,
    /// Requests of one device that may be in flight (AWS: 10).
    pub device_in_flight_max: u8,
    /// Commands that may be in flight in one shard.
    pub shard_in_flight_max: usize,
    /// Commands that may be in flight on this node.
    pub node_in_flight_max: usize,
    /// Shadows an awake actor keeps in memory; the others of the device are read again when asked for.
    pub hot_shadows_max: usize,
    /// What a failing device actor is granted.
    pub restart: RestartPolicy,
    /// How long a gateway has to say which connections it holds, once somebody new owns a shard. It hears of the change
    /// within half a second and says it in one message for a thousand clients; a gateway that is busy with a fleet
    /// that comes back may need a few seconds more. Longer would only hide clients that are gone.
    pub resync_within: Duration,
    /// The rules of the domain: grace, admission, limits of shadows.
    pub rules: Rules,
    /// Events kept for readers of the feed.
    pub feed_capacity: usize,
    /// Resolution of the clockwork that drives timers and sleep.
    pub tick: Duration,
    /// Runs before each decision; only for tests of supervision.
    pub fail_point: Option<FailPoint>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sleep_after: Duration::from_secs(30),
            awake_max: 20_000,
            device_in_flight_max: 10,
            shard_in_flight_max: 2_048,
            node_in_flight_max: 16_384,
            hot_shadows_max: 16,
            restart: RestartPolicy::default(),
            resync_within: Duration::from_secs(5),
            rules: Rules::default(),
            feed_capacity: 16_384,
            tick: Duration::from_millis(250),
            fail_point: None,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("sleep_after", &self.sleep_after)
            .field("awake_max", &self.awake_max)
            .field("device_in_flight_max", &self.device_in_flight_max)
            .field("shard_in_flight_max", &self.shard_in_flight_max)
            .field("node_in_flight_max", &self.node_in_flight_max)
            .field("restart", &self.restart)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
