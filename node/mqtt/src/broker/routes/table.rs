//! What the sessions of other nodes want.
//!
//! Pure: no clock, no task, no link. One entry per filter and destination, whoever and however many want it there. What a
//! node said of itself goes with it; what was said of a shard stays until its next owner has said everything anew, so a
//! message for a durable session finds its way (or waits for it) while the shard has no owner.
//!
//! Of a destination that has not said everything yet it is not known what it wants: it is *blind*, and gets every message.

use std::collections::BTreeMap;

use umbel_core::{
    ids::{NodeId, ShardId, Term},
    topic::{Filter, Limits, Match, Trie},
};
use umbel_storage::{Boot, Peer, Reach};

use crate::broker::peers::routes::{Advertisement, Dest, Item};

/// Counts how often everything was said anew, over all destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Generation(u32);

#[derive(Clone, Copy, Debug)]
struct Wanted(Generation);

#[derive(Clone, Debug)]
struct Member {
    generation: Generation,
    connected: bool,
    filter: Filter,
}

/// How much of one node's stream was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    boot: Boot,
    stream: u64,
    sequence: u64,
}

/// What is known of one destination.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// Who speaks for it.
    from: NodeId,
    term: Term,
    generation: Generation,
    /// Everything was said once.
    is_complete: bool,
    /// Everything is being said anew.
    is_open: bool,
    /// There were too many filters to keep: it gets every message.
    is_coarse: bool,
    entries: usize,
    /// Entries of this generation.
    fresh: usize,
}

/// A shared group that a topic hits, and where its members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) filter: Filter,
    pub(crate) dest: Dest,
    pub(crate) connected: bool,
}

/// Who elsewhere wants a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Each once.
    pub(crate) dests: Vec<Dest>,
    /// In no order.
    pub(crate) shared: Vec<Candidate>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    me: NodeId,
    shards: u16,
    entries_max: usize,
    direct: Trie<Dest, Wanted>,
    shared: Trie<Dest, Member>,
    sources: BTreeMap<Dest, Source>,
    heard: BTreeMap<NodeId, Heard>,
    /// Connected nodes.
    connected: Vec<NodeId>,
    /// See the module.
    blind: Vec<Dest>,
    generation: Generation,
    /// How many shards went from here to other nodes.
    losses: u64,
}

/// What came of a message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It counts.
    Yes,
    /// One before it is missing.
    Missed,
}

impl Table {
    pub(super) fn new(me: NodeId, shards: u16, entries_max: usize) -> Self {
        let mut table = Self {
            me,
            shards,
            entries_max,
            direct: Trie::new(),
            shared: Trie::new(),
            sources: BTreeMap::new(),
            heard: BTreeMap::new(),
            connected: Vec::new(),
            blind: Vec::new(),
            generation: Generation::default(),
            losses: 0,
        };
        table.look_around();
        table
    }

    /// How many entries there are.
    pub(super) const fn len(&self) -> usize {
        self.direct.subscribers() + self.shared.subscribers()
    }

    /// How many shards went from here: who found nobody there while this changed has to look again.
    pub(super) const fn losses(&self) -> u64 {
        self.losses
    }

    /// How many destinations get every message.
    pub(super) const fn blind(&self) -> usize {
        self.blind.len()
    }

    /// Who elsewhere wants a message. No allocation when nobody does.
    pub(super) fn find(&self, topic: &str, found: &mut Found) {
        found.dests.extend_from_slice(&self.blind);
        self.direct.for_each_match(topic, |hit| {
            if let Match::Direct(dest, _) = hit
                && !found.dests.contains(dest)
            {
                found.dests.push(*dest);
            }
        });
        self.shared.for_each_match(topic, |hit| {
            if let Match::Shared(group) = hit {
                found
                    .shared
                    .extend(group.iter().map(|(dest, member)| Candidate {
                        filter: member.filter.clone(),
                        dest: *dest,
                        connected: member.connected,
                    }));
            }
        });
    }

    /// Whether anybody elsewhere wants messages of a topic, or may.
    pub(super) fn is_wanted(&self, topic: &str) -> bool {
        let mut wanted = !self.blind.is_empty();
        self.direct.for_each_match(topic, |_| wanted = true);
        self.shared.for_each_match(topic, |_| wanted = true);
        wanted
    }

