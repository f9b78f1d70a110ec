use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{NodeId, ShardId},
    time::Timestamp,
};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn profile(port: u16) -> Profile {
    let address = ([10, 0, 0, 1], port).into();
    Profile {
        addresses: Addresses {
            link: address,
            gossip: address,
            client: Some("mqtt.example:8883".to_owned()),
        },
        zone: "a".to_owned(),
        roles: Roles::default(),
        version: "0.1.0".to_owned(),
    }
}

fn founding(node: u64) -> Command {
    Command::Init(Box::new(Init {
        cluster: ClusterId(0xabc),
        shards: 4,
        authority: Authority {
            certificate: vec![1],
            key: Secret::new(b"the key".to_vec()),
        },
        gossip_key: Secret::new(vec![9; 32]),
        node: NodeId(node),
        profile: profile(7000),
        created_at: NOW,
    }))
}

/// A map and a count of the commands it was given.
struct Cluster(ClusterMap, u128);

impl Cluster {
    fn made() -> Self {
        let mut cluster = Self(ClusterMap::default(), 0);
        cluster.give(founding(1)).expect("made");
        cluster
    }

    fn give(&mut self, command: Command) -> Result<Outcome, Rejected> {
        self.give_at(command, NOW)
    }

    fn give_at(&mut self, command: Command, now: Timestamp) -> Result<Outcome, Rejected> {
        self.1 += 1;
        let id = RequestId(self.1);
        self.repeat(&Request { id, command }, now)
    }

    fn repeat(&mut self, request: &Request, now: Timestamp) -> Result<Outcome, Rejected> {
        let decision = decide(&self.0, request, now)?;
        for row in decision.rows {
            self.0.apply(row);
        }
        Ok(decision.outcome)
    }

    fn token(&mut self, hash: u8) {
        let command = Command::CreateToken {
            hash: [hash; 32],
            lives: HOUR,
        };
        self.give(command).expect("a token");
    }

    fn join(&mut self, number: u8) -> NodeId {
        self.token(number);
        let Ok(Outcome::Admitted(node)) = self.give(admit(number, number)) else {
            panic!("not admitted");
        };
        let report = Command::Report {
            node,
            addresses: profile(7000 + u16::from(number)).addresses,
            version: "0.1.0".to_owned(),
        };
        self.give(report).expect("reported");
        node
    }
}

fn admit(token: u8, key: u8) -> Command {
    Command::Admit {
        token: [token; 32],
        key: [key; 32],
        profile: profile(7000 + u16::from(key)),
    }
}

#[test]
fn a_cluster_is_made_once_with_all_shards_on_its_first_node() {
    let mut cluster = Cluster::made();
    assert_eq!(cluster.0.shards.len(), 5);
    assert!(
        cluster
            .0
            .shards
            .values()
            .all(|row| row.replicas == [NodeId(1)])
    );
    let before = cluster.0.clone();
    assert_eq!(cluster.give(founding(1)), Ok(Outcome::Done));
    assert_eq!(cluster.0, before);
    let mut other = founding(1);
    if let Command::Init(init) = &mut other {
        init.cluster = ClusterId(1);
    }
    assert_eq!(cluster.give(other), Err(Rejected::AlreadyInitialised));
    let mut empty = Cluster(ClusterMap::default(), 0);
    assert_eq!(
        empty.give(Command::Drain { node: NodeId(1) }),
        Err(Rejected::NotInitialised)
    );
}

#[test]
fn an_existing_node_keeps_its_id_and_the_next_one_gets_another() {
    let mut cluster = Cluster(ClusterMap::default(), 0);
    cluster.give(founding(12)).expect("made");
    assert_eq!(cluster.join(1), NodeId(13));
}

