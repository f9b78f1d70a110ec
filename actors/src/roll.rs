//! Roll calls: a gateway is asked, or is gone, and whoever of its clients does not answer has lost its connection.
//!
//! A call is open from the moment its gateway's word is due. Who connects through that gateway meanwhile has answered,
//! so a list that was made before cannot harm it. When the word is complete, late, or not to be had, the call closes:
//! the table is walked, and each client of the gateway that has not answered is doubted: its actor looks once more and,
//! if it is so, tells the machine that the gateway is lost. The walk has a rate, so that a gateway of ten thousand
//! clients does not stop everybody else.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tracing::debug;
use umbel_core::{ids::ClientId, time::Tick};
use umbel_storage::nodes::Nodes;

use crate::{
    device::Work,
    lives::{Life, Verdict, judge},
    metrics::CommandKind,
    refused::Refused,
    shard::Shard,
};

/// Records of a table that are looked at in one turn of the clockwork.
const LOOKS_MAX: usize = 20_000;

/// One gateway's clients in one shard, called by name.
pub(crate) struct RollCall {
    pub(crate) life: Life,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answered: HashSet<ClientId>,
    /// When the call closes by itself.
    until: Option<Tick>,
    /// The gateway's comparison that answers it.
    round: Option<u64>,
    is_closing: bool,
    /// How far the walk came.
    cursor: Option<ClientId>,
    is_walked: bool,
    /// Those whose actor could not look.
    again: Vec<ClientId>,
    doubted: usize,
}

impl RollCall {
    pub(crate) fn has_answered(&self, client: &ClientId) -> bool {
        self.state.lock().answered.contains(client)
    }

    pub(crate) fn answer(&self, client: ClientId) {
        self.state.lock().answered.insert(client);
    }

    /// The gateway's word is complete.
    pub(crate) fn close(&self) {
        self.state.lock().is_closing = true;
    }

    /// The gateway is speaking: it is given time for the rest.
    pub(crate) fn prolong(&self, until: Tick) {
        let mut state = self.state.lock();
        state.until = state.until.map(|set| set.max(until));
    }

    /// An actor could not look: it is asked again.
    pub(crate) fn again(&self, client: ClientId) {
        self.state.lock().again.push(client);
    }

    fn is_due(&self, now: Tick) -> bool {
        let mut state = self.state.lock();
        state.is_closing |= state.until.is_some_and(|until| until <= now);
        state.is_closing
    }
}

/// The roll calls of a shard.
#[derive(Default)]
pub(crate) struct Rolls {
    open: Mutex<Vec<Arc<RollCall>>>,
    /// So that a connect need not look when there is none.
    is_any: AtomicBool,
    /// Gateways that may have clients here, and whether they are known to be gone.
    gateways: Mutex<BTreeMap<Life, bool>>,
}

impl Rolls {
    pub(crate) fn clear(&self) {
        self.open.lock().clear();
        self.gateways.lock().clear();
        self.is_any.store(false, Ordering::Release);
    }

    /// A client of this gateway is there.
    pub(crate) fn met(&self, life: Life) {
        let mut gateways = self.gateways.lock();
        match gateways.get_mut(&life) {
            Some(is_called) => *is_called = false,
            None => {
                gateways.insert(life, false);
            },
        }
    }

    /// Who connected has answered.
    pub(crate) fn connected(&self, life: Life, client: &ClientId) {
        self.met(life);
        if self.is_any.load(Ordering::Acquire) {
            self.answer(life, client);
        }
    }

    pub(crate) fn answer(&self, life: Life, client: &ClientId) {
        for roll in self.open.lock().iter().filter(|roll| roll.life == life) {
            roll.answer(client.clone());
        }
    }

    /// Opens a call that closes at a time unless its gateway's word comes first. One that is open already goes on.
    pub(crate) fn open(&self, life: Life, until: Tick) -> Arc<RollCall> {
        let mut open = self.open.lock();
        let known = open
            .iter()
            .find(|roll| roll.life == life && !roll.state.lock().is_closing);
        if let Some(roll) = known {
            return Arc::clone(roll);
        }
        let roll = Arc::new(RollCall {
            life,
            state: Mutex::new(State {
                until: Some(until),
                ..State::default()
            }),
        });
        open.push(Arc::clone(&roll));
        self.is_any.store(true, Ordering::Release);
        roll
    }

    /// A gateway begins to speak.
    pub(crate) fn begin(&self, life: Life, round: u64, until: Tick) -> Arc<RollCall> {
        let roll = self.open(life, until);
        roll.state.lock().round = Some(round);
        roll
    }

