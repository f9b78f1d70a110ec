//! Properties of the machine, under a shell that is faithful and may crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::{Message, Qos},
    time::Timestamp,
};

/// Something that happens to the client of the laws.
#[derive(Clone, Debug)]
enum Happening {
    Connect {
        kind: Kind,
        clean_start: bool,
        expiry: u32,
        delay: Option<u32>,
    },
    /// The connection that many connections ago ended.
    Disconnect {
        ago: usize,
        reason: DisconnectReason,
        expiry: Option<u32>,
        with_will: bool,
    },
    GatewayLost {
        ago: usize,
    },
    HeartbeatLate,
    Heard {
        ago: usize,
    },
    /// The n-th timer that was asked for fires, maybe early or again.
    Timer(usize),
    Wait(u64),
    /// The owner dies and a new one starts with what is durable.
    Crash,
    Create,
    Patch,
    Delete,
}

fn reason() -> impl Strategy<Value = DisconnectReason> {
    prop_oneof![
        Just(DisconnectReason::ClientInitiated),
        Just(DisconnectReason::ConnectionLost),
        Just(DisconnectReason::KeepAliveTimeout),
        any::<bool>().prop_map(|prevent_will| DisconnectReason::ApiInitiated { prevent_will }),
    ]
}

fn seconds() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1_u32..60, Just(5000), Just(NEVER_EXPIRES)]
}

fn happening() -> impl Strategy<Value = Happening> {
    let kind = prop_oneof![Just(Kind::Device), Just(Kind::App)];
    let ago = prop_oneof![3 => Just(0_usize), 1 => 0_usize..3];
    prop_oneof![
        4 => (kind, any::<bool>(), seconds(), prop::option::of(0_u32..40)).prop_map(
            |(kind, clean_start, expiry, delay)| Happening::Connect { kind, clean_start, expiry, delay }
        ),
        4 => (ago.clone(), reason(), prop::option::of(seconds()), any::<bool>()).prop_map(
            |(ago, reason, expiry, with_will)| Happening::Disconnect { ago, reason, expiry, with_will }
        ),
        2 => ago.clone().prop_map(|ago| Happening::GatewayLost { ago }),
        1 => Just(Happening::HeartbeatLate),
        1 => ago.prop_map(|ago| Happening::Heard { ago }),
        4 => (0_usize..6).prop_map(Happening::Timer),
        4 => prop_oneof![1_u64..40, Just(3600)].prop_map(Happening::Wait),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Create),
        1 => Just(Happening::Patch),
        1 => Just(Happening::Delete),
    ]
}

/// A shell that does what it is told, and remembers what the laws are about.
struct World {
    client: ClientId,
    rules: Rules,
    now: Timestamp,
    memory: Option<DeviceRecord>,
    durable: Option<DeviceRecord>,
    timers: Vec<(Timestamp, Timer)>,
    epochs: Vec<SessionEpoch>,
    wills: BTreeMap<SessionEpoch, usize>,
    forbidden: BTreeSet<SessionEpoch>,
}

impl World {
    fn new() -> Self {
        Self {
            client: ClientId::parse("d").unwrap(),
            rules: Rules::default(),
            now: Timestamp::from_millis(1_000_000),
            memory: None,
            durable: None,
            timers: Vec::new(),
            epochs: Vec::new(),
            wills: BTreeMap::new(),
            forbidden: BTreeSet::new(),
        }
    }

    fn epoch(&self, ago: usize) -> SessionEpoch {
        self.epochs
            .iter()
            .rev()
            .nth(ago)
            .copied()
            .unwrap_or(SessionEpoch(1))
    }

    fn is_over(&self, epoch: SessionEpoch) -> bool {
        let session = self
            .memory
            .as_ref()
            .and_then(|record| record.session.as_ref());
        session.is_none_or(|session| session.epoch != epoch)
    }

