//! Many short lives of one shard, with everything going wrong in between, against a model of what was said.
//!
//! Law: after any sequence of writes, lost answers, snapshots, crashes and damage, each key holds the value last
//! acknowledged, or one proposed after it whose answer was lost.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;

const KEYS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Writes a key and gets the answer.
    Write(u8),
    /// Writes a key while the disk does not answer; whether it does before the next crash is chance.
    Unanswered(u8, bool),
    /// A batch of an owner's term that is over.
    Stale(u8),
    Snapshot,
    /// The process is killed: log and state are what was durable.
    Crash,
    /// The process ends and starts again; rows are kept by the state in memory.
    Restart,
    /// Rows are damaged; noticed at the next start.
    Damage,
    /// Rows and snapshot marks are gone; the log has to do, if it can.
    Wipe,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..KEYS).prop_map(Step::Write),
        2 => (0..KEYS, any::<bool>()).prop_map(|(key, lucky)| Step::Unanswered(key, lucky)),
        1 => (0..KEYS).prop_map(Step::Stale),
        1 => Just(Step::Snapshot),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => Just(Step::Damage),
        1 => Just(Step::Wipe),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a key may hold: the first is the last acknowledged value, the others were proposed later.
type Model = BTreeMap<u8, Vec<Option<u64>>>;

struct Life {
    node: Node,
    group: Group,
    model: Model,
    values: u64,
    terms: Vec<u64>,
}

impl Life {
    async fn begin() -> Self {
        let node = Node::new();
        let group = node.start().await;
        let model = (0..KEYS).map(|key| (key, vec![None])).collect();
        Self {
            node,
            group,
            model,
            values: 0,
            terms: Vec::new(),
        }
    }

    fn term(&self) -> u64 {
        self.group.term().expect("owned").0
    }

    fn batch(&mut self, term: u64, key: u8) -> (u64, Bytes) {
        self.values += 1;
        let write = Write::put(Table::Device, vec![key], self.values.to_be_bytes().to_vec());
        let batch = Batch::encode(term, [[write].as_slice()].into_iter()).expect("encodes");
        (self.values, batch.into())
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write(key) => {
                let (value, batch) = self.batch(self.term(), key);
                self.group.commit(batch).await.expect("committed");
                self.model.insert(key, vec![Some(value)]);
            },
            Step::Unanswered(key, lucky) => {
                let (value, batch) = self.batch(self.term(), key);
                self.node.log.hold();
                let answer = timeout(Duration::from_millis(1), self.group.commit(batch)).await;
                assert!(answer.is_err(), "no answer while the disk does not");
                self.model.entry(key).or_default().push(Some(value));
                if lucky {
                    self.node.log.release();
                }
                self.live_again(self.node.crashed()).await;
            },
            Step::Stale(key) => {
                let (_, batch) = self.batch(self.term() - 1, key);
                assert_eq!(self.group.commit(batch).await, Err(Refusal::NotOwner));
            },
            Step::Snapshot => self.group.snapshot(false).await.expect("snapshot"),
            Step::Crash => self.live_again(self.node.crashed()).await,
            Step::Restart => {
                self.group.shutdown().await;
                self.live_again(self.node.same()).await;
            },
            Step::Damage => {
                self.group.shutdown().await;
                self.node.state.quarantine(SHARD, "a bit fell over");
                self.live_again(self.node.same()).await;
            },
            Step::Wipe => {
                // Only while the log is whole: else this is F15, and refused.
                if self.node.log.range(GROUP).start == 0 && self.group.progress().snapshot.is_none()
                {
                    let empty = Node {
                        state: MemoryState::new(),
                        ..self.node.crashed()
                    };
                    self.live_again(empty).await;
                }
            },
        }
    }

    async fn live_again(&mut self, node: Node) {
        self.terms.push(self.term_or_last());
        self.node = node;
        self.group = self.node.start().await;
        for (key, allowed) in &mut self.model {
            let row = self
                .node
                .state
                .get(SHARD, Table::Device, &[*key])
                .expect("readable");
            let found = row.map(|bytes| u64::from_be_bytes(bytes.try_into().expect("a number")));
            assert!(
                allowed.contains(&found),
                "key {key} holds {found:?}, allowed {allowed:?}"
            );
            // What was found is decided: it may not come and go.
            *allowed = vec![found];
        }
        assert!(
            self.terms.iter().all(|term| *term < self.term()),
            "a term never repeats"
        );
    }

    /// The term of this life, or of the one before when it was cut off from its disk.
    fn term_or_last(&self) -> u64 {
        self.group
            .term()
            .map_or_else(|| self.terms.last().copied().unwrap_or(0), |term| term.0)
    }
}

impl Node {
    /// The same disk, under another process.
    fn same(&self) -> Self {
        Self {
            log: self.log.clone(),
            state: self.state.clone(),
            fatal: Arc::default(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_life_finds_what_was_acknowledged(steps in steps()) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut life = Life::begin().await;
            for step in steps {
                life.step(step).await;
            }
            life.live_again(life.node.crashed()).await;
        });
    }
}
