use proptest::prelude::*;

use super::*;
use crate::topic::Limits;

const ALL: ScanLimit = ScanLimit {
    matches: usize::MAX,
    steps: usize::MAX,
};

fn filter(text: &str) -> Filter {
    Filter::parse(text, &Limits::default()).expect("valid filter")
}

fn index<T: AsRef<str>>(topics: &[T]) -> RetainedIndex<()> {
    let mut index = RetainedIndex::new();
    for topic in topics {
        index.insert(topic.as_ref(), ());
    }
    index
}

fn scan_all(index: &RetainedIndex<()>, filter: &Filter) -> Vec<String> {
    let mut found = Vec::new();
    let resume = index.scan(filter, None, ALL, |topic, ()| found.push(topic.to_owned()));
    assert_eq!(resume, None);
    found
}

#[test]
fn a_topic_is_replaced_and_removed() {
    let mut index = RetainedIndex::new();
    assert_eq!(index.insert("a/b", 1), None);
    assert_eq!(index.insert("a/b", 2), Some(1));
    assert_eq!((index.get("a/b"), index.len()), (Some(&2), 1));
    assert_eq!(index.remove("a/b"), Some(2));
    assert!(index.is_empty());
}

#[test]
fn neighbours_in_byte_order_are_not_taken_for_children() {
    let index = index(&["a", "a!", "a-b", "a-b/c", "a/b", "a/c", "a0", "ab"]);
    assert_eq!(scan_all(&index, &filter("a/#")), ["a", "a/b", "a/c"]);
    assert_eq!(scan_all(&index, &filter("a/+")), ["a/b", "a/c"]);
    assert_eq!(scan_all(&index, &filter("+/c")), ["a-b/c", "a/c"]);
}

#[test]
fn a_scan_leaps_over_what_cannot_match() {
    let mut topics = Vec::new();
    for device in 0..50 {
        for value in 0..100 {
            topics.push(format!("d{device:02}/v{value:02}"));
        }
    }
    let index = index(&topics);
    let limit = ScanLimit {
        matches: usize::MAX,
        steps: 150,
    };
    let mut found = 0;
    // 50 matches, and no more than a leap or two beside each
    assert_eq!(
        index.scan(&filter("+/v50"), None, limit, |_, ()| found += 1),
        None
    );
    assert_eq!(found, 50);
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "a-", "a0", "$a", "ä"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a name has characters", |topic| !topic.is_empty())
}

fn pattern() -> impl Strategy<Value = Filter> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter has characters", |pattern| !pattern.is_empty())
        .prop_map(|pattern| filter(&pattern))
}

proptest! {
    #[test]
    fn a_scan_equals_matching_every_topic(
        topics in prop::collection::vec(topic(), 0..40),
        filter in pattern(),
    ) {
        let index = index(&topics);
        let mut expected: Vec<_> =
            topics.into_iter().filter(|topic| filter.matches(topic)).collect();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(scan_all(&index, &filter), expected);
    }

    #[test]
    fn a_scan_in_pieces_equals_a_scan_at_once(
        topics in prop::collection::vec(topic(), 0..40),
        filter in pattern(),
        matches in 0_usize..4,
        steps in 0_usize..4,
    ) {
        let index = index(&topics);
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..200 {
            let limit = ScanLimit { matches, steps };
            let mut count = 0;
            let resume = index.scan(&filter, after.as_deref(), limit, |topic, ()| {
                count += 1;
                found.push(topic.to_owned());
            });
            prop_assert!(count <= matches.max(1));
            after = resume.map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        prop_assert_eq!(after, None);
        prop_assert_eq!(found, scan_all(&index, &filter));
    }
}
