//! What nodes tell each other, without nodes: speakers and listeners joined by hand, and by chance.

mod random;

use std::collections::BTreeSet;

use umbel_core::{
    ids::{NodeId, ShardId, Term},
    topic::{Filter, Limits},
};
use umbel_storage::{Boot, Peer, Reach};

use super::{
    local::{Cursor, Local},
    table::{Applied, Candidate, Found, Table},
};
use crate::broker::peers::routes::{Advertisement, Dest};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn filter(text: &str) -> Filter {
    Filter::parse(text, &Limits::default()).expect("a filter")
}

fn find(table: &Table, topic: &str) -> BTreeSet<Dest> {
    let mut found = Found::default();
    table.find(topic, &mut found);
    found.dests.into_iter().collect()
}

/// One node's words for one listener, in the order in which they are said.
struct Mouth {
    boot: Boot,
    cursor: Cursor,
    stream: u64,
    sequence: u64,
    /// Said, and not known to be heard.
    open: Option<Advertisement>,
}

impl Mouth {
    fn new(boot: Boot) -> Self {
        Self {
            boot,
            cursor: Cursor::default(),
            stream: 0,
            sequence: 0,
            open: None,
        }
    }

    /// What is said next; the same again as long as it is not heard.
    fn next(&mut self, local: &Local) -> Option<Advertisement> {
        if self.open.is_none() {
            let said = self.cursor.read(local)?;
            if said.is_first {
                (self.stream, self.sequence) = (self.stream + 1, 0);
            }
            self.open = Some(Advertisement {
                boot: self.boot,
                stream: self.stream,
                sequence: self.sequence,
                items: said.items,
            });
        }
        self.open.clone()
    }

    fn answered(&mut self, answer: Applied) {
        self.open = None;
        match answer {
            Applied::Yes => self.sequence += 1,
            Applied::Missed => self.cursor.restart(),
        }
    }

    /// Says everything there is to say to a listener that hears all of it.
    fn tell(&mut self, local: &Local, from: NodeId, table: &mut Table) {
        while let Some(said) = self.next(local) {
            let answer = table.hear(from, &said);
            self.answered(answer);
        }
    }
}

fn peer(node: NodeId, boot: u64, reach: Reach) -> Peer {
    Peer {
        node,
        boot: Some(Boot(boot)),
        reach,
    }
}

/// A node that says what it wants, and one that listens and knows nothing of shards.
fn speaker_and_listener() -> (Local, Mouth, Table) {
    let mut local = Local::default();
    local.claim(Dest::Node(A), Term::default());
    let mut table = Table::new(B, 0, 1_000);
    table.peers(&[peer(A, 1, Reach::Connected)]);
    (local, Mouth::new(Boot(1)), table)
}

#[test]
fn who_has_not_said_everything_yet_gets_every_message() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    assert_eq!(find(&table, "x"), [Dest::Node(A)].into());
    local.add(Dest::Node(A), &filter("a/+"));
    mouth.tell(&local, A, &mut table);
    assert_eq!(find(&table, "x"), [].into());
    assert_eq!(find(&table, "a/b"), [Dest::Node(A)].into());
}

#[test]
fn a_filter_is_said_once_and_taken_back_with_its_last_session() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    mouth.tell(&local, A, &mut table);
    local.add(Dest::Node(A), &filter("a"));
    local.add(Dest::Node(A), &filter("a"));
    let said = mouth.next(&local).expect("news");
    assert_eq!(said.items.len(), 1);
    table.hear(A, &said);
    mouth.answered(Applied::Yes);
    local.remove(Dest::Node(A), &filter("a"));
    assert!(
        mouth.next(&local).is_none(),
        "another session still wants it"
    );
    local.remove(Dest::Node(A), &filter("a"));
    mouth.tell(&local, A, &mut table);
    assert_eq!((find(&table, "a"), table.len()), ([].into(), 0));
}

#[test]
fn a_burst_of_subscriptions_goes_in_one_message() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    mouth.tell(&local, A, &mut table);
    for number in 0..500 {
        local.add(Dest::Node(A), &filter(&format!("a/{number}")));
    }
    let said = mouth.next(&local).expect("news");
    assert_eq!(said.items.len(), 500);
    table.hear(A, &said);
    mouth.answered(Applied::Yes);
    assert!(mouth.next(&local).is_none());
    assert_eq!(mouth.cursor.covered(), local.version());
}

#[test]
fn many_filters_are_said_in_pieces() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    for number in 0..10_000 {
        local.add(Dest::Node(A), &filter(&format!("a/{number}")));
    }
    let mut table_of_many = Table::new(B, 0, 100_000);
    table_of_many.peers(&[peer(A, 1, Reach::Connected)]);
    std::mem::swap(&mut table, &mut table_of_many);
    let mut messages = 0;
    while let Some(said) = mouth.next(&local) {
        assert!(said.items.len() < 5_000);
        messages += 1;
        let answer = table.hear(A, &said);
        mouth.answered(answer);
    }
    assert!(messages > 2, "{messages}");
    assert_eq!(table.len(), 10_000);
    assert_eq!(find(&table, "a/9999"), [Dest::Node(A)].into());
}

