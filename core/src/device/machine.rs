//! The machine's door: one input in, one change out.

use std::sync::Arc;

use super::{
    Change, DeviceRecord, Disconnect, Effect, Input, Kind, RecordChange, RecordWrite, Reply, Rules,
    Timer, registry,
};
use crate::{
    ids::{ClientId, SessionEpoch},
    message::Message,
    shadow::{self, Shadow, ShadowError},
    time::Timestamp,
};

/// Decides what an input means for a client. `record` is what is known of it, if anything.
pub fn handle(
    client: &ClientId,
    record: Option<&DeviceRecord>,
    input: Input,
    now: Timestamp,
    rules: &Rules,
) -> Change {
    let scene = Scene {
        client,
        record,
        now,
        rules,
    };
    match input {
        Input::Connect(connect) => match scene.turn() {
            Some(turn) => turn.connect(*connect),
            None => scene.fresh(connect.kind).connect(*connect),
        },
        Input::Disconnect(disconnect) => scene.disconnect(disconnect),
        Input::GatewayLost { epoch } => scene.known(|turn| turn.gateway_lost(epoch)),
        Input::Recover { gateway } => scene.known(|turn| turn.recover(gateway)),
        Input::Timer(timer) => scene.timer(timer),
        Input::WillPublished { epoch } => scene.known(|turn| turn.will_published(epoch)),
        Input::HeartbeatLate { epoch } => scene.known(|turn| turn.heartbeat_late(epoch)),
        Input::Heard { epoch } => scene.known(|turn| turn.heard(epoch)),
        Input::Shadow { current, request } => scene.shadow(&current, &request),
        Input::Create { patch } => registry::create(scene, &patch),
        Input::SetAttributes { patch, if_match } => {
            registry::set_attributes(scene, &patch, if_match)
        },
        Input::Delete { if_match } => registry::delete(scene, if_match),
        Input::Failed { message } => scene.known(|turn| turn.failed(&message)),
    }
}

/// What an input meets.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) client: &'a ClientId,
    pub(super) record: Option<&'a DeviceRecord>,
    pub(super) now: Timestamp,
    pub(super) rules: &'a Rules,
}

impl<'a> Scene<'a> {
    /// Begins to change the record.
    pub(super) fn turn(self) -> Option<Turn<'a>> {
        self.record.map(|record| self.with(record.clone()))
    }

    /// Begins with a new record.
    pub(super) fn fresh(self, kind: Kind) -> Turn<'a> {
        self.with(DeviceRecord::new(kind, self.now))
    }

    fn with(self, record: DeviceRecord) -> Turn<'a> {
        let Self {
            client, now, rules, ..
        } = self;
        Turn {
            client,
            now,
            rules,
            record,
            touched: Touched::Nothing,
            writes: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// Runs one step on a record that exists; nothing happens to a client that is not known.
    fn known(self, step: impl FnOnce(&mut Turn<'a>)) -> Change {
        let Some(mut turn) = self.turn() else {
            return Change::default();
        };
        step(&mut turn);
        turn.finish(None)
    }

    fn disconnect(self, disconnect: Disconnect) -> Change {
        let Some(mut turn) = self.turn() else {
            return answer(Reply::Done);
        };
        turn.disconnect(disconnect);
        turn.finish(Some(Reply::Done))
    }

    fn timer(self, timer: Timer) -> Change {
        match timer {
            Timer::GraceOver { epoch, since } => self.known(|turn| turn.grace_over(epoch, since)),
            Timer::SessionExpiry { epoch, since } => {
                self.known(|turn| turn.session_expiry(epoch, since))
            },
            Timer::WillDue { epoch, due } => self.known(|turn| turn.will_due(epoch, due)),
            Timer::Forget { epoch } => self.forget(epoch),
        }
    }

    fn forget(self, epoch: SessionEpoch) -> Change {
        let Some(mut turn) = self.turn() else {
            return Change::default();
        };
        if turn.is_forgettable(epoch) {
            turn.finish_removed(None)
        } else {
            turn.finish(None)
        }
    }

    fn shadow(self, current: &Shadow, request: &shadow::Request) -> Change {
        let Some(device) = self.client.as_device() else {
            return answer(Reply::NotFound);
        };
        let is_thing = self
            .record
            .is_some_and(|record| record.kind == Kind::Device);
        let limits = &self.rules.shadow;
        if self.rules.things_must_exist && !is_thing {
            let error = ShadowError::thing_not_found();
            let (reply, message) = shadow::reject(&device, request, error, self.now);
            let mut effects = vec![Effect::Reply(Reply::Shadow(reply))];
            effects.extend(message.map(Effect::Publish));
            return Change {
                effects,
                ..Change::default()
            };
        }
        let outcome = shadow::handle(&device, current, request, self.now, limits);
        let kind = request.shadow.clone();
        let mut effects = Vec::with_capacity(2 + outcome.messages.len());
        let mut adopt = None;
        if let Some(next) = outcome.next {
            let write = RecordWrite::Shadow {
                kind: kind.clone(),
                stored: next.to_stored(),
            };
            effects.push(Effect::Persist(vec![write]));
            adopt = Some((kind, next));
        } else if current.is_forgotten(self.now) {
            effects.push(Effect::Persist(vec![RecordWrite::RemoveShadow {
                kind: kind.clone(),
            }]));
            adopt = Some((kind, Shadow::default()));
        }
        effects.push(Effect::Reply(Reply::Shadow(outcome.reply)));
        effects.extend(outcome.messages.into_iter().map(Effect::Publish));
        Change {
            record: RecordChange::Keep,
            shadow: adopt,
            effects,
        }
    }
}

/// A change that only answers.
pub(super) fn answer(reply: Reply) -> Change {
    Change {
        effects: vec![Effect::Reply(reply)],
        ..Change::default()
    }
}

/// How much of a change there is so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Touched {
    /// None.
    Nothing,
    /// Something the owner may forget: it concludes it again.
    Memory,
    /// Something that must survive the owner.
    Durable,
}

