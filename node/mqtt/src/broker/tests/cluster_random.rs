//! Publishers on every node under random schedules: links break and heal, shards move, and what was acknowledged comes.

use std::{collections::BTreeMap, sync::Arc, task::Poll};

use proptest::prelude::*;
use tokio::task::JoinHandle;
use umbel_core::{ids::ShardId, message::Qos};
use umbel_storage::Reach;

use super::{
    homes::{durable, subscribe},
    net::{Net, SHARDS, message},
    world::{Client, Said, V5, ack, hello},
};
use crate::{close::Close, packet::Packet};

const NODES: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    Publish(u64, Qos, bool),
    Move(u16, u64),
    Break(u64, bool),
    Heal,
    Hear,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let qos = prop::sample::select(vec![Qos::AtLeastOnce, Qos::ExactlyOnce]);
    let step = prop_oneof![
        8 => (1..=NODES, qos, any::<bool>()).prop_map(|(node, qos, kept)| Step::Publish(node, qos, kept)),
        2 => (0..SHARDS, 1..=NODES).prop_map(|(shard, to)| Step::Move(shard, to)),
        1 => (1..=NODES, any::<bool>()).prop_map(|(node, is_gone)| Step::Break(node, is_gone)),
        2 => Just(Step::Heal),
        3 => Just(Step::Hear),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 10..80)
}

/// Who gets everything, and what it got.
struct Reader {
    /// Sent away while its home moves; it comes back.
    client: Option<Client>,
    name: String,
    node: u64,
    got: Vec<String>,
    is_durable: bool,
}

impl Reader {
    fn hear(&mut self) {
        if self.try_hear().is_err() {
            assert!(self.is_durable, "who has no home is not sent away");
            self.client = None;
        }
    }

    fn try_hear(&mut self) -> Result<(), Close> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let mut said = client.try_hear()?;
        while !said.is_empty() {
            match said.remove(0) {
                Said::Publish(got) => {
                    // what was kept may come again, as that
                    if !got.retain {
                        self.got.push(got.payload);
                    }
                    let answer = match got.qos {
                        1 => Packet::PubAck(ack(got.id)),
                        2 => Packet::PubRec(ack(got.id)),
                        _ => continue,
                    };
                    said.extend(client.try_send(answer)?);
                },
                Said::PubRel(id, _) => said.extend(client.try_send(Packet::PubComp(ack(id)))?),
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    async fn come_back(&mut self, net: &Net) {
        if self.client.is_none() {
            self.client = net.try_connect(self.node, durable(&self.name)).await.ok();
        }
    }
}

struct Run {
    net: Net,
    readers: Vec<Reader>,
    published: Vec<(String, JoinHandle<bool>)>,
    sent: BTreeMap<u64, u32>,
    broken: Vec<(u64, u64)>,
    was_broken: bool,
}

impl Run {
    async fn new() -> Self {
        let net = Net::new(NODES).await;
        let mut readers = Vec::new();
        for node in 1..=NODES {
            let name = net.name_at(node % NODES + 1, "durable");
            for (hello, is_durable) in [
                (durable(&name), true),
                (hello(&format!("clean{node}"), V5), false),
            ] {
                let name = hello.name.clone();
                let mut client = net.connect(node, hello).await;
                subscribe(&mut client, "a/#", Qos::ExactlyOnce).await;
                readers.push(Reader {
                    client: Some(client),
                    name,
                    node,
                    got: Vec::new(),
                    is_durable,
                });
            }
        }
        net.converged().await;
        Self {
            net,
            readers,
            published: Vec::new(),
            sent: BTreeMap::new(),
            broken: Vec::new(),
            was_broken: false,
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Publish(node, qos, is_kept) => self.publish(*node, *qos, *is_kept).await,
            Step::Move(shard, to) => drop(self.net.move_shard(ShardId(*shard), *to)),
            Step::Break(node, is_gone) => {
                let (one, other) = (*node, node % NODES + 1);
                let reach = if *is_gone {
                    Reach::Gone
                } else {
                    Reach::Unreachable
                };
                self.net.break_link(one, other, reach);
                self.broken.push((one, other));
                self.was_broken = true;
            },
            Step::Heal => self.heal(),
            Step::Hear => self.readers.iter_mut().for_each(Reader::hear),
            Step::Wait => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }

    fn heal(&mut self) {
        for (one, other) in std::mem::take(&mut self.broken) {
            self.net.heal(one, other);
        }
    }

    /// Not waited for: the next one may follow at once.
    async fn publish(&mut self, node: u64, qos: Qos, is_kept: bool) {
        let number = self.sent.entry(node).or_default();
        *number += 1;
        let payload = format!("{node}-{number:04}");
        let mut said = message("a/b", &payload, qos);
        said.retain = is_kept;
        let broker = Arc::clone(self.net.broker(node));
        let mut publishing = Box::pin(async move { broker.publish_external(said).await.is_ok() });
        let first = futures_util::poll!(&mut publishing);
        let task = tokio::spawn(async move {
            match first {
                Poll::Ready(is_done) => is_done,
                Poll::Pending => publishing.await,
            }
        });
        self.published.push((payload, task));
    }

    async fn check(mut self) {
        self.heal();
        let mut acknowledged = Vec::new();
        for (payload, task) in std::mem::take(&mut self.published) {
            if task.await.expect("no panic") {
                acknowledged.push(payload);
            }
        }
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        for reader in &mut self.readers {
            loop {
                reader.hear();
                let missing = acknowledged
                    .iter()
                    .find(|payload| !reader.got.contains(payload));
                if missing.is_none() || !reader.is_durable {
                    break;
                }
                let is_late = tokio::time::Instant::now() > deadline;
                assert!(
                    !is_late,
                    "{} never got {missing:?}: {:?}",
                    reader.name, reader.got
                );
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                reader.come_back(&self.net).await;
            }
        }
        for reader in self.readers.iter().filter(|reader| !reader.is_durable) {
            let mut last = BTreeMap::new();
            for payload in &reader.got {
                let (node, number) = payload.split_once('-').expect("node and number");
                let before = last.insert(node, number);
                assert!(
                    before.is_none_or(|before| before < number),
                    "order: {:?}",
                    reader.got
                );
            }
            if !self.was_broken {
                let missing = acknowledged
                    .iter()
                    .find(|payload| !reader.got.contains(payload));
                assert_eq!(missing, None);
            }
        }
        self.net.converged().await;
    }
}

/// A twentieth of what `PROPTEST_CASES` asks for: each takes its time.
fn cases() -> u32 {
    ProptestConfig::default().cases / 20
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acknowledged_on_any_node_comes_to_every_durable_session(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in &steps {
                run.step(step).await;
            }
            run.check().await;
        });
    }
}
