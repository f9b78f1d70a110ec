use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::topic::{LEVELS_MAX, Limits};

fn filter(text: &str) -> Filter {
    Filter::parse(text, &Limits::default()).expect("valid filter")
}

/// Keys of direct subscribers, and names with keys of groups, that a topic hits.
fn hits(trie: &Trie<u32, u32>, topic: &str) -> Vec<(Option<String>, u32, u32)> {
    let mut found = Vec::new();
    trie.for_each_match(topic, |hit| match hit {
        Match::Direct(key, value) => found.push((None, *key, *value)),
        Match::Shared(group) => {
            found.extend(
                group
                    .iter()
                    .map(|(key, value)| (Some(group.name().to_owned()), *key, *value)),
            );
        },
    });
    found.sort();
    found
}

fn nodes<K: Ord, V>(node: &Node<K, V>) -> usize {
    let mut count = 1 + node.plus.as_ref().map_or(0, |plus| nodes(plus));
    node.children.for_each(|_, child| count += nodes(child));
    count
}

#[test]
fn a_subscription_is_replaced_not_doubled() {
    let mut trie = Trie::new();
    assert_eq!(trie.insert(&filter("a/b"), 1, 10), None);
    assert_eq!(trie.insert(&filter("a/b"), 1, 11), Some(10));
    assert_eq!(trie.get(&filter("a/b"), &1), Some(&11));
    if let Some(value) = trie.get_mut(&filter("a/b"), &1) {
        *value = 12;
    }
    assert_eq!(hits(&trie, "a/b"), [(None, 1, 12)]);
    assert_eq!((trie.filters(), trie.subscribers()), (1, 1));
    assert_eq!(trie.get(&filter("a"), &1), None);
    assert_eq!(trie.get(&filter("a/b"), &2), None);
}