    /// The other nodes are like this now.
    pub(super) fn peers(&mut self, peers: &[Peer]) {
        let alive = |node: &NodeId, boot: Boot| {
            peers.iter().any(|peer| {
                peer.node == *node
                    && peer.reach != Reach::Gone
                    && peer.boot.is_none_or(|now| now <= boot)
            })
        };
        let dead: Vec<_> = self
            .heard
            .iter()
            .filter(|(node, heard)| !alive(node, heard.boot))
            .map(|(node, _)| *node)
            .collect();
        for node in &dead {
            self.heard.remove(node);
            self.sources.remove(&Dest::Node(*node));
        }
        if !dead.is_empty() {
            let gone = |dest: &Dest| matches!(dest, Dest::Node(node) if dead.contains(node));
            self.direct.retain(|dest, _| !gone(dest));
            self.shared.retain(|dest, _| !gone(dest));
        }
        let connected = peers
            .iter()
            .filter(|peer| peer.reach == Reach::Connected)
            .map(|peer| peer.node);
        self.connected = connected.collect();
        self.look_around();
    }

    /// The sessions of this shard are homed on this node, in this term: its router knows what they want.
    pub(super) fn gained(&mut self, shard: ShardId, term: Term) {
        let dest = Dest::Shard(shard);
        // who has it by now has spoken already: this node took too long over its rows
        if self
            .sources
            .get(&dest)
            .is_some_and(|known| known.term > term)
        {
            return;
        }
        let source = Source {
            is_complete: true,
            is_open: false,
            ..Source::new(self.me, term, self.next_generation())
        };
        if self
            .sources
            .insert(dest, source)
            .is_some_and(|old| old.entries > 0)
        {
            self.direct.retain(|held, _| *held != dest);
            self.shared.retain(|held, _| *held != dest);
        }
        self.look_around();
    }

    /// Another node has the shard now, or will. Until it has said what is wanted there, it is what was wanted here.
    pub(super) fn lost<'a>(
        &mut self,
        shard: ShardId,
        wanted: impl IntoIterator<Item = (&'a Filter, bool)>,
    ) {
        let dest = Dest::Shard(shard);
        let source = self.sources.get(&dest);
        if source.is_none_or(|source| source.from != self.me) {
            return;
        }
        self.losses += 1;
        for (filter, connected) in wanted {
            self.put(self.me, dest, filter.as_str(), connected);
        }
        self.look_around();
    }

    /// Takes a message of a stream.
    pub(super) fn hear(&mut self, from: NodeId, said: &Advertisement) -> Applied {
        let now = Heard {
            boot: said.boot,
            stream: said.stream,
            sequence: said.sequence,
        };
        let before = self.heard.get(&from);
        let place = before.map(|heard| (heard.boot, heard.stream, heard.sequence));
        let follows = match place {
            Some((boot, stream, _)) if (boot, stream) > (now.boot, now.stream) => {
                return Applied::Missed; // of a life or a stream that is over
            },
            Some((boot, stream, sequence)) if (boot, stream) == (now.boot, now.stream) => {
                if now.sequence < sequence {
                    return Applied::Yes;
                }
                now.sequence <= sequence + 1
            },
            Some(_) | None => now.sequence == 0,
        };
        if !follows {
            return Applied::Missed;
        }
        self.heard.insert(from, now);
        let mut is_closed = false;
        for item in &said.items {
            is_closed |= self.take(from, item);
        }
        if is_closed {
            self.sweep();
            self.look_around();
        }
        Applied::Yes
    }

    /// True when something was said to the end.
    fn take(&mut self, from: NodeId, item: &Item) -> bool {
        match item {
            Item::Open { dest, term } => self.open(from, *dest, *term),
            Item::Put {
                dest,
                filter,
                connected,
            } => self.put(from, *dest, filter, *connected),
            Item::Remove { dest, filter } => self.remove(from, *dest, filter),
            Item::Close { dest, term } => {
                let source = self.sources.get_mut(dest);
                if let Some(source) = source.filter(|source| source.is_of(from, *term)) {
                    source.is_complete = true;
                    source.is_open = false;
                    return true;
                }
            },
        }
        false
    }

