//! Laws of the target.

use super::*;
use crate::placement::{REPLICAS, Target, target};

fn replicas(targets: &BTreeMap<ShardId, Target>) -> BTreeMap<ShardId, Vec<NodeId>> {
    let shards = targets.iter().filter(|(id, _)| **id != ShardId::META);
    shards
        .map(|(id, target)| (*id, target.replicas.clone()))
        .collect()
}

fn adopt(map: &mut ClusterMap, targets: &BTreeMap<ShardId, Target>) {
    for (shard, target) in targets {
        let row = map.shards.get_mut(shard).expect("known shard");
        row.replicas.clone_from(&target.replicas);
        row.learners.clone_from(&target.learners);
        row.epoch += 1;
    }
}

fn moved(before: &ClusterMap, targets: &BTreeMap<ShardId, Vec<NodeId>>) -> usize {
    let shards = targets.iter();
    shards
        .map(|(shard, replicas)| {
            let old = before.shards[shard].voters();
            replicas.iter().filter(|node| !old.contains(node)).count()
        })
        .sum()
}

fn settled(nodes: usize, zones: &[&str], shards: u16) -> ClusterMap {
    let mut map = made(shards);
    for place in 1..nodes {
        add(&mut map, zones[place % zones.len()]);
    }
    let targets = target(&map, &none(), &none());
    adopt(&mut map, &targets);
    map
}

proptest! {
    #[test]
    fn every_shard_is_placed(map in clusters()) {
        let count = REPLICAS.min(map.nodes.len());
        for (shard, replicas) in replicas(&target(&map, &none(), &none())) {
            let set: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(set.len(), count, "shard {}", shard);
            prop_assert_eq!(replicas.len(), count);
        }
    }

    #[test]
    fn a_target_is_a_fixed_point(map in clusters()) {
        let first = target(&map, &none(), &none());
        let mut map = map;
        adopt(&mut map, &first);
        prop_assert_eq!(first, target(&map, &none(), &none()));
    }

    #[test]
    fn zones_are_spread_as_evenly_as_they_allow(map in clusters()) {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for node in map.nodes.values() {
            *sizes.entry(&node.profile.zone).or_default() += 1;
        }
        let count = REPLICAS.min(map.nodes.len());
        for replicas in replicas(&target(&map, &none(), &none())).values() {
            let mut used: BTreeMap<&str, usize> = BTreeMap::new();
            for node in replicas {
                *used.entry(&map.nodes[node].profile.zone).or_default() += 1;
            }
            // Where a zone has two or more, no zone with room has less by two.
            for (zone, size) in &sizes {
                let here = used.get(zone).copied().unwrap_or_default();
                let most = used.values().copied().max().unwrap_or_default();
                prop_assert!(here + 1 >= most || here == *size, "{used:?} of {sizes:?}, {count}");
            }
        }
    }

    #[test]
    fn loads_are_bounded(map in clusters()) {
        let rows = replicas(&target(&map, &none(), &none()));
        let loads = loads(&rows);
        let load = |node: &NodeId| loads.get(node).copied().unwrap_or_default();
        for (one, first) in &map.nodes {
            for (two, second) in &map.nodes {
                if first.profile.zone == second.profile.zone {
                    prop_assert!(load(one).abs_diff(load(two)) <= 1, "{loads:?}");
                }
            }
        }
        let zones: BTreeSet<_> = map.nodes.values().map(|node| &node.profile.zone).collect();
        if zones.len() == 1 {
            let total = rows.values().map(Vec::len).sum::<usize>();
            let fair = total.div_ceil(map.nodes.len());
            prop_assert!(loads.values().all(|load| *load <= fair));
        }
    }

    #[test]
    fn preferred_owners_are_even_where_all_nodes_hold_all(shards in 1_u16..80, nodes in 1_usize..4) {
        let map = settled(nodes, &["a"], shards);
        let mut owned: BTreeMap<NodeId, usize> = map.nodes.keys().map(|id| (*id, 0)).collect();
        for row in map.shards.iter().filter(|(id, _)| **id != ShardId::META) {
            *owned.entry(row.1.replicas[0]).or_default() += 1;
        }
        let (most, least) = (owned.values().max(), owned.values().min());
        prop_assert!(most.expect("a node") - least.expect("a node") <= 1, "{owned:?}");
    }

    #[test]
    fn few_replicas_move_when_a_node_joins(nodes in 3_usize..10, shards in 16_u16..80) {
        let mut map = settled(nodes, &["a"], shards);
        add(&mut map, "a");
        let after = replicas(&target(&map, &none(), &none()));
        let total = usize::from(shards) * REPLICAS;
        prop_assert!(moved(&map, &after) <= total.div_ceil(nodes + 1));
    }

    #[test]
    fn only_the_replicas_of_a_leaving_node_move(
        nodes in 4_usize..10,
        shards in 16_u16..80,
        leaver in 1_u64..4,
    ) {
        let mut map = settled(nodes, &["a"], shards);
        let id = NodeId(leaver);
        let held = map.held_by(id).iter().filter(|shard| **shard != ShardId::META).count();
        map.nodes.get_mut(&id).expect("known").state = NodeState::Draining;
        let after = replicas(&target(&map, &none(), &none()));
        // One more may move to make even what rounding left uneven.
        prop_assert!(moved(&map, &after) <= held + nodes);
        prop_assert!(after.values().all(|replicas| !replicas.contains(&id)));
    }

    #[test]
    fn a_node_that_is_down_keeps_what_it_has_and_gets_nothing(map in clusters(), who in 1_u64..9) {
        let mut map = map;
        let first = target(&map, &none(), &none());
        adopt(&mut map, &first);
        let id = NodeId(who);
        let down = BTreeSet::from([id]);
        let newcomer = add(&mut map, "a");
        let after = replicas(&target(&map, &down, &none()));
        for (shard, replicas) in after {
            let had = map.shards[&shard].replicas.contains(&id);
            prop_assert!(had || !replicas.contains(&id));
            if had && !replicas.contains(&id) {
                // It may still lose a place for the sake of zones, never to the balance.
                prop_assert!(map.nodes[&newcomer].profile.zone != map.nodes[&id].profile.zone);
            }
        }
    }
}

