//! What the sessions of this node want, as other nodes are told: which filters, not how often or by whom.
//!
//! Pure: no clock, no task, no link. A [`Cursor`] per peer reads what that peer has not heard yet. What it reads is the
//! state of now and not the history: a filter that came and went in between costs one word, and every message may be said
//! twice.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use umbel_core::{ids::Term, topic::Filter};

use crate::broker::peers::routes::{Dest, Item};

/// Changes that are remembered. Who is further behind is told everything again.
const LOG_MAX: usize = 65_536;

/// Bytes of filters in one message, about: it shares the link with messages of clients.
const MESSAGE_BYTES: usize = 64 * 1024;

/// What an item costs beside its filter's text.
const ITEM_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    count: u32,
    /// Whether a member of this shared group is connected.
    connected: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Claim(Dest, Term),
    Filter(Dest, Filter),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Local {
    filters: BTreeMap<Dest, BTreeMap<Filter, Held>>,
    /// What is advertised at all: this node's own sessions always, those of a shard once all of them are known here.
    claims: BTreeMap<Dest, Term>,
    log: VecDeque<Change>,
    /// How many changes there were; the last of `log` has this number.
    version: u64,
}

impl Local {
    /// The number of the latest change: who heard it heard everything up to now.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// How many filters are held.
    pub(super) fn len(&self) -> usize {
        self.filters.values().map(BTreeMap::len).sum()
    }

    /// Everything of this destination is known here, in this term, and said from now on.
    pub(super) fn claim(&mut self, dest: Dest, term: Term) {
        self.claims.insert(dest, term);
        self.note(Change::Claim(dest, term));
    }

    /// Nothing of this destination is said any more, not even that it went: whoever has it next says what there is.
    pub(super) fn renounce(&mut self, dest: Dest) {
        self.claims.remove(&dest);
    }

    /// What is wanted by a destination, and of a shared group whether a member is connected.
    pub(super) fn wanted(&self, dest: Dest) -> impl Iterator<Item = (&Filter, bool)> {
        let filters = self.filters.get(&dest).into_iter().flatten();
        filters.map(|(filter, held)| (filter, held.connected))
    }

    /// One more session wants this.
    pub(super) fn add(&mut self, dest: Dest, filter: &Filter) {
        let held = self
            .filters
            .entry(dest)
            .or_default()
            .entry(filter.clone())
            .or_default();
        held.count += 1;
        if held.count == 1 {
            // who connects to a node is there; who has a home may be away, which is said apart
            held.connected = matches!(dest, Dest::Node(_));
            self.changed(dest, filter);
        }
    }

    /// One session less wants this.
    pub(super) fn remove(&mut self, dest: Dest, filter: &Filter) {
        let Some(filters) = self.filters.get_mut(&dest) else {
            return;
        };
        let Some(held) = filters.get_mut(filter) else {
            return;
        };
        held.count = held.count.saturating_sub(1);
        if held.count > 0 {
            return;
        }
        filters.remove(filter);
        if filters.is_empty() {
            self.filters.remove(&dest);
        }
        self.changed(dest, filter);
    }

    /// Whether a member of a shared group is connected.
    pub(super) fn set_connected(&mut self, dest: Dest, filter: &Filter, connected: bool) {
        let held = self
            .filters
            .get_mut(&dest)
            .and_then(|filters| filters.get_mut(filter));
        if let Some(held) = held.filter(|held| held.connected != connected) {
            held.connected = connected;
            self.changed(dest, filter);
        }
    }

    fn changed(&mut self, dest: Dest, filter: &Filter) {
        if self.claims.contains_key(&dest) {
            self.note(Change::Filter(dest, filter.clone()));
        }
    }

