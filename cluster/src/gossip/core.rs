//! Membership without sockets and clocks: packets and time go in, packets and a list of members come out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, Timer};
use umbel_core::ids::NodeId;

use super::{
    Member,
    chance::Chance,
    identity::Identity,
    keys::Keys,
    notice::Noticed,
    screen::{MEMBERS_MAX, Screen},
    seal::{NoRandomness, Rubbish, Seal},
    settings::Settings,
    wire::{self, Content, Wire},
};

/// How often those who should be there and are not are greeted. One small packet each: it is what heals a node that lost
/// everybody, whom foca alone would leave alone.
const GREET_EVERY: Duration = Duration::from_secs(1);
/// Longer without a look at the clock, and this node was asleep: others' silence proves nothing then.
const ASLEEP: Duration = Duration::from_secs(1);
/// Addresses greeted at a time.
const GREETED_MAX: usize = 32;

/// What is to be done outside.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Packets to send.
    pub(super) send: Vec<(SocketAddr, Vec<u8>)>,
    /// What changed, and of whom.
    pub(super) noticed: Vec<(Noticed, NodeId)>,
}

type Timers = BTreeMap<(Duration, u64), Timer<Identity>>;

/// The state of one member's view.
pub(super) struct Core {
    foca: Foca<Identity, Wire, Chance, NoCustomBroadcast>,
    foca_out: AccumulatingRuntime<Identity>,
    seal: Seal,
    screen: Screen,
    timers: Timers,
    timer_count: u64,
    now: Duration,
    greet_at: Duration,
    /// Where members may be found: seeds and the addresses of the map.
    places: BTreeSet<SocketAddr>,
    /// Who answered at a place, if it is not where its identity says.
    known_at: BTreeMap<SocketAddr, NodeId>,
    effects: Effects,
}

impl Core {
    pub(super) fn new(
        me: Identity,
        cluster: &str,
        keys: Keys,
        settings: Settings,
        seed: u64,
    ) -> Result<Self, NoRandomness> {
        Ok(Self {
            seal: Seal::new(cluster, me.node, me.boot, keys)?,
            screen: Screen::new(settings.settle),
            foca: Foca::new(me, settings.of_foca(), Chance::from_seed(seed), Wire),
            foca_out: AccumulatingRuntime::new(),
            timers: Timers::new(),
            timer_count: 0,
            now: Duration::ZERO,
            greet_at: Duration::ZERO,
            places: BTreeSet::new(),
            known_at: BTreeMap::new(),
            effects: Effects::default(),
        })
    }

    /// Where members may be found, from now on.
    pub(super) fn set_places(&mut self, places: BTreeSet<SocketAddr>) {
        self.known_at.retain(|place, _| places.contains(place));
        self.places = places;
        self.greet_at = self.now;
    }

    /// Seals and opens with these keys from now on.
    pub(super) fn set_keys(&mut self, keys: Keys) {
        self.seal.set_keys(keys);
    }

    /// A packet came.
    pub(super) fn packet(
        &mut self,
        from: SocketAddr,
        packet: &mut [u8],
        now: Duration,
    ) -> Result<(), Rubbish> {
        let (sender, boot, content) = match self.seal.open(packet, now) {
            Ok(opened) => opened,
            Err(why) => {
                if why == Rubbish::Mirrored {
                    // An address in the list of seeds is this node's own.
                    let me = self.foca.identity().node;
                    self.remember_place(from, me);
                }
                return Err(why);
            },
        };
        let content = wire::decode(content).map_err(|_error| Rubbish::Content)?;
        match content {
            Content::Hello { me: other, answer } => {
                let is_sender = (other.node, other.boot) == (sender, boot);
                if !is_sender || wire::check(&other).is_err() {
                    return Err(Rubbish::Content);
                }
                self.greeted(from, other, answer);
            },
            Content::Member { boot: mine, .. } if mine != self.foca.identity().boot.0 => {
                return Err(Rubbish::Stale);
            },
            Content::Member { message, .. } => {
                let view = self.foca.iter_membership_state();
                let screened = self.screen.pass(&message, (sender, boot), view, now)?;
                if screened.doubted {
                    self.effects.noticed.push((Noticed::Doubted, sender));
                }
                let handled = self.foca.handle_data(&screened.message, &mut self.foca_out);
                self.drain();
                handled.map_err(|_error| Rubbish::Content)?;
            },
        }
        Ok(())
    }