    #[expect(clippy::too_many_lines, reason = "a list of what can happen")]
    fn happen(&mut self, happening: &Happening) {
        self.now = self.now + Duration::from_millis(1);
        match *happening {
            Happening::Connect {
                kind,
                clean_start,
                expiry,
                delay,
            } => {
                self.give(Input::Connect(Box::new(connect(
                    kind,
                    clean_start,
                    expiry,
                    delay,
                ))));
            },
            Happening::Disconnect {
                ago,
                reason,
                expiry,
                with_will,
            } => {
                let epoch = self.epoch(ago);
                let current = !self.is_over(epoch) && self.memory.as_ref().unwrap().is_connected();
                if current && !with_will && !reason.sends_will() {
                    self.forbidden.insert(epoch);
                }
                let end = Disconnect {
                    epoch,
                    reason,
                    expiry,
                    with_will,
                };
                self.give_about(epoch, Input::Disconnect(end));
            },
            Happening::GatewayLost { ago } => {
                let epoch = self.epoch(ago);
                self.give_about(epoch, Input::GatewayLost { epoch });
            },
            Happening::HeartbeatLate => {
                let epoch = self.epoch(0);
                self.give_about(epoch, Input::HeartbeatLate { epoch });
            },
            Happening::Heard { ago } => {
                let epoch = self.epoch(ago);
                self.give_about(epoch, Input::Heard { epoch });
            },
            Happening::Timer(index) => {
                if let Some(&(_, timer)) = self.timers.get(index) {
                    self.give(Input::Timer(timer));
                }
            },
            Happening::Wait(seconds) => self.now = self.now + Duration::from_secs(seconds),
            Happening::Crash => {
                self.memory = self.durable.clone();
                self.timers.clear();
                self.give(Input::Recover {
                    gateway: Gateway::Gone,
                });
            },
            Happening::Create => self.give(Input::Create {
                patch: Bytes::new(),
            }),
            Happening::Patch => {
                let patch = Bytes::from_static(br#"{"site":"s"}"#);
                self.give(Input::SetAttributes {
                    patch,
                    if_match: None,
                });
            },
            Happening::Delete => self.give(Input::Delete { if_match: None }),
        }
    }

    /// Law: an epoch that is over changes nothing.
    fn give_about(&mut self, epoch: SessionEpoch, input: Input) {
        if self.is_over(epoch) {
            let change = handle(
                &self.client,
                self.memory.as_ref(),
                input,
                self.now,
                &self.rules,
            );
            assert!(matches!(change.record, RecordChange::Keep));
            assert!(
                change
                    .effects
                    .iter()
                    .all(|effect| matches!(effect, Effect::Reply(Reply::Done)))
            );
        } else {
            self.give(input);
        }
    }

    fn give(&mut self, input: Input) {
        let change = handle(
            &self.client,
            self.memory.as_ref(),
            input,
            self.now,
            &self.rules,
        );
        match &change.record {
            RecordChange::Keep => {},
            RecordChange::Put(record) => self.memory = Some(record.as_ref().clone()),
            RecordChange::Remove => self.memory = None,
        }
        for (index, effect) in change.effects.iter().enumerate() {
            if let Effect::Persist(writes) = effect {
                assert_eq!(index, 0, "persist comes first, once: {:?}", change.effects);
                for write in writes {
                    self.persist(write);
                }
            }
        }
        if matches!(change.effects.first(), Some(Effect::Persist(_))) {
            assert_eq!(
                self.memory, self.durable,
                "what is adopted is what was written"
            );
        }
        for effect in &change.effects {
            self.run(effect);
        }
        self.check();
    }

    fn persist(&mut self, write: &RecordWrite) {
        match write {
            RecordWrite::Record(record) => self.durable = Some(record.as_ref().clone()),
            RecordWrite::RemoveRecord => self.durable = None,
            RecordWrite::DropSessionRows => {},
            RecordWrite::Shadow { .. } | RecordWrite::RemoveShadow { .. } => unreachable!(),
        }
    }

    fn run(&mut self, effect: &Effect) {
        match *effect {
            Effect::Reply(Reply::Opened(ref opened)) => {
                let highest = self.epochs.iter().max().copied().unwrap_or_default();
                assert!(opened.epoch > highest, "epochs never repeat");
                self.epochs.push(opened.epoch);
            },
            Effect::PublishWill { epoch, .. } => {
                *self.wills.entry(epoch).or_default() += 1;
                self.give(Input::WillPublished { epoch });
            },
            Effect::Schedule { after, what } => self.timers.push((self.now + after, what)),
            Effect::Persist(_)
            | Effect::Reply(_)
            | Effect::Publish(_)
            | Effect::EndSession { .. }
            | Effect::Evict { .. } => {},
        }
    }

    fn check(&self) {
        assert!(
            self.wills.values().all(|&count| count == 1),
            "at most one will per epoch"
        );
        assert!(
            self.wills
                .keys()
                .all(|epoch| !self.forbidden.contains(epoch)),
            "no will after a farewell"
        );
        let Some(record) = &self.memory else { return };
        match record.session.as_ref().map(|session| session.link) {
            Some(Link::Up) => assert_ne!(record.presence, Presence::Never),
            Some(Link::Lost { .. }) => {
                assert!(matches!(
                    record.presence,
                    Presence::Stale | Presence::Offline
                ));
            },
            Some(Link::Down { .. }) => assert_eq!(record.presence, Presence::Offline),
            None => assert!(matches!(
                record.presence,
                Presence::Never | Presence::Offline
            )),
        }
    }

    /// Fires every timer when it is due, until none is left.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let Some(index) = (0..self.timers.len()).min_by_key(|&index| self.timers[index].0)
            else {
                return;
            };
            let (at, timer) = self.timers.swap_remove(index);
            self.now = self.now.max(at);
            self.give(Input::Timer(timer));
        }
        panic!("timers never end");
    }
}

