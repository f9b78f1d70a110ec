//! Laws of what waits for one client, under random offers, commits, acknowledgements, pages and broken connections.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use umbel_core::{
    message::{Message, Qos},
    time::Timestamp,
};

use crate::broker::{
    delivery::{Bounds, Delivery, cost, packet_id},
    outbound::{Acknowledged, Offered, Outbound, PageRequest},
};

const BOUNDS: Bounds = Bounds {
    window_messages: 6,
    window_bytes: 100_000,
    stored_messages: 40,
    stored_bytes: 100_000,
};
const WINDOW: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Offer,
    CommitOldest,
    CommitNewest,
    RefuseNewest,
    LoseNewest,
    LoseOldest,
    Page,
    Read,
    Take,
    Send,
    AcknowledgeOldest,
    AcknowledgeNewest,
    Delete,
    Reconnect,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Offer),
        4 => Just(Step::CommitOldest),
        2 => Just(Step::CommitNewest),
        1 => Just(Step::RefuseNewest),
        1 => Just(Step::LoseNewest),
        1 => Just(Step::LoseOldest),
        3 => Just(Step::Page),
        2 => Just(Step::Read),
        2 => Just(Step::Take),
        6 => Just(Step::Send),
        3 => Just(Step::AcknowledgeOldest),
        1 => Just(Step::AcknowledgeNewest),
        1 => Just(Step::Delete),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Crash),
    ]
}

fn message(number: u64) -> Delivery {
    let payload = Bytes::from(number.to_string());
    let message = Message::from_cluster(
        "t".to_owned(),
        payload,
        Qos::AtLeastOnce,
        Timestamp::default(),
    );
    Delivery {
        sequence: 0,
        message: Arc::new(message),
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        released: false,
    }
}

