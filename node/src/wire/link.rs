//! The ways to other nodes: link and gossip, and keeping both pointed at the nodes that the cluster knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use tokio::{runtime::Handle, task::JoinHandle};
use umbel_actors::ports::Clock;
use umbel_cluster::{
    Control,
    gossip::{self, Gossip, GossipConfig, Key, Keys, Member},
    link::{
        tcp::{TcpConfig, TcpTransport},
        tls::Credentials,
    },
    meta::{ClusterIdentity, Meta},
};
use umbel_core::{
    cluster::{ClusterMap, Command, Profile, Roles},
    ids::NodeId,
    time::Timestamp,
};
use umbel_storage::Boot;

use super::StartError;
use crate::{config::Config, membership};

/// Bits of [`gossip::Identity::roles`]. Part of the wire format.
const VOTER: u8 = 1;
const SHARDS: u8 = 2;
const GATEWAY: u8 = 4;

/// Link and gossip of a node that belongs to a cluster.
pub(super) struct Link {
    pub(super) identity: ClusterIdentity,
    pub(super) profile: Profile,
    pub(super) transport: Arc<TcpTransport>,
    pub(super) control: Arc<Control>,
    pub(super) gossip: Gossip,
}

impl Link {
    /// Opens both sockets. Others are spoken to as soon as it is known who they are. What devices and users ask of them
    /// goes through `work`.
    pub(super) async fn start(
        config: &Config,
        identity: ClusterIdentity,
        boot: Boot,
        work: Handle,
    ) -> Result<Self, StartError> {
        let link = config.cluster.link.as_ref();
        let mut link = link
            .cloned()
            .ok_or_else(|| StartError::Member("cluster.bind is not set".to_owned()))?;
        let cluster_id = identity.cluster.to_string();
        let mut settings = TcpConfig::new(
            identity.node,
            boot,
            link.bind,
            cluster_id.clone(),
            credentials(&identity)?,
        );
        settings.work = Some(work);
        // Who comes with an older life is welcome: its groups hear of it and do not vote before they have caught up. To be
        // turned away would only make it start again, with one life more and nothing learned.
        settings.vet = Some(Arc::new(|_| false));
        let transport = TcpTransport::start(settings).await?;
        link.bind = transport.local_addr();
        let mut profile = membership::profile(config, &link)
            .await
            .map_err(|error| StartError::Member(format!("{error:#}")))?;
        let gossip = Gossip::start(GossipConfig {
            me: member(&identity, &profile, boot),
            bind: link.gossip_bind,
            seeds: link.seeds.clone(),
            keys: keys(&identity.gossip_keys_now())?,
            cluster_id,
            settings: gossip::Settings::default(),
        })
        .await?;
        profile
            .addresses
            .gossip
            .set_port(gossip.local_addr().port());
        Ok(Self {
            identity,
            profile,
            control: Control::start(transport.as_ref()),
            transport,
            gossip,
        })
    }
}

/// The keys of an identity or a map: the one to speak with, and the others.
type KeyRing = (u32, Vec<(u32, Vec<u8>)>);

trait GossipKeys {
    fn gossip_keys_now(&self) -> KeyRing;
}

impl GossipKeys for ClusterIdentity {
    fn gossip_keys_now(&self) -> KeyRing {
        let keys = self.gossip_keys.iter();
        let keys = keys.map(|(id, key)| (*id, key.expose().to_vec()));
        (self.spoken_key, keys.collect())
    }
}

fn keys((spoken, all): &KeyRing) -> Result<Keys, StartError> {
    let key = |(id, secret): &(u32, Vec<u8>)| {
        let secret = secret.as_slice().try_into().ok()?;
        Some(Key { id: *id, secret })
    };
    let mut ring: Vec<Key> = all.iter().filter_map(key).collect();
    let spoken = ring.iter().position(|key| key.id == *spoken).unwrap_or(0);
    if ring.is_empty() {
        let why = "the identity of this node has no gossip key".to_owned();
        return Err(StartError::Member(why));
    }
    let current = ring.swap_remove(spoken);
    Ok(Keys::new(current, ring))
}

fn credentials(identity: &ClusterIdentity) -> Result<Credentials, StartError> {
    let key = identity.key.expose().to_vec();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key)
        .map_err(|error| StartError::Member(format!("the key of this node: {error}")))?;
    let authority = identity.authority.clone().into();
    let mine = identity.certificate.clone().into();
    Ok(Credentials {
        // The authority goes with the chain: newcomers know it by its fingerprint only.
        chain: vec![mine, rustls::pki_types::CertificateDer::clone(&authority)],
        ca: vec![authority],
        key,
    })
}

fn member(identity: &ClusterIdentity, profile: &Profile, boot: Boot) -> gossip::Identity {
    gossip::Identity {
        node: identity.node,
        boot,
        renewals: 0,
        link: profile.addresses.link,
        gossip: profile.addresses.gossip,
        roles: bits(profile.roles),
        zone: profile.zone.clone(),
        version: release(&profile.version),
    }
}

const fn bits(roles: Roles) -> u8 {
    let mut bits = 0;
    if roles.voter {
        bits |= VOTER;
    }
    if roles.shards {
        bits |= SHARDS;
    }
    if roles.gateway {
        bits |= GATEWAY;
    }
    bits
}