#[test]
fn a_token_lets_one_key_in_and_that_key_again() {
    let mut cluster = Cluster::made();
    cluster.token(1);
    assert_eq!(cluster.give(admit(1, 5)), Ok(Outcome::Admitted(NodeId(2))));
    assert_eq!(cluster.give(admit(1, 5)), Ok(Outcome::Admitted(NodeId(2))));
    assert_eq!(cluster.0.counters.next_node, 3);
    // Used, unknown and too old sound the same.
    assert_eq!(cluster.give(admit(1, 6)), Err(Rejected::Token));
    assert_eq!(cluster.give(admit(2, 6)), Err(Rejected::Token));
    cluster.token(3);
    assert_eq!(
        cluster.give_at(admit(3, 6), NOW + HOUR),
        Err(Rejected::Token)
    );
    assert_eq!(
        cluster.give_at(admit(1, 5), NOW + HOUR),
        Err(Rejected::Token)
    );
}

#[test]
fn a_removed_node_does_not_come_back_with_its_token_and_its_id_is_not_given_again() {
    let mut cluster = Cluster::made();
    cluster.token(1);
    cluster.give(admit(1, 5)).expect("admitted");
    let remove = Command::Remove {
        node: NodeId(2),
        force: false,
    };
    cluster.give(remove).expect("it never came");
    assert!(cluster.0.is_removed(NodeId(2)));
    assert_eq!(cluster.give(admit(1, 5)), Err(Rejected::Token));
    assert_eq!(cluster.join(9), NodeId(3));
    let report = Command::Report {
        node: NodeId(2),
        addresses: profile(1).addresses,
        version: String::new(),
    };
    assert!(matches!(
        cluster.give(report),
        Err(Rejected::NodeState { .. })
    ));
}

#[test]
fn two_nodes_cannot_have_one_address() {
    let mut cluster = Cluster::made();
    cluster.token(1);
    assert_eq!(
        cluster.give(admit(1, 0)),
        Err(Rejected::AddressTaken(NodeId(1)))
    );
    let node = cluster.join(2);
    let report = Command::Report {
        node,
        addresses: profile(7000).addresses,
        version: String::new(),
    };
    assert_eq!(cluster.give(report), Err(Rejected::AddressTaken(NodeId(1))));
}

#[test]
fn the_last_node_of_a_duty_stays() {
    let mut cluster = Cluster::made();
    let drain = |node| Command::Drain { node };
    let last = cluster.give(drain(NodeId(1)));
    assert!(matches!(last, Err(Rejected::LastNode { .. })));
    let second = cluster.join(1);
    cluster.give(drain(NodeId(1))).expect("another is there");
    assert!(cluster.give(drain(second)).is_err());
    let roles = Roles {
        shards: false,
        ..Roles::default()
    };
    let set = Command::SetRoles {
        node: second,
        roles,
    };
    assert!(cluster.give(set).is_err());
    cluster
        .give(Command::Undrain { node: NodeId(1) })
        .expect("taken back");
    cluster.give(drain(second)).expect("the first is back");
}

#[test]
fn only_who_holds_nothing_is_removed_without_force() {
    let mut cluster = Cluster::made();
    let node = cluster.join(1);
    let remove = |force| Command::Remove { node, force };
    assert!(matches!(
        cluster.give(remove(false)),
        Err(Rejected::NodeState { .. })
    ));
    assert!(cluster.give(Command::Drained { node }).is_err());
    cluster.give(Command::Drain { node }).expect("drains");
    assert!(cluster.give(remove(false)).is_err());
    cluster.give(Command::Drained { node }).expect("drained");
    cluster.give(remove(false)).expect("removed");
    let lost = cluster.join(2);
    let force = Command::Remove {
        node: lost,
        force: true,
    };
    cluster.give(force).expect("it is lost");
}

#[test]
fn an_assignment_is_decided_on_the_row_it_was_made_from() {
    let mut cluster = Cluster::made();
    let node = cluster.join(1);
    let assign = |replicas: Vec<NodeId>, epoch| Command::Assign {
        shard: ShardId(0),
        replicas,
        learners: Vec::new(),
        epoch,
    };
    cluster
        .give(assign(vec![NodeId(1), node], 1))
        .expect("current");
    let stale = cluster.give(assign(vec![node], 1));
    assert!(matches!(stale, Err(Rejected::Stale { epoch: 2, .. })));
    assert!(cluster.give(assign(vec![node, node], 2)).is_err());
    assert!(cluster.give(assign(vec![NodeId(77)], 2)).is_err());
    assert!(cluster.give(assign(Vec::new(), 2)).is_err());
    let prefer = Command::Prefer {
        shard: ShardId(0),
        node: Some(node),
    };
    cluster.give(prefer).expect("a replica");
    let row = &cluster.0.shards[&ShardId(0)];
    assert!(row.pinned && row.preferred() == Some(node) && row.epoch == 3);
}

