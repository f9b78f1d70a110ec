//! A durable session under random schedules: connections come and go on all nodes, links break, the home moves, and what
//! was acknowledged to publishers comes, QoS 1 at least once, QoS 2 once, each for the first time in the order in which
//! it was published.

use std::collections::BTreeMap;

use proptest::prelude::*;
use umbel_core::{ids::ShardId, message::Qos};
use umbel_storage::Reach;

use super::{
    homes::durable,
    net::{Net, SHARDS, eventually, message},
    world::{Client, Said, ack},
};
use crate::{
    close::{Close, CloseCause},
    packet::Packet,
};

const NODES: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    Publish(Qos),
    Connect(u64),
    Lose,
    /// The client forgets the connection without closing it.
    Abandon,
    /// Hears what there is; each bit says whether one message is acknowledged at once.
    Hear(u8),
    AcknowledgeLate,
    Move(u64),
    Break(u64),
    Heal,
    /// The home's messages are on their way for a while.
    Hold(u64),
    Arrive,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop_oneof![Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)].prop_map(Step::Publish),
        3 => (1..=NODES).prop_map(Step::Connect),
        1 => Just(Step::Lose),
        1 => Just(Step::Abandon),
        5 => any::<u8>().prop_map(Step::Hear),
        2 => Just(Step::AcknowledgeLate),
        2 => (1..=NODES).prop_map(Step::Move),
        1 => (1..=NODES).prop_map(Step::Break),
        2 => Just(Step::Heal),
        1 => (1..=NODES).prop_map(Step::Hold),
        2 => Just(Step::Arrive),
        2 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 10..60)
}

/// A client as the standard wants it, and what it got.
#[derive(Default)]
struct Reader {
    client: Option<Client>,
    abandoned: Vec<Client>,
    /// QoS 2 messages by their identifiers, until they are released. Part of the session.
    received: BTreeMap<u16, String>,
    late: Vec<Packet>,
    got: Vec<(String, u8)>,
}

impl Reader {
    async fn end(&mut self, close: Close) {
        self.late.clear();
        if let Some(mut client) = self.client.take()
            && let Some(session) = client.session.take()
        {
            session.close(close).await;
        }
    }

    async fn send(&mut self, packet: Packet) -> Vec<Said> {
        let Some(client) = &mut self.client else {
            return Vec::new();
        };
        match client.try_send(packet) {
            Ok(said) => said,
            Err(close) => {
                self.end(close).await;
                Vec::new()
            },
        }
    }

    /// Hears and answers; messages for which `at_once` has no bit are answered later.
    async fn hear(&mut self, at_once: u8) {
        let heard = match &mut self.client {
            Some(client) => client.try_hear(),
            None => return,
        };
        let mut said = match heard {
            Ok(said) => said,
            Err(close) => return self.end(close).await,
        };
        let mut count = 0;
        while !said.is_empty() {
            let answer = self.answer_to(said.remove(0));
            if at_once >> (count % 8) & 1 == 1 {
                said.extend(self.send(answer).await);
            } else {
                self.late.push(answer);
            }
            count += 1;
        }
    }

    async fn acknowledge_late(&mut self) {
        for packet in std::mem::take(&mut self.late) {
            let mut said = self.send(packet).await;
            while !said.is_empty() {
                let answer = self.answer_to(said.remove(0));
                said.extend(self.send(answer).await);
            }
        }
    }

    fn answer_to(&mut self, said: Said) -> Packet {
        match said {
            Said::Publish(got) if got.qos == 1 => {
                self.got.push((got.payload, 1));
                Packet::PubAck(ack(got.id))
            },
            Said::Publish(got) => {
                if let Some(known) = self.received.get(&got.id) {
                    assert_eq!(*known, got.payload, "an identifier in use");
                } else {
                    self.received.insert(got.id, got.payload.clone());
                    self.got.push((got.payload, 2));
                }
                Packet::PubRec(ack(got.id))
            },
            Said::PubRel(id, _) => {
                self.received.remove(&id);
                Packet::PubComp(ack(id))
            },
            other => panic!("{other:?}"),
        }
    }
}

async fn run(steps: Vec<Step>) {
    let net = Net::new(NODES).await;
    let name = "reader";
    let shard = ShardId::of(name, SHARDS);
    let mut reader = Reader::default();
    let mut first = net.connect(1, durable(name).receive_maximum(5)).await;
    super::homes::subscribe(&mut first, "a", Qos::ExactlyOnce).await;
    reader.client = Some(first);
    let mut sent: Vec<(String, u8)> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Publish(qos) => {
                let payload = number.to_string();
                let owner = net.owner(shard).node.0;
                let done = net
                    .broker(owner)
                    .publish_external(message("a", &payload, qos))
                    .await;
                if done.is_ok() {
                    sent.push((payload, qos as u8));
                }
            },
            Step::Connect(node) => {
                if let Some(older) = reader.client.take() {
                    reader.abandoned.push(older); // taken over
                    reader.late.clear();
                }
                let hello = durable(name).receive_maximum(5);
                reader.client = net.try_connect(node, hello).await.ok();
            },
            Step::Lose => reader.end(Close::silent(CloseCause::ConnectionLost)).await,
            Step::Abandon => {
                reader.abandoned.extend(reader.client.take());
                reader.late.clear();
            },
            Step::Hear(at_once) => reader.hear(at_once).await,
            Step::AcknowledgeLate => reader.acknowledge_late().await,
            Step::Move(node) => {
                net.move_shard(shard, node);
                eventually("the new home is there", || {
                    net.broker(node).home_ready(shard)
                })
                .await;
            },
            Step::Break(node) => {
                let other = node % NODES + 1;
                net.break_link(node, other, Reach::Unreachable);
            },
            Step::Heal => heal(&net),
            Step::Hold(node) => net.hold(net.owner(shard).node.0, node),
            Step::Arrive => release(&net),
            Step::Wait => tokio::time::sleep(std::time::Duration::from_millis(300)).await,
        }
    }
    release(&net);
    heal(&net);
    finish(&net, &mut reader, &sent).await;
}

fn heal(net: &Net) {
    for node in 1..=NODES {
        net.heal(node, node % NODES + 1);
    }
}

fn release(net: &Net) {
    for from in 1..=NODES {
        for to in 1..=NODES {
            net.release(from, to);
        }
    }
}

async fn finish(net: &Net, reader: &mut Reader, sent: &[(String, u8)]) {
    reader.late.clear();
    reader.abandoned.extend(reader.client.take());
    let last = net.connect(2, durable("reader").receive_maximum(5)).await;
    reader.client = Some(last);
    let is_done = |net: &Net| {
        (1..=NODES).all(|node| {
            let totals = net.broker(node).totals();
            totals.queued == 0 && totals.inflight == 0
        })
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        reader.hear(0xff).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let has_all = sent.iter().all(|one| reader.got.contains(one));
        if has_all && is_done(net) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "sent {sent:?}, got {:?}, done {}",
            reader.got,
            is_done(net)
        );
    }
    let mut firsts: Vec<&(String, u8)> = Vec::new();
    for one in &reader.got {
        if firsts.contains(&one) {
            assert_eq!(one.1, 1, "{} came twice: {:?}", one.0, reader.got);
        } else {
            firsts.push(one);
        }
    }
    let numbers: Vec<u32> = firsts
        .iter()
        .map(|(payload, _)| payload.parse().expect("a number"))
        .collect();
    assert!(numbers.is_sorted(), "{:?}", reader.got);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_once_comes_twice(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(steps));
    }
}
