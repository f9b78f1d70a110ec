//! What is read where, and what is left out.

use bytes::Bytes;
use umbel_core::{message::Qos, time::Timestamp, topic::Limits};

use super::*;

const SHARDS: u16 = 4;

fn filter(text: &str) -> Filter {
    Filter::parse(text, &Limits::default()).expect("a filter")
}

fn message(topic: &str) -> Message {
    let now = Timestamp::from_millis(0);
    Message::from_cluster(
        topic.to_owned(),
        Bytes::from_static(b"x"),
        Qos::AtMostOnce,
        now,
    )
}

/// Shards are owned in turn by two nodes.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a shard may have no owner elsewhere"
)]
fn owner(shard: ShardId) -> Option<NodeId> {
    Some(NodeId(u64::from(shard.0 % 2)))
}

fn owed(text: &str) -> Backfill {
    let mut owed = Backfill::default();
    owed.add(filter(text), Options::default());
    owed
}

fn leg(owed: &mut Backfill) -> Option<(Vec<u16>, Option<String>)> {
    match owed.next(SHARDS, owner) {
        Next::Read(leg, _) => Some((leg.shards.iter().map(|shard| shard.0).collect(), leg.after)),
        Next::Nothing | Next::HandOver(..) => None,
    }
}

fn arrive(owed: &mut Backfill, topics: &[&str], next: Option<&str>, refused: &[u16]) {
    let page = RetainedPage {
        messages: topics.iter().map(|topic| message(topic)).collect(),
        next: next.map(str::to_owned),
        refused: refused.iter().map(|shard| ShardId(*shard)).collect(),
    };
    owed.arrived(owed.serial, Some(page));
}

/// Hands over so many of a page, and says which were wanted.
fn hand_over(owed: &mut Backfill, count: usize) -> Vec<String> {
    let Next::HandOver(mut messages, _) = owed.next(SHARDS, owner) else {
        return Vec::new();
    };
    let rest = messages.split_off(count.min(messages.len()));
    let overtaken = owed.overtaken.clone();
    owed.handed_over(owed.serial, rest);
    let topics = messages.into_iter().map(|message| message.topic);
    topics.filter(|topic| !overtaken.contains(topic)).collect()
}

#[test]
fn each_owner_is_asked_for_its_shards_page_by_page() {
    let mut owed = owed("#");
    assert_eq!(leg(&mut owed), Some((vec![0, 2], None)));
    assert_eq!(leg(&mut owed), None, "one page at a time");
    arrive(&mut owed, &["a", "b"], Some("b"), &[]);
    assert_eq!(hand_over(&mut owed, 1), ["a"]);
    assert_eq!(hand_over(&mut owed, 9), ["b"], "what had no room waits");
    assert_eq!(leg(&mut owed), Some((vec![0, 2], Some("b".to_owned()))));
    arrive(&mut owed, &[], None, &[]);
    assert_eq!(hand_over(&mut owed, 9), Vec::<String>::new());
    assert_eq!(leg(&mut owed), Some((vec![1, 3], None)));
    arrive(&mut owed, &["c"], None, &[]);
    assert_eq!(hand_over(&mut owed, 9), ["c"]);
    assert!(owed.is_empty());
}

#[test]
fn a_filter_without_wildcards_asks_one_shard() {
    let shard = ShardId::of("a/b", SHARDS);
    assert_eq!(leg(&mut owed("a/b")), Some((vec![shard.0], None)));
}

#[test]
fn a_shard_that_moved_is_read_on_at_its_next_owner() {
    let mut owed = owed("#");
    assert_eq!(leg(&mut owed), Some((vec![0, 2], None)));
    arrive(&mut owed, &["a"], Some("a"), &[2]);
    assert_eq!(hand_over(&mut owed, 9), ["a"]);
    assert_eq!(leg(&mut owed), Some((vec![0], Some("a".to_owned()))));
    arrive(&mut owed, &[], None, &[]);
    hand_over(&mut owed, 9);
    assert_eq!(leg(&mut owed), Some((vec![1, 3], None)));
    arrive(&mut owed, &[], None, &[]);
    hand_over(&mut owed, 9);
    assert_eq!(leg(&mut owed), Some((vec![2], None)));
    owed.arrived(owed.serial, None);
    assert_eq!(leg(&mut owed), Some((vec![2], None)), "nobody answered");
    arrive(&mut owed, &["d"], None, &[]);
    assert_eq!(hand_over(&mut owed, 9), ["d"]);
    assert!(owed.is_empty());
}

#[test]
fn what_was_overtaken_on_the_way_or_while_it_waited_is_left_out() {
    let mut owed = owed("#");
    owed.overtake("a"); // nothing is on its way: the page will have the newer one
    leg(&mut owed);
    owed.overtake("b");
    arrive(&mut owed, &["a", "b", "c", "d"], None, &[]);
    assert_eq!(hand_over(&mut owed, 1), ["a"]);
    owed.overtake("c");
    assert_eq!(hand_over(&mut owed, 9), ["d"]);
    leg(&mut owed);
    arrive(&mut owed, &["b"], None, &[]);
    assert_eq!(hand_over(&mut owed, 9), ["b"], "another page, read later");
}

#[test]
fn too_much_that_is_newer_makes_the_page_be_read_again() {
    let mut owed = owed("#");
    leg(&mut owed);
    let serial = owed.serial;
    for number in 0..=OVERTAKEN_MAX {
        owed.overtake(&number.to_string());
    }
    owed.arrived(serial, Some(RetainedPage::default()));
    assert_eq!(leg(&mut owed), Some((vec![0, 2], None)));
}

#[test]
fn a_page_of_a_subscription_that_is_gone_is_dropped() {
    let mut owed = owed("a/#");
    owed.add(filter("b/#"), Options::default());
    leg(&mut owed);
    let serial = owed.serial;
    owed.remove(&filter("a/#"));
    owed.arrived(serial, Some(RetainedPage::default()));
    assert!(matches!(owed.next(SHARDS, owner), Next::Read(_, wanted) if wanted == filter("b/#")));
}