    /// The call that a gateway's words belong to.
    pub(crate) fn find(&self, life: Life, round: u64) -> Option<Arc<RollCall>> {
        let open = self.open.lock();
        let found = open.iter().find(|roll| {
            let state = roll.state.lock();
            roll.life == life && state.round == Some(round) && !state.is_closing
        });
        found.map(Arc::clone)
    }

    /// Whether any gateway is called.
    #[cfg(test)]
    pub(crate) fn is_any_open(&self) -> bool {
        !self.open.lock().is_empty()
    }

    fn is_open(&self, life: Life) -> bool {
        self.open.lock().iter().any(|roll| roll.life == life)
    }

    /// Gateways that are gone, and were not called yet.
    fn newly_gone(&self, nodes: &dyn Nodes) -> Vec<Life> {
        let mut gateways = self.gateways.lock();
        let mut gone = Vec::new();
        for (life, is_called) in gateways.iter_mut() {
            let is_due = match judge(*life, nodes) {
                Verdict::Alive => {
                    *is_called = false;
                    false
                },
                Verdict::Gone => true,
                // It may be a node that this one has yet to hear of: it has the time that others have.
                Verdict::Stranger => !self.is_open(*life),
            };
            if is_due && life.is_known() && !*is_called {
                *is_called = true;
                gone.push(*life);
            }
        }
        gone
    }

    fn due(&self, now: Tick) -> Vec<Arc<RollCall>> {
        if !self.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let open = self.open.lock();
        open.iter()
            .filter(|roll| roll.is_due(now))
            .map(Arc::clone)
            .collect()
    }

    /// Lets go of a call whose walk is over, once no actor holds it.
    fn end(&self, roll: &Arc<RollCall>) {
        let mut open = self.open.lock();
        // Ours and the list's.
        if Arc::strong_count(roll) > 2 || !roll.state.lock().again.is_empty() {
            return;
        }
        open.retain(|known| !Arc::ptr_eq(known, roll));
        self.is_any.store(!open.is_empty(), Ordering::Release);
        drop(open);
        let doubted = roll.state.lock().doubted;
        if doubted > 0 {
            debug!(gateway = %roll.life, doubted, "clients of a gateway were doubted");
        }
    }
}

/// One turn: calls the clients of gateways that are gone, and walks on. `budget` is how many actors may be asked by all
/// shards in this turn.
pub(crate) fn turn(shard: &Arc<Shard>, now: Tick, budget: &mut usize) {
    if let Some(nodes) = &shard.common.nodes {
        for life in shard.rolls.newly_gone(nodes.as_ref()) {
            debug!(shard = %shard.id, gateway = %life, "a gateway is gone, its clients are called");
            shard.rolls.open(life, now).close();
        }
    }
    for roll in shard.rolls.due(now) {
        walk(shard, &roll, budget);
        if roll.state.lock().is_walked {
            shard.rolls.end(&roll);
        }
    }
}

/// Doubts those who have not answered, as many as fit.
fn walk(shard: &Arc<Shard>, roll: &Arc<RollCall>, budget: &mut usize) {
    let again = std::mem::take(&mut roll.state.lock().again);
    for (index, client) in again.iter().enumerate() {
        if *budget == 0 || !doubt(shard, roll, client) {
            let rest = again.get(index..).unwrap_or_default();
            roll.state.lock().again.extend_from_slice(rest);
            return;
        }
        *budget -= 1;
    }
    let number = shard.common.lives.number(roll.life);
    let mut cursor = roll.state.lock().cursor.clone();
    if roll.state.lock().is_walked {
        return;
    }
    let slots = shard.slots_after(cursor.as_ref(), LOOKS_MAX);
    let is_last = slots.len() < LOOKS_MAX;
    for slot in slots {
        if slot.life() == number && !roll.has_answered(slot.id()) {
            if *budget == 0 || !doubt(shard, roll, slot.id()) {
                roll.state.lock().cursor = cursor;
                return;
            }
            *budget -= 1;
        }
        cursor = Some(slot.id().clone());
    }
    let mut state = roll.state.lock();
    state.cursor = cursor;
    state.is_walked = is_last;
}

/// Asks a client's actor to look; false when it has to be asked later.
fn doubt(shard: &Arc<Shard>, roll: &Arc<RollCall>, client: &ClientId) -> bool {
    let work = Work::Doubt(Arc::clone(roll));
    match shard.send(client, CommandKind::Timer, work) {
        Ok(_nobody_waits) => {
            roll.state.lock().doubted += 1;
            true
        },
        Err(why) => !why.passes() || why == Refused::Unreadable,
    }
}
