//! What clients asked, what they were told, and when, on the one clock of this machine.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::Serialize;

/// What a worker asked of a shadow.
#[derive(Clone, Debug, Serialize)]
pub(crate) enum Action {
    /// Set the marker to this unique number; with an expected version if there is one.
    Update { marker: u64, expected: Option<u64> },
    /// Read the document.
    Read,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Outcome {
    /// Accepted, or read, at this version; a read tells the marker it found.
    Ok { version: u64, marker: Option<u64> },
    /// 409: the expected version was not the current one.
    Conflict,
    /// 404: there is no document.
    Missing,
    /// Refused for another reason (busy, no room): nothing was changed.
    Refused { code: u64 },
    /// No answer: it may have happened or not, once.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Operation {
    /// What was asked.
    pub(crate) action: Action,
    /// When.
    pub(crate) began: Duration,
    /// When the answer came, or waiting ended.
    pub(crate) ended: Duration,
    /// What was told.
    pub(crate) outcome: Outcome,
    /// By which node.
    pub(crate) node: usize,
}

/// Everything that happened, by device and client.
#[derive(Debug)]
pub(crate) struct History {
    start: Instant,
    events: Mutex<Events>,
}

/// The recorded events.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Events {
    /// Operations by device, in the order they ended.
    pub(crate) devices: BTreeMap<String, Vec<Operation>>,
    /// Session epochs by client, in the order they were seen.
    pub(crate) epochs: BTreeMap<String, Vec<u64>>,
    /// Numbers published to each queue and acknowledged.
    pub(crate) acknowledged: BTreeMap<String, Vec<u64>>,
    /// Numbers received from each queue, in order.
    pub(crate) received: BTreeMap<String, Vec<u64>>,
    /// All of it with times and places, for whoever looks for the reason of a breach.
    pub(crate) queues: Vec<QueueEvent>,
}

/// What happened to one message of a queue.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct QueueEvent {
    pub(crate) at: Duration,
    pub(crate) queue: String,
    /// `acknowledged` or `received`.
    pub(crate) what: &'static str,
    pub(crate) number: u64,
    /// MQTT port of the node it happened at.
    pub(crate) port: u16,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            events: Mutex::new(Events::default()),
        }
    }

    /// Time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn operation(&self, device: &str, operation: Operation) {
        self.edit(|events| {
            events
                .devices
                .entry(device.to_owned())
                .or_default()
                .push(operation);
        });
    }

    pub(crate) fn epoch(&self, client: &str, epoch: u64) {
        self.edit(|events| {
            events
                .epochs
                .entry(client.to_owned())
                .or_default()
                .push(epoch);
        });
    }

    pub(crate) fn acknowledged(&self, queue: &str, number: u64, port: u16) {
        let event = self.queue_event(queue, "acknowledged", number, port);
        self.edit(|events| {
            events.queues.push(event);
            events
                .acknowledged
                .entry(queue.to_owned())
                .or_default()
                .push(number);
        });
    }

    pub(crate) fn received(&self, queue: &str, number: u64, port: u16) {
        let event = self.queue_event(queue, "received", number, port);
        self.edit(|events| {
            events.queues.push(event);
            events
                .received
                .entry(queue.to_owned())
                .or_default()
                .push(number);
        });
    }

    /// How many operations came to an end so far.
    pub(crate) fn operations(&self) -> usize {
        let events = self.events.lock().expect("nobody panics while recording");
        events.devices.values().map(Vec::len).sum()
    }

    /// Whether the last number acknowledged to a queue has been received.
    pub(crate) fn is_drained(&self, queue: &str) -> bool {
        let events = self.events.lock().expect("nobody panics while recording");
        let last = |of: &BTreeMap<String, Vec<u64>>| of.get(queue)?.iter().max().copied();
        last(&events.received) >= last(&events.acknowledged)
    }

    /// A copy of everything so far.
    pub(crate) fn events(&self) -> Events {
        self.events
            .lock()
            .expect("nobody panics while recording")
            .clone()
    }

    fn queue_event(&self, queue: &str, what: &'static str, number: u64, port: u16) -> QueueEvent {
        QueueEvent {
            at: self.now(),
            queue: queue.to_owned(),
            what,
            number,
            port,
        }
    }

    fn edit(&self, change: impl FnOnce(&mut Events)) {
        change(&mut self.events.lock().expect("nobody panics while recording"));
    }
}