    fn note(&mut self, change: Change) {
        self.version += 1;
        self.log.push_back(change);
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
        }
    }

    /// The change of this number, if it is remembered.
    fn change(&self, version: u64) -> Option<&Change> {
        let back = usize::try_from(self.version.checked_sub(version)?).ok()?;
        self.log.get(self.log.len().checked_sub(back + 1)?)
    }

    fn item(&self, dest: Dest, filter: &Filter) -> Item {
        let held = self
            .filters
            .get(&dest)
            .and_then(|filters| filters.get(filter));
        let filter = filter.as_str().to_owned();
        match held {
            Some(held) => Item::Put {
                dest,
                filter,
                connected: held.connected,
            },
            None => Item::Remove { dest, filter },
        }
    }
}

#[derive(Debug)]
struct Dump {
    dest: Dest,
    term: Term,
    opened: bool,
    after: Option<Filter>,
}

/// How much one peer was told.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// Told up to this change, if no dump is left.
    reached: u64,
    /// As `reached`, dumps included.
    covered: u64,
    dumps: VecDeque<Dump>,
    begun: bool,
}

/// What a peer is told next.
#[derive(Debug)]
pub(super) struct Said {
    /// The words.
    pub(super) items: Vec<Item>,
    /// The peer has to forget how far it was: everything is said again.
    pub(super) is_first: bool,
}

impl Cursor {
    /// When what was read so far is heard, every change up to this number is.
    pub(super) const fn covered(&self) -> u64 {
        self.covered
    }

    /// The peer does not know what it was told.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Reads on; `None`: there is nothing to say.
    pub(super) fn read(&mut self, local: &Local) -> Option<Said> {
        let mut is_first = false;
        if !self.begun || self.reached < local.version && local.change(self.reached + 1).is_none() {
            is_first = true;
            self.begun = true;
            self.reached = local.version;
            let all = local.claims.iter().map(|(dest, term)| dump(*dest, *term));
            self.dumps = all.collect();
        }
        let (mut items, mut room) = (Vec::new(), MESSAGE_BYTES);
        while room > 0 {
            if self.dumps.front().is_some() {
                self.read_dump(local, &mut items, &mut room);
            } else if !self.read_change(local, &mut items, &mut room) {
                break;
            }
        }
        if self.dumps.is_empty() {
            self.covered = self.reached;
        }
        (is_first || !items.is_empty()).then_some(Said { items, is_first })
    }

    fn read_dump(&mut self, local: &Local, items: &mut Vec<Item>, room: &mut usize) {
        let Some(dump) = self.dumps.front_mut() else {
            return;
        };
        let (dest, term) = (dump.dest, dump.term);
        if local.claims.get(&dest) != Some(&term) {
            self.dumps.pop_front(); // it has another owner by now, or another term: that one is in the log
            return;
        }
        if !dump.opened {
            dump.opened = true;
            items.push(Item::Open { dest, term });
        }
        let after = dump.after.take();
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let filters = local.filters.get(&dest).into_iter();
        let mut last: Option<&Filter> = None;
        for (filter, held) in filters.flat_map(|filters| filters.range((from, Bound::Unbounded))) {
            if *room == 0 {
                dump.after = last.cloned().or(after);
                return;
            }
            *room = room.saturating_sub(filter.as_str().len() + ITEM_BYTES);
            items.push(Item::Put {
                dest,
                filter: filter.as_str().to_owned(),
                connected: held.connected,
            });
            last = Some(filter);
        }
        items.push(Item::Close { dest, term });
        self.dumps.pop_front();
    }

    /// False when there is no further change.
    fn read_change(&mut self, local: &Local, items: &mut Vec<Item>, room: &mut usize) -> bool {
        let Some(change) = local
            .change(self.reached + 1)
            .filter(|_| self.reached < local.version)
        else {
            return false;
        };
        self.reached += 1;
        match change {
            Change::Claim(dest, term) => self.dumps.push_back(dump(*dest, *term)),
            Change::Filter(dest, filter) if local.claims.contains_key(dest) => {
                *room = room.saturating_sub(filter.as_str().len() + ITEM_BYTES);
                items.push(local.item(*dest, filter));
            },
            Change::Filter(..) => {},
        }
        true
    }
}

const fn dump(dest: Dest, term: Term) -> Dump {
    Dump {
        dest,
        term,
        opened: false,
        after: None,
    }
}