#[test]
fn a_gossip_key_is_spoken_only_when_all_had_time_to_hear_of_it() {
    let mut cluster = Cluster::made();
    let rotate = || Command::RotateGossipKey {
        key: Secret::new(vec![7; 32]),
    };
    assert_eq!(cluster.0.spoken_key(NOW), Some(1));
    cluster.give(rotate()).expect("the first is spoken");
    assert_eq!(cluster.0.spoken_key(NOW), Some(1));
    assert!(cluster.give(rotate()).is_err());
    let mut later = NOW;
    for _ in 0..4 {
        later = later + HOUR;
        cluster
            .give_at(rotate(), later)
            .expect("the last one is spoken");
        assert!(cluster.0.gossip_keys.len() <= 3);
    }
    assert_eq!(cluster.0.spoken_key(later), Some(5));
    assert_eq!(cluster.0.spoken_key(later + HOUR), Some(6));
}

#[test]
fn secrets_are_not_shown() {
    let cluster = Cluster::made();
    let shown = format!("{:?} {:?}", cluster.0, founding(1));
    assert!(
        !shown.contains("116, 104, 101") && !shown.contains("9, 9"),
        "{shown}"
    );
}

fn commands() -> impl Strategy<Value = Command> {
    let node = || (1_u64..6).prop_map(NodeId);
    prop_oneof![
        (0_u8..6).prop_map(|hash| Command::CreateToken {
            hash: [hash; 32],
            lives: HOUR
        }),
        (0_u8..6, 0_u8..6).prop_map(|(token, key)| admit(token, key)),
        (node(), 0_u16..6).prop_map(|(node, port)| Command::Report {
            node,
            addresses: profile(7000 + port).addresses,
            version: "2".to_owned(),
        }),
        node().prop_map(|node| Command::Drain { node }),
        node().prop_map(|node| Command::Undrain { node }),
        node().prop_map(|node| Command::Drained { node }),
        (node(), any::<bool>()).prop_map(|(node, force)| Command::Remove { node, force }),
        (0_u16..6, prop::collection::vec(node(), 0..4), 0_u64..4).prop_map(
            |(shard, replicas, epoch)| Command::Assign {
                shard: ShardId(shard),
                replicas,
                learners: Vec::new(),
                epoch,
            }
        ),
        Just(Command::RotateGossipKey {
            key: Secret::new(vec![1; 32])
        }),
    ]
}

proptest! {
    #[test]
    fn a_command_asked_again_changes_nothing_and_node_ids_are_given_once(
        commands in prop::collection::vec(commands(), 1..60),
    ) {
        let mut cluster = Cluster::made();
        let mut given = BTreeSet::from([NodeId(1)]);
        for (place, command) in commands.into_iter().enumerate() {
            let before = cluster.0.clone();
            let request = Request { id: RequestId(1000 + place as u128), command };
            let first = cluster.repeat(&request, NOW);
            let after = cluster.0.clone();
            if first.is_err() {
                prop_assert_eq!(&before, &after);
            } else {
                let again = cluster.repeat(&request, NOW);
                prop_assert_eq!(&first, &again);
                prop_assert_eq!(&cluster.0, &after);
                prop_assert!(after == before || after.counters.revision > before.counters.revision);
            }
            for node in after.nodes.keys().filter(|id| !before.nodes.contains_key(id)) {
                prop_assert!(given.insert(*node));
            }
            prop_assert!(before.nodes.keys().all(|id| after.nodes.contains_key(id)));
            prop_assert!(after.requests.len() <= 256);
            // The rows of a map make the map.
            let mut copy = ClusterMap::default();
            for row in after.rows() {
                copy.apply(row);
            }
            prop_assert_eq!(copy, after);
        }
    }
}