/// A record on its way to the next, and what has to be done for it.
pub(super) struct Turn<'a> {
    pub(super) client: &'a ClientId,
    pub(super) now: Timestamp,
    pub(super) rules: &'a Rules,
    pub(super) record: DeviceRecord,
    touched: Touched,
    writes: Vec<RecordWrite>,
    before: Vec<Effect>,
    after: Vec<Effect>,
}

impl Turn<'_> {
    /// The record changed, and that must survive the owner.
    pub(super) fn keep(&mut self) {
        self.touched = Touched::Durable;
    }

    /// The record changed, in a way that a new owner concludes again.
    pub(super) fn keep_in_memory(&mut self) {
        self.touched = self.touched.max(Touched::Memory);
    }

    /// Something else to make durable with the record.
    pub(super) fn write(&mut self, write: RecordWrite) {
        self.writes.push(write);
        self.keep();
    }

    /// Something that must have happened before anyone is answered.
    pub(super) fn before_reply(&mut self, effect: Effect) {
        self.before.push(effect);
    }

    /// Something to tell.
    pub(super) fn tell(&mut self, effect: Effect) {
        self.after.push(effect);
    }

    /// Something for watchers to know.
    pub(super) fn announce(&mut self, event: Option<Message>) {
        self.after.extend(event.map(Effect::Publish));
    }

    /// Persist, end what is over, answer, tell.
    pub(super) fn finish(self, reply: Option<Reply>) -> Change {
        let record = Arc::new(self.record);
        let mut effects = Vec::with_capacity(2 + self.before.len() + self.after.len());
        if self.touched == Touched::Durable {
            let mut writes = self.writes;
            writes.push(RecordWrite::Record(Arc::clone(&record)));
            effects.push(Effect::Persist(writes));
        }
        effects.extend(self.before);
        effects.extend(reply.map(Effect::Reply));
        effects.extend(self.after);
        let record = match self.touched {
            Touched::Nothing => RecordChange::Keep,
            Touched::Memory | Touched::Durable => RecordChange::Put(record),
        };
        Change {
            record,
            shadow: None,
            effects,
        }
    }

    /// As [`Turn::finish`], but nothing of the record is left.
    pub(super) fn finish_removed(self, reply: Option<Reply>) -> Change {
        let mut writes = self.writes;
        writes.push(RecordWrite::RemoveRecord);
        let mut effects = vec![Effect::Persist(writes)];
        effects.extend(self.before);
        effects.extend(reply.map(Effect::Reply));
        effects.extend(self.after);
        Change {
            record: RecordChange::Remove,
            shadow: None,
            effects,
        }
    }
}