    fn open(&mut self, from: NodeId, dest: Dest, term: Term) {
        if matches!(dest, Dest::Node(node) if node != from) {
            return;
        }
        let generation = self.next_generation();
        match self.sources.get_mut(&dest) {
            Some(source) if source.term > term => {}, // it speaks of a time that is over
            Some(source) => {
                // what was wanted here is in the router and not in this table: it must hear the rest first
                let was_here = source.from == self.me;
                source.is_complete &= !was_here;
                source.from = from;
                source.term = term;
                source.generation = generation;
                source.is_open = true;
                source.is_coarse = false;
                source.fresh = 0;
                if was_here {
                    self.losses += 1;
                    self.look_around();
                }
            },
            None => {
                self.sources
                    .insert(dest, Source::new(from, term, generation));
            },
        }
    }

    fn put(&mut self, from: NodeId, dest: Dest, filter: &str, connected: bool) {
        let is_full = self.direct.subscribers() >= self.entries_max;
        let Some(source) = self.sources.get_mut(&dest) else {
            return;
        };
        // a node of a later release may know more of filters than this one: what it cannot read, it cannot judge
        let filter = Filter::parse(filter, &Limits::default()).ok();
        let filter = filter.filter(|filter| !is_full || filter.group().is_some());
        let Some(filter) = filter else {
            if source.from == from && !source.is_coarse {
                source.is_coarse = true;
                tracing::warn!(?dest, "too many filters: every message is sent there");
                self.look_around();
            }
            return;
        };
        if source.from != from {
            return;
        }
        let generation = source.generation;
        let before = if filter.group().is_some() {
            let member = Member {
                generation,
                connected,
                filter: filter.clone(),
            };
            self.shared
                .insert(&filter, dest, member)
                .map(|old| old.generation)
        } else {
            self.direct
                .insert(&filter, dest, Wanted(generation))
                .map(|old| old.0)
        };
        source.entries += usize::from(before.is_none());
        source.fresh += usize::from(before != Some(generation));
    }

    fn remove(&mut self, from: NodeId, dest: Dest, filter: &str) {
        let Some(source) = self.sources.get_mut(&dest).filter(|s| s.from == from) else {
            return;
        };
        let Ok(filter) = Filter::parse(filter, &Limits::default()) else {
            return;
        };
        let removed = if filter.group().is_some() {
            self.shared.remove(&filter, &dest).map(|old| old.generation)
        } else {
            self.direct.remove(&filter, &dest).map(|old| old.0)
        };
        source.entries -= usize::from(removed.is_some());
        source.fresh -= usize::from(removed == Some(source.generation));
    }

    /// Forgets what was not said again.
    fn sweep(&mut self) {
        let is_stale = |source: &Source| !source.is_open && source.entries > source.fresh;
        if !self.sources.values().any(is_stale) {
            return;
        }
        let sources = &self.sources;
        let keeps = |dest: &Dest, generation: Generation| {
            sources
                .get(dest)
                .is_some_and(|source| source.is_open || generation >= source.generation)
        };
        self.direct.retain(|dest, wanted| keeps(dest, wanted.0));
        self.shared
            .retain(|dest, member| keeps(dest, member.generation));
        for source in self.sources.values_mut() {
            if !source.is_open {
                source.entries = source.fresh;
            }
        }
    }

    /// Finds out again who is blind.
    fn look_around(&mut self) {
        let is_seen = |dest: &Dest| {
            let source = self.sources.get(dest);
            source.is_some_and(|source| source.is_complete && !source.is_coarse)
        };
        let shards = (0..self.shards).map(|shard| Dest::Shard(ShardId(shard)));
        let nodes = self.connected.iter().map(|node| Dest::Node(*node));
        self.blind = shards.chain(nodes).filter(|dest| !is_seen(dest)).collect();
    }

    const fn next_generation(&mut self) -> Generation {
        self.generation.0 += 1;
        self.generation
    }
}

impl Source {
    const fn new(from: NodeId, term: Term, generation: Generation) -> Self {
        Self {
            from,
            term,
            generation,
            is_complete: false,
            is_open: true,
            is_coarse: false,
            entries: 0,
            fresh: 0,
        }
    }

    fn is_of(&self, from: NodeId, term: Term) -> bool {
        self.from == from && self.term == term
    }
}
