//! How this node becomes part of a cluster: `umbel cluster init` and `join`, offline and once.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use umbel_actors::ports::Clock as _;
use umbel_cluster::{
    link,
    meta::{ClusterIdentity, JoinToken, join as join_with},
};
use umbel_core::{
    cluster::{Addresses, Profile, Roles},
    ids::NodeId,
};

use crate::{
    clock::SystemClock,
    config::{Config, Link, NodeRole},
    datadir::DataDir,
};

/// How long a name may take to be resolved.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// What a node calls itself that was never told.
pub(crate) const LONE_NODE: u64 = 1;

/// Makes a cluster whose first node is this one. Data of a node that was alone becomes the cluster's.
pub(crate) async fn init(config: &Config) -> Result<String> {
    let link = link_of(config)?;
    // Wrong addresses are found now, and not by the nodes that cannot reach this one.
    profile(config, link).await?;
    let data = &config.node.data_dir;
    let _locked = DataDir::open(data)?;
    let node = NodeId(config.node.id.unwrap_or(LONE_NODE));
    let now = SystemClock::start().wall();
    let identity = ClusterIdentity::init(data, node, config.cluster.shards, now)?;
    Ok(format!(
        "cluster {} with {} shards; this is node {}. Start it, then let others in with `umbel ctl token create`",
        identity.cluster, identity.shards, identity.node
    ))
}

/// Makes this node part of a cluster that runs.
pub(crate) async fn join(config: &Config, seeds: &[String], token: &str) -> Result<String> {
    let link = link_of(config)?;
    let token: JoinToken = token.parse()?;
    let seeds = if seeds.is_empty() { &link.seeds } else { seeds };
    if seeds.is_empty() {
        bail!("whom to ask? Name a node with --seed HOST:PORT, or set `cluster.seeds`");
    }
    let profile = profile(config, link).await?;
    let data = &config.node.data_dir;
    let _locked = DataDir::open(data)?;
    if data.join("log").exists() && ClusterIdentity::load(data)?.is_none() {
        bail!(
            "{} holds data of a node that was alone, which a cluster cannot take in; join with an empty folder",
            data.display()
        );
    }
    let ask = async |seed: String, authority, body, within| {
        let answer = link::join::request(&seed, authority, body, within).await;
        answer.map_err(|error| error.to_string())
    };
    let identity = join_with(data, &token, seeds, profile, ask).await?;
    Ok(format!(
        "this is node {} of cluster {}. Start it: it gets its shards by itself",
        identity.node, identity.cluster
    ))
}

fn link_of(config: &Config) -> Result<&Link> {
    let link = config.cluster.link.as_ref();
    link.context("cluster.bind is not set: other nodes could not reach this one")
}

/// Who this node is in the cluster its data belongs to, if it belongs to one, and whether the configuration agrees.
pub(crate) fn identity(config: &Config) -> Result<Option<ClusterIdentity>, String> {
    let data = &config.node.data_dir;
    let found = ClusterIdentity::load(data)
        .map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))?;
    match (found, &config.cluster.link) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(
            "cluster.bind is set and this node belongs to no cluster yet: `umbel cluster init` makes one, `umbel \
             cluster join` makes it part of one"
                .to_owned(),
        ),
        (Some(identity), None) => Err(format!(
            "the data belongs to node {} of cluster {}, and cluster.bind is not set",
            identity.node, identity.cluster
        )),
        (Some(identity), Some(_)) => {
            if let Some(id) = config.node.id
                && id != identity.node.0
            {
                return Err(format!(
                    "node.id says {id} and the cluster says {}; leave node.id out",
                    identity.node
                ));
            }
            Ok(Some(identity))
        },
    }
}

/// What this node says of itself to the others.
pub(crate) async fn profile(config: &Config, link: &Link) -> Result<Profile> {
    let reached = advertised(link).await?;
    let has = |role| config.cluster.roles.contains(&role);
    Ok(Profile {
        addresses: Addresses {
            link: reached,
            gossip: SocketAddr::new(reached.ip(), link.gossip_bind.port()),
            client: config.cluster.gateway_address.clone(),
        },
        zone: config.cluster.zone.clone(),
        roles: Roles {
            voter: has(NodeRole::Voter),
            shards: has(NodeRole::Shards),
            gateway: has(NodeRole::Gateway),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Where others reach this node. A name is resolved here, once a start: what the others hear is an address.
async fn advertised(link: &Link) -> Result<SocketAddr> {
    let Some(text) = &link.advertise else {
        return Ok(link.bind);
    };
    let with_port = match text.parse::<std::net::IpAddr>() {
        Ok(ip) => return Ok(SocketAddr::new(ip, link.bind.port())),
        Err(_) if text.contains(':') => text.clone(),
        Err(_) => format!("{text}:{}", link.bind.port()),
    };
    let unknown = || format!("cluster.advertise: `{with_port}` has no address");
    let resolving = tokio::net::lookup_host(with_port.clone());
    let mut found = tokio::time::timeout(RESOLVE_WITHIN, resolving)
        .await
        .with_context(unknown)?
        .with_context(unknown)?;
    found.next().ok_or_else(|| anyhow!(unknown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(bind: &str, advertise: Option<&str>) -> Link {
        let bind = bind.parse().unwrap();
        Link {
            bind,
            advertise: advertise.map(str::to_owned),
            gossip_bind: bind,
            seeds: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_node_is_reached_where_it_says() {
        for (advertise, expected) in [
            (None, "127.0.0.1:7400"),
            (Some("10.0.0.9"), "10.0.0.9:7400"),
            (Some("10.0.0.9:1"), "10.0.0.9:1"),
            (Some("[::1]:5"), "[::1]:5"),
            (Some("::1"), "[::1]:7400"),
        ] {
            let link = link("127.0.0.1:7400", advertise);
            let reached = advertised(&link).await.unwrap();
            assert_eq!(reached, expected.parse().unwrap(), "{advertise:?}");
        }
        let nowhere = link("127.0.0.1:7400", Some("no-such-name.invalid"));
        let refused = advertised(&nowhere).await.unwrap_err().to_string();
        assert!(refused.contains("no-such-name.invalid:7400"), "{refused}");
    }
}