#[test]
fn meta_voters_are_odd_where_there_is_a_choice_and_all_others_learn() {
    for (nodes, voters) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (8, 5)] {
        let map = settled(nodes, &["a", "b", "c"], 1);
        let row = &map.shards[&ShardId::META];
        assert_eq!(row.replicas.len(), voters, "{nodes} nodes");
        assert_eq!(row.learners.len(), nodes - voters, "{nodes} nodes");
        let zones: BTreeSet<_> = row
            .replicas
            .iter()
            .map(|id| &map.nodes[id].profile.zone)
            .collect();
        assert_eq!(zones.len(), voters.min(3));
    }
}

#[test]
fn a_pinned_owner_stays_first_while_it_holds_a_copy() {
    let mut map = settled(3, &["a"], 6);
    for shard in (0..6).map(ShardId) {
        let prefer = Command::Prefer {
            shard,
            node: Some(NodeId(2)),
        };
        order(&mut map, prefer);
    }
    let targets = target(&map, &none(), &none());
    assert!(
        replicas(&targets)
            .values()
            .all(|nodes| nodes[0] == NodeId(2))
    );
    map.nodes.get_mut(&NodeId(2)).expect("known").state = NodeState::Draining;
    let targets = target(&map, &none(), &none());
    assert!(replicas(&targets).values().all(|nodes| nodes.len() == 2));
}

#[test]
fn a_lost_node_is_replaced_and_a_node_without_the_role_gets_nothing() {
    let mut map = settled(4, &["a"], 12);
    let gateway = add(&mut map, "b");
    let roles = Roles {
        shards: false,
        voter: false,
        gateway: true,
    };
    map.nodes.get_mut(&gateway).expect("known").profile.roles = roles;
    let lost = BTreeSet::from([NodeId(3)]);
    let targets = target(&map, &lost, &lost);
    for (shard, nodes) in replicas(&targets) {
        assert_eq!(nodes.len(), 3, "{shard}");
        assert!(!nodes.contains(&NodeId(3)) && !nodes.contains(&gateway));
    }
    assert!(targets[&ShardId::META].learners.contains(&gateway));
}
