//! From an input to what the world is told: load, decide, persist, adopt, tell. In that order, always.

use std::{collections::BTreeMap, sync::Arc};

use tracing::warn;
use umbel_core::{
    device::{self, Change, DeviceRecord, Effect, Input, Link, RecordChange, Reply},
    ids::{SessionEpoch, Term},
    shadow::{self, Shadow, ShadowKind},
    time::Timestamp,
};
use umbel_storage::{crash, ledger::Refusal, table::Write};

use crate::{
    adopt,
    alarms::Alarm,
    applied::{self, Outcome},
    device::{Answer, Work},
    lives::Life,
    phantom, records,
    refused::Refused,
    remote::{Call, RequestId},
    roll::RollCall,
    shard::Shard,
    slot::Slot,
};

/// What an awake actor knows. It was committed, in the term it belongs to.
#[derive(Default)]
pub(crate) struct Hot {
    term: Option<Term>,
    record: Loaded,
    shadows: BTreeMap<ShadowKind, Shadow>,
}

#[derive(Default)]
enum Loaded {
    #[default]
    NotYet,
    Missing,
    Record(Arc<DeviceRecord>),
}

impl Hot {
    /// Whether sleeping would cost reading a document again.
    pub(crate) fn is_hot(&self) -> bool {
        !self.shadows.is_empty()
    }

    /// What was known under another term may be old.
    fn enter(&mut self, term: Term) {
        if self.term != Some(term) {
            *self = Self {
                term: Some(term),
                ..Self::default()
            };
        }
    }

    fn forget(&mut self) {
        *self = Self::default();
    }

    fn record(&self) -> Option<&DeviceRecord> {
        match &self.record {
            Loaded::Record(record) => Some(record),
            Loaded::NotYet | Loaded::Missing => None,
        }
    }

    fn load_record(&mut self, shard: &Shard, slot: &Slot) -> Result<(), Refused> {
        if matches!(self.record, Loaded::NotYet) {
            self.record = match records::load_device(shard, slot.id())? {
                Some(record) => Loaded::Record(record),
                None => Loaded::Missing,
            };
        }
        Ok(())
    }

    fn load_shadow(
        &mut self,
        shard: &Shard,
        slot: &Slot,
        kind: &ShadowKind,
    ) -> Result<Shadow, Refused> {
        if let Some(shadow) = self.shadows.get(kind) {
            return Ok(shadow.clone());
        }
        let shadow = records::load_shadow(shard, slot.id(), kind)?;
        if shadow.exists() {
            self.keep_shadow(
                kind.clone(),
                shadow.clone(),
                shard.common.config.hot_shadows_max,
            );
        }
        Ok(shadow)
    }

    fn keep_shadow(&mut self, kind: ShadowKind, shadow: Shadow, max: usize) {
        if self.shadows.len() >= max.max(1) && !self.shadows.contains_key(&kind) {
            self.shadows.pop_first();
        }
        self.shadows.insert(kind, shadow);
    }
}

/// Works on one command. On refusal nothing was adopted and nobody was told.
pub(crate) async fn decide(
    shard: &Arc<Shard>,
    slot: &Arc<Slot>,
    work: Work,
    call: Option<Call>,
    hot: &mut Hot,
) -> Answer {
    if let Some(fail_point) = &shard.common.config.fail_point {
        fail_point(slot.id());
    }
    let turn = Turn {
        shard,
        slot,
        term: shard.term()?,
    };
    hot.enter(turn.term);
    let outcome = turn.work(work, call, hot).await;
    if outcome.is_err() {
        // Whatever went wrong, the stored state is the truth; it is read again next time.
        hot.forget();
    }
    outcome
}

/// What has to be remembered of a command of another node.
struct Memo {
    id: RequestId,
    /// What is asked of a shadow, and the version it has.
    shadow: Option<(shadow::Verb, u64)>,
}

impl Memo {
    fn row(
        &self,
        effects: &[Effect],
        next: Option<&(ShadowKind, Shadow)>,
        now: Timestamp,
    ) -> Result<Option<Write>, Refused> {
        let (verb, current) = self.shadow.unzip();
        let versions = (current.unwrap_or_default(), next.map(|(_, next)| next));
        applied::outcome(effects, verb, versions, now)
            .map(|outcome| applied::row(&self.id, outcome))
            .transpose()
    }
}

/// One command's way through the machine.
struct Turn<'a> {
    shard: &'a Arc<Shard>,
    slot: &'a Arc<Slot>,
    term: Term,
}