#[test]
fn a_listener_that_missed_something_asks_for_all_of_it_and_forgets_the_rest() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    local.add(Dest::Node(A), &filter("old"));
    mouth.tell(&local, A, &mut table);
    local.remove(Dest::Node(A), &filter("old"));
    drop(mouth.next(&local).expect("news")); // lost, and taken for heard
    mouth.answered(Applied::Yes);
    local.add(Dest::Node(A), &filter("new"));
    let said = mouth.next(&local).expect("news");
    assert_eq!(table.hear(A, &said), Applied::Missed);
    mouth.answered(Applied::Missed);
    assert_eq!(find(&table, "old"), [Dest::Node(A)].into());
    mouth.tell(&local, A, &mut table);
    assert_eq!(find(&table, "old"), [].into());
    assert_eq!(find(&table, "new"), [Dest::Node(A)].into());
    assert_eq!(table.len(), 1);
}

#[test]
fn a_message_that_comes_twice_or_late_changes_nothing() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    mouth.tell(&local, A, &mut table);
    local.add(Dest::Node(A), &filter("a"));
    let first = mouth.next(&local).expect("news");
    table.hear(A, &first);
    assert_eq!(table.hear(A, &first), Applied::Yes);
    mouth.answered(Applied::Yes);
    local.remove(Dest::Node(A), &filter("a"));
    mouth.tell(&local, A, &mut table);
    assert_eq!(table.hear(A, &first), Applied::Yes, "late, and over");
    assert_eq!((find(&table, "a"), table.len()), ([].into(), 0));
}

#[test]
fn what_a_node_said_of_itself_goes_with_it() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    local.add(Dest::Node(A), &filter("a"));
    mouth.tell(&local, A, &mut table);
    table.peers(&[peer(A, 1, Reach::Unreachable)]);
    assert_eq!(table.len(), 1, "a break may be short");
    table.peers(&[peer(A, 1, Reach::Gone)]);
    assert_eq!((find(&table, "a"), table.len()), ([].into(), 0));
    // it is back, and does not know that it was taken for gone
    table.peers(&[peer(A, 1, Reach::Connected)]);
    assert_eq!(find(&table, "x"), [Dest::Node(A)].into());
    local.add(Dest::Node(A), &filter("b"));
    mouth.tell(&local, A, &mut table);
    assert_eq!(find(&table, "a"), [Dest::Node(A)].into());
    assert_eq!(find(&table, "x"), [].into());
}

#[test]
fn a_node_that_was_started_again_begins_anew() {
    let (mut local, mut mouth, mut table) = speaker_and_listener();
    local.add(Dest::Node(A), &filter("a"));
    mouth.tell(&local, A, &mut table);
    let last = mouth.next(&local);
    assert!(last.is_none());
    let mut reborn = Local::default();
    reborn.claim(Dest::Node(A), Term::default());
    reborn.add(Dest::Node(A), &filter("b"));
    table.peers(&[peer(A, 2, Reach::Connected)]);
    Mouth::new(Boot(2)).tell(&reborn, A, &mut table);
    assert_eq!((find(&table, "a"), table.len()), ([].into(), 1));
    local.add(Dest::Node(A), &filter("c"));
    let late = mouth.next(&local).expect("words of the life before");
    assert_eq!(table.hear(A, &late), Applied::Missed);
    assert_eq!(find(&table, "c"), [].into());
}

#[test]
fn what_was_said_of_a_shard_stays_until_its_next_owner_said_everything() {
    let shard = Dest::Shard(ShardId(0));
    let mut table = Table::new(NodeId(3), 1, 1_000);
    let (mut first, mut second) = (Local::default(), Local::default());
    first.add(shard, &filter("old"));
    first.add(shard, &filter("both"));
    first.claim(shard, Term(1));
    Mouth::new(Boot(1)).tell(&first, A, &mut table);
    table.peers(&[peer(A, 1, Reach::Gone)]);
    assert_eq!(find(&table, "old"), [shard].into(), "the owner died");

    second.add(shard, &filter("both"));
    second.add(shard, &filter("new"));
    second.claim(shard, Term(2));
    let mut mouth = Mouth::new(Boot(1));
    mouth.tell(&second, B, &mut table);
    assert_eq!(find(&table, "old"), [].into());
    assert_eq!(find(&table, "both"), [shard].into());
    assert_eq!(find(&table, "new"), [shard].into());

    // the one before wakes up and has not heard
    first.add(shard, &filter("ghost"));
    Mouth::new(Boot(1)).tell(&first, A, &mut table);
    assert_eq!(find(&table, "ghost"), [].into());
    assert_eq!(find(&table, "old"), [].into());
}