fn connect(kind: Kind, clean_start: bool, expiry: u32, delay: Option<u32>) -> Connect {
    let topic = "last/words".to_owned();
    let message = Message::from_cluster(topic, Bytes::new(), Qos::AtMostOnce, Timestamp::default());
    Connect {
        kind,
        protocol: 5,
        clean_start,
        expiry,
        keep_alive: 60,
        will: delay.map(|delay| Will {
            message,
            delay,
            expiry: None,
        }),
        principal: String::new(),
        ip: String::new(),
        listener: String::new(),
        gateway: NodeId(1),
        gateway_boot: 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn epochs_never_repeat_and_wills_go_out_at_most_once(
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(&happening);
        }
        world.settle();
    }

    #[test]
    fn a_client_that_is_lost_has_its_will_published_exactly_once(
        happenings in prop::collection::vec(happening(), 0..30),
        expiry in seconds(),
        delay in 0_u32..40,
        crash in any::<bool>(),
    ) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(&happening);
        }
        world.happen(&Happening::Connect { kind: Kind::Device, clean_start: false, expiry, delay: Some(delay) });
        let epoch = world.epoch(0);
        if crash {
            world.happen(&Happening::Crash);
        } else {
            world.happen(&Happening::GatewayLost { ago: 0 });
        }
        world.settle();
        prop_assert_eq!(world.wills.get(&epoch), Some(&1));
        let record = world.memory.as_ref().unwrap();
        prop_assert_eq!(record.presence, Presence::Offline);
        prop_assert!(record.pending_wills.is_empty());
    }

    #[test]
    fn a_timer_that_is_late_or_doubled_does_no_harm(
        happenings in prop::collection::vec(happening(), 1..30),
        late in 0_u64..4000,
    ) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(&happening);
        }
        let old = world.timers.clone();
        world.now = world.now + Duration::from_secs(late);
        world.settle();
        let settled = world.memory.clone();
        for (_, timer) in old {
            world.give(Input::Timer(timer));
        }
        world.timers.clear();
        prop_assert_eq!(world.memory, settled);
    }

    #[test]
    fn the_record_survives_serialisation(happenings in prop::collection::vec(happening(), 1..30)) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(&happening);
        }
        let text = serde_json::to_string(&world.memory).unwrap();
        prop_assert_eq!(serde_json::from_str::<Option<DeviceRecord>>(&text).unwrap(), world.memory);
    }

    #[test]
    fn handle_never_panics_on_arbitrary_attributes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut world = World::new();
        world.happen(&Happening::Create);
        world.give(Input::SetAttributes { patch: bytes.into(), if_match: None });
    }
}