impl Turn<'_> {
    async fn work(&self, work: Work, call: Option<Call>, hot: &mut Hot) -> Answer {
        self.look(hot).await?;
        if let Some(call) = call
            && let Some(outcome) = self.applied_before(&call)?
        {
            return self.repeat(&call.id, outcome, work, hot).await;
        }
        let mut memo = call.map(|call| Memo {
            id: call.id,
            shadow: None,
        });
        let input = match work {
            Work::Input(input) => *input,
            Work::Alarm(alarm) => alarm.input(),
            Work::Doubt(roll) => match self.doubted(&roll, hot) {
                Some(epoch) => Input::GatewayLost { epoch },
                None => return Ok(None),
            },
            Work::Review(gateway) => {
                let (client, record) = (self.slot.id(), hot.record());
                match phantom::review(self.shard, client, record, gateway).await? {
                    Some(input) => input,
                    None => return Ok(None),
                }
            },
            Work::Shadow(request) => {
                let current = hot.load_shadow(self.shard, self.slot, &request.shadow)?;
                if let Some(memo) = &mut memo {
                    memo.shadow = Some((request.verb, current.version()));
                }
                Input::Shadow { current, request }
            },
        };
        if matches!(input, Input::Connect(_)) {
            let (client, record) = (self.slot.id(), hot.record());
            if let Some(before) = phantom::before_connect(self.shard, client, record).await {
                self.apply(before, None, hot).await?;
                // What was known is forgotten if the note of a will could not be written.
                self.look(hot).await?;
            }
        }
        let answer = self.apply(input, memo.as_ref(), hot).await?;
        if let Some(memo) = memo {
            self.shard.applied.set_told(&memo.id);
        }
        Ok(answer)
    }

    /// Learns what is committed of the client, unless it is known.
    async fn look(&self, hot: &mut Hot) -> Result<(), Refused> {
        if self.slot.is_in_doubt() {
            hot.forget();
            hot.enter(self.term);
            self.settle_doubt().await?;
        }
        hot.load_record(self.shard, self.slot)
    }

    /// Runs an input, and notes the wills that it published.
    async fn apply(&self, input: Input, memo: Option<&Memo>, hot: &mut Hot) -> Answer {
        let mut wills = Vec::new();
        let answer = self.run(input, memo, hot, &mut wills).await?;
        for epoch in wills {
            self.shard.common.meters.wills.increment(1);
            let published = Input::WillPublished { epoch };
            if let Err(why) = self.run(published, None, hot, &mut Vec::new()).await {
                // The will is out; only the note of it is missing. Publishing it again would be worse than
                // trying again to write it down.
                warn!(device = %self.slot.id(), error = %why, "could not record a published will");
                hot.forget();
                hot.enter(self.term);
                self.shard.alarm(
                    self.slot.id(),
                    crate::timer::RETRY,
                    Alarm::WillPublished(epoch),
                );
            }
        }
        Ok(answer)
    }

    /// A write whose outcome is unknown may still be on its way. What is committed after it settles it.
    async fn settle_doubt(&self) -> Result<(), Refused> {
        let barrier = records::barrier(self.slot.id());
        self.shard
            .common
            .ledger
            .propose(self.shard.id, self.term, vec![barrier])
            .await?;
        self.slot.set_doubt(false);
        Ok(())
    }

    /// The connection of the gateway that is called, if it is still the one and its client did not answer.
    fn doubted(&self, roll: &RollCall, hot: &Hot) -> Option<SessionEpoch> {
        let session = hot.record()?.session.as_ref()?;
        let is_meant = Life::of(session) == roll.life && session.link == Link::Up;
        if !is_meant || roll.has_answered(self.slot.id()) {
            return None;
        }
        self.shard.common.meters.lost.increment(1);
        Some(session.epoch)
    }

    /// What came of a command of another node, if it was applied before.
    fn applied_before(&self, call: &Call) -> Result<Option<Outcome>, Refused> {
        if call.again || self.shard.applied.knows(&call.id) {
            applied::find(self.shard, &call.id)
        } else {
            Ok(None)
        }
    }

    /// Answers a command again that was applied before. Nothing is applied; what may not have been published by the
    /// owner before is published again.
    async fn repeat(&self, id: &RequestId, outcome: Outcome, work: Work, hot: &mut Hot) -> Answer {
        let common = &self.shard.common;
        common.meters.repeats.increment(1);
        let (answer, messages) = match (outcome, work) {
            (Outcome::Opened(opened), Work::Input(_)) => {
                let session = hot.record().and_then(|record| record.session.as_ref());
                if session.is_none_or(|session| session.epoch != opened.epoch) {
                    // It was opened, and it is over.
                    return Err(Refused::Unavailable);
                }
                (Reply::Opened(opened), Vec::new())
            },
            (Outcome::Edited, Work::Input(_)) => match &hot.record {
                Loaded::Record(record) => (Reply::Record(Arc::clone(record)), Vec::new()),
                Loaded::NotYet | Loaded::Missing => (Reply::NotFound, Vec::new()),
            },
            (Outcome::Deleted, Work::Input(_)) => (Reply::Done, Vec::new()),
            (Outcome::Shadow { version, at }, Work::Shadow(request)) => {
                let device = self.slot.id().as_device().ok_or(Refused::Unknown)?;
                let current = hot.load_shadow(self.shard, self.slot, &request.shadow)?;
                let limits = &common.config.rules.shadow;
                let again = shadow::again(&device, &current, &request, (version, at), limits);
                (Reply::Shadow(again.reply), again.messages)
            },
            (
                _,
                Work::Input(_)
                | Work::Shadow(_)
                | Work::Alarm(_)
                | Work::Doubt(_)
                | Work::Review(_),
            ) => {
                return Err(Refused::Unknown);
            },
        };
        if self.shard.term()? != self.term {
            return Err(Refused::NotOwner);
        }
        if !self.shard.applied.is_told(id) {
            for message in messages {
                common.outbox.publish(Arc::new(message)).await;
            }
            self.shard.applied.set_told(id);
        }
        Ok(Some(answer))
    }

    async fn run(
        &self,
        input: Input,
        memo: Option<&Memo>,
        hot: &mut Hot,
        wills: &mut Vec<SessionEpoch>,
    ) -> Answer {
        let common = &self.shard.common;
        let now = common.clock.wall();
        let change = device::handle(
            self.slot.id(),
            hot.record(),
            input,
            now,
            &common.config.rules,
        );
        let Change {
            record,
            shadow,
            effects,
        } = change;
        let mut next = Some((record, shadow));
        if !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Persist(_)))
        {
            self.adopt(next.take(), false, hot, now);
            // A read is only true if this node is still the owner after it was made.
            if self.shard.term()? != self.term {
                return Err(Refused::NotOwner);
            }
        }
        let mut remembered = match (memo, &next) {
            (Some(memo), Some((_, shadow))) => memo.row(&effects, shadow.as_ref(), now)?,
            (None, _) | (_, None) => None,
        };
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Persist(writes) => {
                    let mut writes = records::writes(self.slot.id(), writes)?;
                    let is_remembered = remembered.is_some();
                    writes.extend(remembered.take());
                    crash::point("actor.persist.before");
                    self.persist(writes).await?;
                    crash::point("actor.persist.after");
                    if let Some(memo) = memo.filter(|_| is_remembered) {
                        self.shard.applied.note(memo.id, common.clock.tick());
                    }
                    self.adopt(next.take(), true, hot, now);
                    crash::point("actor.adopted");
                },
                Effect::Reply(Reply::Opened(opened)) => {
                    crash::point("epoch.granted");
                    answer = Some(Reply::Opened(opened));
                },
                Effect::Reply(reply) => answer = Some(reply),
                Effect::PublishWill { epoch, message } => {
                    crash::point("will.before");
                    common.outbox.publish(Arc::new(message)).await;
                    crash::point("will.published");
                    wills.push(epoch);
                },
                Effect::Publish(message) => common.outbox.publish(Arc::new(message)).await,
                Effect::Evict { .. } => {
                    crash::point("takeover.evict");
                    adopt::carry_out(self.shard, self.slot, &effect);
                },
                Effect::EndSession { .. } | Effect::Schedule { .. } => {
                    adopt::carry_out(self.shard, self.slot, &effect);
                },
            }
        }
        Ok(answer)
    }

    fn adopt(
        &self,
        next: Option<(RecordChange, Option<(ShadowKind, Shadow)>)>,
        is_stored: bool,
        hot: &mut Hot,
        now: Timestamp,
    ) {
        let Some((record, shadow)) = next else { return };
        adopt::record(
            self.shard,
            self.slot,
            hot.record(),
            (&record, is_stored),
            now,
        );
        match record {
            RecordChange::Keep => {},
            RecordChange::Put(record) => hot.record = Loaded::Record(record),
            RecordChange::Remove => hot.record = Loaded::Missing,
        }
        if let Some((kind, shadow)) = shadow {
            adopt::shadow(self.shard, self.slot, &kind, &shadow, now);
            hot.keep_shadow(kind, shadow, self.shard.common.config.hot_shadows_max);
        }
    }

    async fn persist(&self, writes: Vec<Write>) -> Result<(), Refused> {
        let receipt = self
            .shard
            .common
            .ledger
            .propose(self.shard.id, self.term, writes);
        let outcome = receipt.await;
        if outcome == Err(Refusal::Unknown) {
            self.slot.set_doubt(true);
        }
        Ok(outcome?)
    }
}