#[test]
fn overlapping_filters_of_one_subscriber_are_each_visited() {
    let mut trie = Trie::new();
    for (value, text) in ["a/b", "a/+", "a/#", "#", "+/b", "a/c"]
        .into_iter()
        .enumerate()
    {
        trie.insert(&filter(text), 1, u32::try_from(value).expect("small"));
    }
    assert_eq!(
        hits(&trie, "a/b")
            .iter()
            .map(|hit| hit.2)
            .collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(
        hits(&trie, "a").iter().map(|hit| hit.2).collect::<Vec<_>>(),
        [2, 3]
    );
}

#[test]
fn a_shared_group_gets_one_copy_and_prefers_who_is_preferred() {
    let mut trie = Trie::new();
    for key in 0..4 {
        trie.insert(&filter("$share/g/a/+"), key, 0);
        trie.insert(&filter("$share/h/a/b"), key, 1);
    }
    trie.insert(&filter("a/b"), 9, 2);
    assert_eq!((trie.filters(), trie.subscribers()), (3, 9));

    let mut picked = BTreeSet::new();
    for draw in 0..200 {
        let mut copies = Vec::new();
        trie.for_each_delivery(
            "a/b",
            draw,
            |key, _| *key >= 2,
            |key, value| copies.push((*value, *key)),
        );
        copies.sort_unstable();
        assert_eq!(
            copies.iter().map(|copy| copy.0).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        picked.insert((copies[0].1, copies[1].1));
    }
    // members 2 and 3 of each group, and the two groups draw independently
    assert_eq!(
        picked.into_iter().collect::<Vec<_>>(),
        [(2, 2), (2, 3), (3, 2), (3, 3)]
    );
}

#[test]
fn removing_the_last_subscriber_leaves_an_empty_root() {
    let texts = [
        "a/b/c",
        "a/b/d",
        "a",
        "a/+/c",
        "a/#",
        "#",
        "+/+/#",
        "$share/g/a/b/c",
        "/",
        "a/",
    ];
    let mut trie = Trie::new();
    for text in texts {
        for key in 0..30 {
            trie.insert(&filter(text), key, key);
        }
    }
    assert_eq!((trie.filters(), trie.subscribers()), (10, 300));
    for text in texts {
        assert_eq!(trie.remove(&filter(text), &99), None);
        for key in 0..30 {
            assert_eq!(trie.remove(&filter(text), &key), Some(key));
            assert_eq!(trie.remove(&filter(text), &key), None);
        }
    }
    assert!(trie.is_empty() && trie.root.is_unused());
    assert_eq!(trie.filters(), 0);
}

#[test]
fn the_deepest_filter_is_matched_without_harm() {
    let mut trie = Trie::new();
    trie.insert(&filter(&vec!["+"; LEVELS_MAX].join("/")), 1, 1);
    trie.insert(&filter(&"/".repeat(LEVELS_MAX - 1)), 2, 2);
    assert_eq!(
        hits(&trie, &"/".repeat(LEVELS_MAX - 1)),
        [(None, 1, 1), (None, 2, 2)]
    );
}

#[test]
fn a_million_slashes_from_a_careless_caller_do_no_harm() {
    let mut trie = Trie::new();
    trie.insert(&filter("#"), 1, 1);
    trie.insert(&filter("+/+"), 2, 2);
    assert_eq!(hits(&trie, &"/".repeat(1_000_000)), [(None, 1, 1)]);
}

/// Walks as the trie does and counts the nodes it enters.
fn visited<K: Ord, V>(node: &Node<K, V>, rest: Option<&str>) -> usize {
    let Some(rest) = rest else { return 1 };
    let (level, after) = split_level(rest);
    let child = node
        .children
        .get(level)
        .and_then(|child| Some((child, child.past_tail(after)?)));
    1 + child.map_or(0, |(child, rest)| visited(child, rest))
        + node
            .plus
            .as_ref()
            .map_or(0, |plus| visited(plus, behind(after)))
}

#[test]
fn match_cost_does_not_grow_with_the_number_of_filters() {
    let mut trie = Trie::new();
    for device in 0..100_000_u32 {
        trie.insert(&filter(&format!("umbel/devices/{device}/+/x/#")), device, 0);
    }
    assert_eq!(hits(&trie, "umbel/devices/777/a/x/y"), [(None, 777, 0)]);
    assert!(visited(&trie.root, Some("umbel/devices/777/a/x/y")) <= 6);
}

#[test]
fn a_wildcard_bomb_costs_at_most_the_nodes_it_created() {
    let mut trie = Trie::new();
    // every mixture of `a` and `+` on ten levels
    for bits in 0..1024_u32 {
        let levels: Vec<_> = (0..10)
            .map(|bit| if bits >> bit & 1 == 0 { "a" } else { "+" })
            .collect();
        trie.insert(&filter(&levels.join("/")), bits, 0);
    }
    let topic = ["a"; 10].join("/");
    assert_eq!(hits(&trie, &topic).len(), 1024);
    assert!(visited(&trie.root, Some(&topic)) <= nodes(&trie.root));
    assert!(nodes(&trie.root) <= 1024 * 10);
    let other = format!("b/{}", ["b"; 9].join("/"));
    assert!(visited(&trie.root, Some(&other)) <= 11);
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "ab", "a-", "$a", "ä"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a name has characters", |topic| !topic.is_empty())
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let level = prop_oneof![4 => level(), 1 => Just("+")];
    let group = prop::option::weighted(0.3, prop::sample::select(vec!["g", "h"]));
    (
        group,
        prop::collection::vec(level, 0..6),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(group, mut levels, hash)| {
            if hash || levels.is_empty() {
                levels.push("#");
            }
            (group, levels.join("/"))
        })
        .prop_filter("a filter has characters", |(_, pattern)| {
            !pattern.is_empty()
        })
        .prop_map(|(group, pattern)| match group {
            Some(group) => filter(&format!("$share/{group}/{pattern}")),
            None => filter(&pattern),
        })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Filter, u32, u32),
    /// Removes one of the subscriptions there are, by rank.
    Remove(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (any_filter(), 0..6_u32, any::<u32>()).prop_map(|(f, k, v)| Step::Insert(f, k, v)),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..80)
}

/// Inserts and removes in a trie and in a plain map.
fn run(steps: Vec<Step>) -> (Trie<u32, u32>, BTreeMap<(Filter, u32), u32>) {
    let (mut trie, mut model) = (Trie::new(), BTreeMap::new());
    for step in steps {
        match step {
            Step::Insert(filter, key, value) => {
                assert_eq!(
                    trie.insert(&filter, key, value),
                    model.insert((filter, key), value)
                );
            },
            Step::Remove(_) if model.is_empty() => {},
            Step::Remove(index) => {
                let entry = model
                    .keys()
                    .nth(index.index(model.len()))
                    .cloned()
                    .expect("in range");
                assert_eq!(trie.remove(&entry.0, &entry.1), model.remove(&entry));
            },
        }
    }
    (trie, model)
}

proptest! {
    #[test]
    fn a_trie_equals_matching_every_filter(
        steps in steps(),
        topics in prop::collection::vec(topic(), 1..20),
    ) {
        let (trie, model) = run(steps);
        for topic in topics {
            let mut expected: Vec<_> = model
                .iter()
                .filter(|((filter, _), _)| filter.matches(&topic))
                .map(|((filter, key), value)| (filter.group().map(str::to_owned), *key, *value))
                .collect();
            expected.sort();
            prop_assert_eq!(hits(&trie, &topic), expected, "{}", topic);
        }
        let filters: BTreeSet<_> = model.keys().map(|(filter, _)| filter).collect();
        prop_assert_eq!(trie.filters(), filters.len());
        prop_assert_eq!(trie.subscribers(), model.len());
        for ((filter, key), value) in &model {
            prop_assert_eq!(trie.get(filter, key), Some(value));
        }
    }

    #[test]
    fn removal_undoes_insertion_to_the_last_node(steps in steps()) {
        let (trie, model) = run(steps);
        let mut fresh = Trie::new();
        for ((filter, key), value) in model {
            fresh.insert(&filter, key, value);
        }
        prop_assert_eq!(nodes(&trie.root), nodes(&fresh.root));
    }
}

proptest! {
    #[test]
    fn a_sweep_leaves_what_removing_one_by_one_leaves(
        kept in prop::collection::vec((filter_text(), 0_u32..4, any::<bool>()), 0..120),
    ) {
        let (mut swept, mut model) = (Trie::new(), Trie::new());
        for (text, key, keep) in &kept {
            swept.insert(&filter(text), *key, u32::from(*keep));
            model.insert(&filter(text), *key, u32::from(*keep));
        }
        for (text, key, _) in &kept {
            if model.get(&filter(text), key) == Some(&0) {
                model.remove(&filter(text), key);
            }
        }
        swept.retain(|_, keep| *keep == 1);
        prop_assert_eq!((swept.filters(), swept.subscribers()), (model.filters(), model.subscribers()));
        prop_assert_eq!(nodes(&swept.root), nodes(&model.root));
        for (text, key, _) in &kept {
            prop_assert_eq!(swept.get(&filter(text), key), model.get(&filter(text), key));
        }
    }

    #[test]
    fn a_sweep_of_a_crowd_leaves_every_other_one(siblings in 1_u32..200, kept in 1_u32..20) {
        let mut trie = Trie::new();
        for number in 0..siblings {
            trie.insert(&filter(&format!("a/{number}/x")), number, ());
        }
        trie.retain(|number, ()| number % kept == 0);
        for number in 0..siblings {
            let found = trie.get(&filter(&format!("a/{number}/x")), &number).is_some();
            prop_assert_eq!(found, number % kept == 0);
        }
    }
}

fn filter_text() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "+", "c"]);
    (
        prop::option::of(prop::sample::select(vec!["g", "h"])),
        prop::collection::vec(level, 1..4),
        any::<bool>(),
    )
        .prop_map(|(group, levels, below)| {
            let pattern = levels.join("/");
            let pattern = if below {
                format!("{pattern}/#")
            } else {
                pattern
            };
            match group {
                Some(group) => format!("$share/{group}/{pattern}"),
                None => pattern,
            }
        })
}
