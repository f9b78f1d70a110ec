//! `[cluster]`: checked, with what is absent filled in from what is there.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{
    ConfigError,
    raw::{self, NodeRole},
    resolve::{positive, wrong},
};

/// Longest failure domain's name, as it is gossiped to everybody.
const ZONE_BYTES_MAX: usize = 64;
/// Most seeds: a list longer than any sensible cluster is a slip.
const SEEDS_MAX: usize = 64;

/// See `[cluster]`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Number of shards.
    pub shards: u16,
    /// How other nodes are spoken to; none in a cluster of one.
    pub link: Option<Link>,
    /// What this node does.
    pub roles: BTreeSet<NodeRole>,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Where clients are pointed to that another node sends here.
    pub gateway_address: Option<String>,
    /// How often an owner says that it is there.
    pub heartbeat: Duration,
    /// Shortest election timeout.
    pub election_min: Duration,
    /// Longest election timeout.
    pub election_max: Duration,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Bytes between snapshots.
    pub snapshot_bytes: u64,
    /// Shards that may move at the same time.
    pub transfers_max: usize,
}

/// How other nodes are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where they reach this node (TCP).
    pub bind: SocketAddr,
    /// The same as others see it, `host:port` or `host`; none: as it is bound.
    pub advertise: Option<String>,
    /// Where their gossip arrives (UDP).
    pub gossip_bind: SocketAddr,
    /// Whom to ask first, `host:port`.
    pub seeds: Vec<String>,
}

pub(super) fn resolve(raw: &raw::Cluster) -> Result<Cluster, ConfigError> {
    let roles: BTreeSet<_> = raw.roles.iter().copied().collect();
    if roles.is_empty() {
        return Err(wrong(
            "cluster.roles",
            "must name at least one of voter, shards, gateway",
        ));
    }
    let link = link(raw)?;
    if link.is_none() && roles.len() < 3 {
        return Err(wrong(
            "cluster.roles",
            "a node without `bind` is alone and has every role",
        ));
    }
    if raw.zone.len() > ZONE_BYTES_MAX || raw.zone.chars().any(char::is_control) {
        return Err(wrong(
            "cluster.zone",
            format!("must be printable and at most {ZONE_BYTES_MAX} bytes long"),
        ));
    }
    let (heartbeat, min, max) = (raw.heartbeat.0, raw.election_min.0, raw.election_max.0);
    // Three heartbeats: one that is late must not cost an owner its shards.
    if heartbeat.is_zero() || min < heartbeat * 3 || max <= min {
        return Err(wrong(
            "cluster.election_min",
            "must be at least three times `heartbeat`, and less than `election_max`",
        ));
    }
    for (key, address) in [("cluster.gateway_address", &raw.gateway_address)] {
        if let Some(address) = address {
            host_and_port(key, address)?;
        }
    }
    Ok(Cluster {
        shards: positive("cluster.shards", raw.shards)?,
        link,
        roles,
        zone: raw.zone.clone(),
        gateway_address: raw.gateway_address.clone(),
        heartbeat,
        election_min: min,
        election_max: max,
        snapshot_entries: positive("cluster.snapshot_entries", raw.snapshot_entries)?,
        snapshot_bytes: positive("cluster.snapshot_bytes", raw.snapshot_bytes.0)?,
        transfers_max: positive("cluster.transfers_max", raw.transfers_max)?,
    })
}

fn link(raw: &raw::Cluster) -> Result<Option<Link>, ConfigError> {
    let Some(bind) = raw.bind else {
        let lonely = [
            ("cluster.advertise", raw.advertise.is_some()),
            ("cluster.gossip_bind", raw.gossip_bind.is_some()),
            ("cluster.seeds", !raw.seeds.is_empty()),
        ];
        return match lonely.into_iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(wrong(key, "is of no use without `cluster.bind`")),
            None => Ok(None),
        };
    };
    if raw.advertise.is_none() && bind.ip().is_unspecified() {
        return Err(wrong(
            "cluster.advertise",
            "must say under which address other nodes reach this one, because `bind` is every address",
        ));
    }
    if let Some(advertise) = &raw.advertise
        && advertise.trim().is_empty()
    {
        return Err(wrong("cluster.advertise", "is empty"));
    }
    if raw.seeds.len() > SEEDS_MAX {
        return Err(wrong(
            "cluster.seeds",
            format!("has more than {SEEDS_MAX} entries"),
        ));
    }
    for seed in &raw.seeds {
        host_and_port("cluster.seeds", seed)?;
    }
    Ok(Some(Link {
        bind,
        advertise: raw.advertise.clone(),
        gossip_bind: raw.gossip_bind.unwrap_or(bind),
        seeds: raw.seeds.clone(),
    }))
}

/// Whether a text is `host:port`; whether the name exists is found out when it is used.
fn host_and_port(key: &str, text: &str) -> Result<(), ConfigError> {
    let is_good = text.parse::<SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains([':', '/', ' '])
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    if is_good {
        Ok(())
    } else {
        Err(wrong(key, format!("`{text}` is not host:port")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Cluster, String> {
        let raw: raw::Cluster = toml::from_str(text).expect("known keys");
        resolve(&raw).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_without_an_address_for_others_is_alone() {
        let alone = read("").expect("usable");
        assert_eq!(alone.link, None);
        assert_eq!(alone.roles.len(), 3);
        let refused = read("seeds = [\"a:1\"]").expect_err("refused");
        assert!(refused.starts_with("cluster.seeds: "), "{refused}");
        assert!(read("roles = [\"gateway\"]").is_err());
    }

    #[test]
    fn gossip_goes_where_the_link_goes_unless_told_otherwise() {
        let link =
            read("bind = \"10.0.0.1:7400\"\nseeds = [\"umbel.example:7400\", \"[::1]:7400\"]")
                .expect("usable")
                .link
                .expect("a link");
        assert_eq!(link.gossip_bind, link.bind);
        assert_eq!(link.seeds.len(), 2);
    }

    #[test]
    fn an_address_that_nobody_could_use_is_refused() {
        for (text, key) in [
            ("bind = \"0.0.0.0:7400\"", "cluster.advertise"),
            (
                "bind = \"10.0.0.1:1\"\nseeds = [\"10.0.0.2\"]",
                "cluster.seeds",
            ),
            (
                "bind = \"10.0.0.1:1\"\nseeds = [\"http://a:1\"]",
                "cluster.seeds",
            ),
            ("bind = \"10.0.0.1:1\"\nroles = []", "cluster.roles"),
            ("gateway_address = \"here\"", "cluster.gateway_address"),
            ("heartbeat = \"300ms\"", "cluster.election_min"),
            ("shards = 0", "cluster.shards"),
        ] {
            let refused = read(text).expect_err(text);
            assert!(
                refused.starts_with(&format!("{key}: ")),
                "{text}: {refused}"
            );
        }
    }
}