#[test]
fn a_shard_that_leaves_this_node_is_wanted_as_before_until_the_next_owner_speaks() {
    let shard = ShardId(0);
    let mut table = Table::new(A, 1, 1_000);
    assert_eq!(table.blind(), 1);
    table.gained(shard, Term(1));
    assert_eq!((table.blind(), find(&table, "a")), (0, [].into()));
    table.lost(shard, [(&filter("a"), false)]);
    assert_eq!(find(&table, "a"), [Dest::Shard(shard)].into());
    assert_eq!(find(&table, "b"), [].into());
    let mut next = Local::default();
    next.add(Dest::Shard(shard), &filter("b"));
    next.claim(Dest::Shard(shard), Term(2));
    Mouth::new(Boot(1)).tell(&next, B, &mut table);
    assert_eq!(find(&table, "a"), [].into());
    assert_eq!(find(&table, "b"), [Dest::Shard(shard)].into());
    table.gained(shard, Term(3));
    assert_eq!((find(&table, "b"), table.len()), ([].into(), 0));
}

#[test]
fn whether_a_member_of_a_group_is_connected_is_said_when_it_changes() {
    let shard = Dest::Shard(ShardId(0));
    let group = filter("$share/g/a");
    let mut local = Local::default();
    let mut table = Table::new(B, 1, 1_000);
    let mut mouth = Mouth::new(Boot(1));
    local.claim(shard, Term(1));
    local.add(shard, &group);
    mouth.tell(&local, A, &mut table);
    let members = |table: &Table| {
        let mut found = Found::default();
        table.find("a", &mut found);
        found.shared
    };
    let member = |connected| Candidate {
        filter: group.clone(),
        dest: shard,
        connected,
    };
    assert_eq!(members(&table), [member(false)]);
    local.set_connected(shard, &group, true);
    mouth.tell(&local, A, &mut table);
    assert_eq!(members(&table), [member(true)]);
    local.set_connected(shard, &group, true);
    assert!(mouth.next(&local).is_none());
}

#[test]
fn a_destination_that_wants_too_much_gets_everything() {
    let (mut local, mut mouth, _) = speaker_and_listener();
    let mut table = Table::new(B, 0, 10);
    table.peers(&[peer(A, 1, Reach::Connected)]);
    for number in 0..20 {
        local.add(Dest::Node(A), &filter(&format!("a/{number}")));
    }
    mouth.tell(&local, A, &mut table);
    assert_eq!(table.len(), 10);
    assert_eq!(find(&table, "anything"), [Dest::Node(A)].into());
    assert_eq!(find(&table, "a/19"), [Dest::Node(A)].into());
}

#[test]
fn a_log_that_was_cut_is_made_up_for_by_saying_everything() {
    let (mut local, mut mouth, _) = speaker_and_listener();
    let mut table = Table::new(B, 0, 200_000);
    table.peers(&[peer(A, 1, Reach::Connected)]);
    mouth.tell(&local, A, &mut table);
    for number in 0..70_000 {
        local.add(Dest::Node(A), &filter(&format!("a/{number}")));
    }
    for number in 0..69_999 {
        local.remove(Dest::Node(A), &filter(&format!("a/{number}")));
    }
    mouth.tell(&local, A, &mut table);
    assert_eq!(table.len(), 1);
    assert_eq!(find(&table, "a/69999"), [Dest::Node(A)].into());
}

/// Prints what a filter of another node costs: run with `--run-ignored all --no-capture`.
#[test]
#[ignore = "prints a figure"]
#[expect(clippy::print_stdout, reason = "that is its purpose")]
fn what_a_million_filters_cost() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("linux");
        let pages = statm.split(' ').nth(1).and_then(|text| text.parse().ok());
        pages.map_or(0, |pages: u64| pages * 4096)
    };
    let (mut local, mut mouth, _) = speaker_and_listener();
    let mut table = Table::new(B, 0, 2_000_000);
    for number in 0..1_000_000 {
        local.add(
            Dest::Node(A),
            &filter(&format!("site/{}/device/{number:07}/state", number % 100)),
        );
    }
    let before = resident();
    mouth.tell(&local, A, &mut table);
    let bytes = (resident() - before) / 1_000_000;
    println!("{bytes} bytes for each of {} filters", table.len());
}

#[test]
fn who_takes_long_over_its_rows_does_not_speak_for_a_shard_that_has_gone_on() {
    let shard = ShardId(0);
    let mut local = Local::default();
    local.claim(Dest::Node(A), Term::default());
    local.claim(Dest::Shard(shard), Term(2));
    let mut mouth = Mouth::new(Boot(1));
    let mut table = Table::new(B, 1, 1_000);
    table.peers(&[peer(A, 1, Reach::Connected)]);
    mouth.tell(&local, A, &mut table);
    // this node was the owner before, and comes to the end of its reading
    table.gained(shard, Term(1));
    local.add(Dest::Shard(shard), &filter("a"));
    mouth.tell(&local, A, &mut table);
    assert_eq!(find(&table, "a"), [Dest::Shard(shard)].into());
    table.lost(shard, []);
    assert_eq!(find(&table, "a"), [Dest::Shard(shard)].into());
    assert_eq!(find(&table, "b"), [].into());
}
