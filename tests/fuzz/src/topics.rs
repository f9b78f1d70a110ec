//! Subscriptions and a topic: filters a line, the last line is the topic.

use umbel_core::topic::{Filter, Limits, Match, RetainedIndex, ScanLimit, Trie, aws, check_name};

/// Laws: the trie finds what matching every filter finds, and so does the index of retained topics; when all have gone
/// nothing is left; the parser of reserved topics takes any name.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else {
        return false;
    };
    let (filters, topic) = text.rsplit_once('\n').unwrap_or(("", text));
    let limits = Limits::default();
    let filters: Vec<_> = filters
        .split('\n')
        .filter_map(|text| Filter::parse(text, &limits).ok())
        .collect();
    if check_name(topic, &limits).is_err() {
        return false;
    }
    let _reserved = aws::parse(topic);

    let mut trie = Trie::new();
    for (key, filter) in filters.iter().enumerate() {
        assert_eq!(trie.insert(filter, key, ()), None);
    }
    let mut found = Vec::new();
    trie.for_each_match(topic, |hit| match hit {
        Match::Direct(key, ()) => found.push(*key),
        Match::Shared(group) => found.extend(group.iter().map(|(key, ())| *key)),
    });
    found.sort_unstable();
    let expected: Vec<_> = (0..filters.len())
        .filter(|key| filters[*key].matches(topic))
        .collect();
    assert_eq!(found, expected, "{topic}");

    let mut index = RetainedIndex::new();
    index.insert(topic, ());
    for (key, filter) in filters.iter().enumerate() {
        let mut hits = 0;
        let limit = ScanLimit {
            matches: 2,
            steps: 2,
        };
        assert_eq!(index.scan(filter, None, limit, |_, ()| hits += 1), None);
        assert_eq!(hits == 1, filter.matches(topic), "{filter} {topic}");
        assert_eq!(trie.remove(filter, &key), Some(()));
    }
    assert!(trie.is_empty() && trie.filters() == 0);
    !expected.is_empty()
}