    /// Time has come to here.
    pub(super) fn advance(&mut self, now: Duration) {
        let asleep = now.saturating_sub(self.now);
        self.now = now;
        if asleep > ASLEEP {
            let timers = std::mem::take(&mut self.timers);
            let late = |((due, n), timer)| ((due + asleep, n), timer);
            self.timers = timers.into_iter().map(late).collect();
        }
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            // An error here is foca's remark that a probe was cut short; it goes on by itself.
            drop(self.foca.handle_timer(timer, &mut self.foca_out));
            self.drain();
        }
        if now >= self.greet_at {
            self.greet_at = now + GREET_EVERY;
            self.greet();
        }
    }

    /// When [`Self::advance`] is due next.
    pub(super) fn due(&self) -> Duration {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        timer.map_or(self.greet_at, |due| due.min(self.greet_at))
    }

    /// Says farewell, so that nobody needs to find out.
    pub(super) fn leave(&mut self) {
        drop(self.foca.leave_cluster(&mut self.foca_out));
        self.drain();
    }

    /// What is to be done since it was asked last.
    pub(super) fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Every other node heard of, in the order of ids.
    pub(super) fn members(&self) -> Vec<Member> {
        let state = self.foca.iter_membership_state();
        let mut members: Vec<_> = state.map(Member::from_foca).collect();
        members.sort_by_key(|member| member.node);
        members
    }

    /// Greets who should be there and is not.
    fn greet(&mut self) {
        let mut here = BTreeSet::from([self.foca.identity().node]);
        let mut reached = BTreeSet::from([self.foca.identity().gossip]);
        let mut missing = self.places.clone();
        for member in self.foca.iter_membership_state() {
            if member.state() == foca::State::Down {
                missing.insert(member.id().gossip);
            } else {
                here.insert(member.id().node);
                reached.insert(member.id().gossip);
            }
        }
        let known_at = &self.known_at;
        let is_here = |place: &SocketAddr| known_at.get(place).is_some_and(|n| here.contains(n));
        missing.retain(|place| !reached.contains(place) && !is_here(place));
        for place in missing.into_iter().take(GREETED_MAX) {
            self.say_hello(place, true);
        }
    }

    fn say_hello(&mut self, to: SocketAddr, answer: bool) {
        let me = self.foca.identity().clone();
        self.send(to, &Content::Hello { me, answer });
    }

    /// Somebody said who it is: asked to let this node in, unless it is known to be there.
    fn greeted(&mut self, from: SocketAddr, other: Identity, answer: bool) {
        self.remember_place(from, other.node);
        if answer {
            self.say_hello(from, false);
        }
        let known = |m: &foca::Member<Identity>| m.id() == &other && m.state() != foca::State::Down;
        let full = self.foca.iter_membership_state().len() >= MEMBERS_MAX;
        if !full && !self.foca.iter_membership_state().any(known) {
            drop(self.foca.announce(other, &mut self.foca_out));
            self.drain();
        }
    }

    fn remember_place(&mut self, place: SocketAddr, node: NodeId) {
        if self.places.contains(&place) {
            self.known_at.insert(place, node);
        }
    }

    fn send(&mut self, to: SocketAddr, content: &Content) {
        let Ok(bytes) = wire::encode(content) else {
            return;
        };
        if let Some(packet) = self.seal.seal(&bytes) {
            self.effects.send.push((to, packet));
        }
    }

    /// Takes what foca wants done.
    fn drain(&mut self) {
        while let Some((to, message)) = self.foca_out.to_send() {
            let content = Content::Member {
                boot: to.boot.0,
                message: message.into(),
            };
            self.send(to.gossip, &content);
        }
        while let Some((after, timer)) = self.foca_out.to_schedule() {
            self.timer_count += 1;
            self.timers
                .insert((self.now + after, self.timer_count), timer);
        }
        while let Some(notification) = self.foca_out.to_notify() {
            self.noticed(&notification);
        }
    }

    fn noticed(&mut self, notification: &OwnedNotification<Identity>) {
        let notice = match notification {
            OwnedNotification::MemberUp(id) => {
                self.screen.appeared(id.node, self.now);
                (Noticed::Up, id.node)
            },
            OwnedNotification::MemberDown(id) => (Noticed::Down, id.node),
            OwnedNotification::Rename(_, id) => (Noticed::Again, id.node),
            OwnedNotification::Rejoin(id) => {
                // Whoever took this node for dead waits for its new name.
                self.greet_at = self.now;
                (Noticed::Renewed, id.node)
            },
            OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {
                return;
            },
        };
        self.effects.noticed.push(notice);
    }
}