/// `1.2.3` as numbers; what is no number counts as 0.
fn release(version: &str) -> [u16; 3] {
    let mut numbers = version.split(['.', '-', '+']);
    [(); 3].map(|()| numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Keeps link, gossip and the identity on disk at what the map says.
pub(super) struct Follower {
    pub(super) meta: Arc<Meta>,
    pub(super) transport: Arc<TcpTransport>,
    pub(super) gossip: Arc<Gossip>,
    pub(super) identity: ClusterIdentity,
    pub(super) profile: Profile,
    pub(super) data: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether the cluster was told what this node is for.
    pub(super) is_introduced: bool,
}

impl Follower {
    /// Follows until it is aborted.
    pub(super) fn start(self) -> JoinHandle<()> {
        tokio::spawn(self.run())
    }

    async fn run(mut self) {
        let (mut map, mut members) = (self.meta.watch(), self.gossip.members());
        loop {
            let known = Arc::clone(&map.borrow_and_update());
            let heard = members.borrow_and_update().clone();
            self.follow(&known, &heard).await;
            tokio::select! {
                changed = map.changed() => if changed.is_err() { return },
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn follow(&mut self, map: &ClusterMap, heard: &[Member]) {
        let book = book(&self.identity, map, heard);
        self.transport.set_address_book(&book);
        for node in map.nodes.keys().filter(|node| map.is_removed(**node)) {
            self.transport.removed(*node);
        }
        let members = map.members().filter(|(id, _)| *id != self.identity.node);
        let places: Vec<SocketAddr> = members
            .map(|(_, node)| node.profile.addresses.gossip)
            .collect();
        self.gossip.set_places(places).await;
        self.introduce(map);
        let now = self.clock.wall();
        if self.identity.renew(map, now) {
            self.renewed(now).await;
        }
    }

    /// Roles and zone are said when a node joins; what the configuration says since then is said here.
    fn introduce(&mut self, map: &ClusterMap) {
        let node = self.identity.node;
        let Some(known) = map.nodes.get(&node).filter(|_| !self.is_introduced) else {
            return;
        };
        self.is_introduced = true;
        let mut changes = Vec::new();
        if known.profile.roles != self.profile.roles {
            let roles = self.profile.roles;
            changes.push(Command::SetRoles { node, roles });
        }
        if known.profile.zone != self.profile.zone {
            let zone = self.profile.zone.clone();
            changes.push(Command::SetZone { node, zone });
        }
        let meta = Arc::clone(&self.meta);
        // Detached: it ends with its commands, and what fails is told again at the next start.
        drop(tokio::spawn(async move {
            for change in changes {
                if let Err(error) = meta.command(change).await {
                    tracing::warn!(%error, "the cluster does not take what this node is for");
                }
            }
        }));
    }

    /// The identity changed: the next start needs it, and gossip its keys.
    async fn renewed(&self, _now: Timestamp) {
        match keys(&self.identity.gossip_keys_now()) {
            Ok(keys) => self.gossip.set_keys(keys).await,
            Err(error) => tracing::warn!(%error, "gossip goes on with the keys it has"),
        }
        let (identity, data) = (self.identity.clone(), self.data.clone());
        let saved = tokio::task::spawn_blocking(move || identity.save(&data)).await;
        match saved {
            Ok(Ok(())) => {},
            Ok(Err(error)) => tracing::warn!(%error, "the identity of this node is not saved"),
            Err(panic) => tracing::warn!(%panic, "the identity of this node is not saved"),
        }
    }
}

/// Who is to be spoken to, and where each may be: what gossip heard last comes first, then the map, and before there is
/// a map what was known at the last start.
fn book(
    identity: &ClusterIdentity,
    map: &ClusterMap,
    heard: &[Member],
) -> BTreeMap<NodeId, Vec<String>> {
    let mut places: BTreeMap<NodeId, Vec<SocketAddr>> = BTreeMap::new();
    let is_known = map.identity.is_some();
    for member in heard.iter().filter(|member| member.alive) {
        // Gossip is a hint: a node the map does not know belongs to nobody, once there is a map.
        if !is_known || map.nodes.contains_key(&member.node) {
            places.entry(member.node).or_default().push(member.link);
        }
    }
    for (id, node) in map.members() {
        places
            .entry(id)
            .or_default()
            .push(node.profile.addresses.link);
    }
    for (id, address) in identity.peers.iter().filter(|_| !is_known) {
        places.entry(*id).or_default().push(*address);
    }
    places.retain(|id, _| *id != identity.node && !map.is_removed(*id));
    let text = |places: Vec<SocketAddr>| {
        let mut seen = BTreeSet::new();
        let fresh = places.into_iter().filter(|place| seen.insert(*place));
        fresh.map(|place| place.to_string()).collect()
    };
    places
        .into_iter()
        .map(|(id, all)| (id, text(all)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_three_numbers() {
        assert_eq!(release("1.2.3"), [1, 2, 3]);
        assert_eq!(release("0.10.0-rc1"), [0, 10, 0]);
        assert_eq!(release("next"), [0, 0, 0]);
    }
}