/// The session's rows as storage has them, and what the client saw.
struct Model {
    outbound: Outbound,
    rows: BTreeMap<u64, Delivery>,
    /// Proposed, and neither committed nor refused.
    proposed: BTreeMap<u64, Delivery>,
    /// Read, and not taken yet.
    reading: Option<(PageRequest, Vec<Delivery>, bool)>,
    acknowledged: Vec<u64>,
    sent: Vec<u64>,
    /// Acknowledged ones are never sent again on this node.
    done: Vec<u64>,
    offered: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            outbound: Outbound::starting_at(1),
            rows: BTreeMap::new(),
            proposed: BTreeMap::new(),
            reading: None,
            acknowledged: Vec::new(),
            sent: Vec::new(),
            done: Vec::new(),
            offered: 0,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Offer => self.offer(),
            Step::CommitOldest => self.settle(self.proposed.keys().next().copied(), true),
            Step::CommitNewest => self.settle(self.proposed.keys().next_back().copied(), true),
            Step::RefuseNewest => self.settle(self.proposed.keys().next_back().copied(), false),
            Step::LoseNewest => self.lose(self.proposed.keys().next_back().copied()),
            Step::LoseOldest => self.lose(self.proposed.keys().next().copied()),
            Step::Page => self.page(),
            Step::Read => self.read(),
            Step::Take => self.take(),
            Step::Send => self.send(),
            Step::AcknowledgeOldest => self.acknowledge(self.sent.first().copied()),
            Step::AcknowledgeNewest => self.acknowledge(self.sent.last().copied()),
            Step::Delete => self.delete(),
            Step::Reconnect => {
                self.outbound.detach(None);
                self.sent.clear();
            },
            Step::Crash => self.crash(),
        }
    }

    fn offer(&mut self) {
        self.offered += 1;
        let delivery = message(self.offered);
        if let Offered::ToStore(sequence) =
            self.outbound.offer_durable(delivery.clone(), &BOUNDS, true)
        {
            let delivery = Delivery {
                sequence,
                ..delivery
            };
            assert!(
                self.proposed.insert(sequence, delivery).is_none(),
                "a number is used once"
            );
        }
    }

    fn settle(&mut self, sequence: Option<u64>, is_stored: bool) {
        let Some(sequence) = sequence else { return };
        let delivery = self.proposed.remove(&sequence).expect("proposed");
        self.outbound
            .settle(sequence, cost(&delivery.message), is_stored);
        if is_stored {
            self.rows.insert(sequence, delivery);
        }
    }

    /// Nobody knows what became of a row, and it is committed after all.
    fn lose(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence else { return };
        let delivery = self.proposed.get(&sequence).expect("proposed").clone();
        self.settle(Some(sequence), false);
        self.outbound.begin_delete(sequence);
        self.rows.insert(sequence, delivery);
        self.acknowledged.push(sequence);
        self.done.push(sequence);
    }

    fn page(&mut self) {
        self.read();
        self.take();
    }

    /// Storage is read without the lock: everything may happen before what was read is taken.
    fn read(&mut self) {
        let Some(request) = self.outbound.wants_page(&BOUNDS) else {
            return;
        };
        let rows: Vec<_> = self
            .rows
            .range(request.after + 1..)
            .take(request.limit)
            .map(|(_, row)| row.clone())
            .collect();
        let is_last = rows.len() < request.limit;
        self.reading = Some((request, rows, is_last));
    }

    fn take(&mut self) {
        if let Some((request, rows, is_last)) = self.reading.take() {
            self.outbound.page_in(&request, rows, is_last, &BOUNDS);
        }
    }

    fn send(&mut self) {
        let Some(delivery) = self.outbound.next(WINDOW) else {
            return;
        };
        let sequence = delivery.sequence;
        assert!(
            self.rows.contains_key(&sequence),
            "sent before it was committed"
        );
        assert!(
            !self.done.contains(&sequence),
            "sent again after it was acknowledged"
        );
        assert!(
            self.sent.last().is_none_or(|last| *last < sequence),
            "sent out of order"
        );
        let earlier = self.rows.range(..sequence).map(|(sequence, _)| *sequence);
        for earlier in earlier {
            let is_past = self.sent.contains(&earlier) || self.done.contains(&earlier);
            assert!(is_past, "{earlier} was passed over by {sequence}");
        }
        self.sent.push(sequence);
        assert!(self.sent.len() <= WINDOW, "the window is exceeded");
    }

    fn acknowledge(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence else { return };
        let done = self.outbound.finish(packet_id(sequence), Qos::AtLeastOnce);
        assert_eq!(done, Acknowledged::Finished(sequence));
        self.outbound.begin_delete(sequence);
        self.sent.retain(|sent| *sent != sequence);
        self.acknowledged.push(sequence);
        self.done.push(sequence);
    }

    fn delete(&mut self) {
        for sequence in self.acknowledged.drain(..) {
            self.rows.remove(&sequence);
            self.outbound.end_delete(sequence);
        }
    }

    /// Rows whose deletion is not committed come back: at least once.
    fn crash(&mut self) {
        let found: Vec<_> = self
            .rows
            .iter()
            .map(|(sequence, row)| (*sequence, cost(&row.message)))
            .collect();
        let next = self.outbound.next_sequence();
        self.outbound = if found.is_empty() {
            Outbound::starting_at(next)
        } else {
            Outbound::recovered(&found, WINDOW, 1)
        };
        self.proposed.clear();
        self.reading = None;
        self.acknowledged.clear();
        self.sent.clear();
        self.done.clear();
    }

    /// Everything proposed is committed and the client takes everything: what was committed arrives.
    fn drain(&mut self) {
        while let Some(sequence) = self.proposed.keys().next().copied() {
            self.settle(Some(sequence), true);
        }
        let mut committed: std::collections::BTreeSet<_> = self.rows.keys().copied().collect();
        for _ in 0..1_000 {
            if self.outbound.is_idle() {
                break;
            }
            self.page();
            self.send();
            self.acknowledge(self.sent.first().copied());
            for done in &self.acknowledged {
                committed.remove(done);
            }
            self.delete();
        }
        committed.retain(|sequence| !self.done.contains(sequence));
        assert!(
            committed.is_empty(),
            "{committed:?} were committed and never delivered"
        );
        assert!(self.outbound.is_idle(), "{:?}", self.outbound);
        assert_eq!((self.outbound.inflight(), self.outbound.queued()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn committed_messages_arrive_once_in_order_and_within_the_window(
        steps in proptest::collection::vec(step(), 1..200)
    ) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
        model.drain();
    }
}

#[test]
fn packet_identifiers_are_never_zero_and_follow_from_the_sequence() {
    for sequence in [0, 1, 65_533, 65_534, 65_535, 65_536, u64::MAX] {
        assert_eq!(u64::from(packet_id(sequence).get()), sequence % 65_535 + 1);
    }
}

#[test]
fn a_stuck_message_blocks_the_reuse_of_its_identifier() {
    let bounds = Bounds {
        window_messages: 10,
        ..BOUNDS
    };
    let mut outbound = Outbound::starting_at(1);
    assert_eq!(outbound.offer(message(0), &bounds), Offered::Queued);
    let stuck = outbound.next(10).expect("sent").sequence;
    for number in 1..65_535 {
        assert_eq!(outbound.offer(message(number), &bounds), Offered::Queued);
        let sequence = outbound.next(10).expect("sent").sequence;
        assert_ne!(packet_id(sequence), packet_id(stuck));
        outbound.finish(packet_id(sequence), Qos::AtLeastOnce);
    }
    outbound.offer(message(65_535), &bounds);
    assert!(
        outbound.next(10).is_none(),
        "its identifier is the stuck one's"
    );
    outbound.finish(packet_id(stuck), Qos::AtLeastOnce);
    assert!(outbound.next(10).is_some());
}

#[test]
fn a_row_that_goes_while_it_is_read_is_neither_sent_again_nor_counted_twice() {
    let mut model = Model::new();
    for _ in 0..3 {
        model.run(Step::Offer);
        model.run(Step::CommitOldest);
    }
    model.run(Step::Send);
    model.run(Step::AcknowledgeOldest);
    model.run(Step::Reconnect);
    model.run(Step::Read); // meets all three rows
    model.run(Step::Delete);
    model.run(Step::Take);
    assert_eq!(model.outbound.queued(), 2);
    model.run(Step::Send);
    assert_eq!(model.sent, [2]);
    model.drain();
}
