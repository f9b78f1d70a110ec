//! Queues: a publisher that numbers its QoS 1 messages, and a reader with a persistent session that comes and goes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use rand::Rng;
use rumqttc::{Event, Packet, QoS};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    history::History,
    process::Endpoints,
    seeds::{Concern, stream},
    site::Sites,
    worker::connect,
};

const ACK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the reader may take to receive everything once nothing is broken any more.
const DRAIN_PATIENCE: Duration = Duration::from_mins(1);
/// Rest between two messages: the reader is away part of the time and its queue is bounded.
const PACE: Duration = Duration::from_millis(5);

/// One queue: the name is its topic and part of both client ids.
#[derive(Clone)]
pub(crate) struct Queue {
    n: u16,
    seed: u64,
    name: String,
    history: Arc<History>,
}

impl Queue {
    /// Queue `n` of a run.
    pub(crate) fn new(n: u16, seed: u64, history: Arc<History>) -> Self {
        Self {
            n,
            seed,
            name: format!("chaos/queue/{n}"),
            history,
        }
    }

    /// Opens the reader's session; nothing may be published before.
    pub(crate) async fn prepare(&self, sites: &Sites) -> Result<()> {
        let up = sites
            .any(&mut stream(self.seed, Concern::Queue(self.n)))
            .await?;
        let (this, endpoints) = (self.clone(), up.endpoints);
        up.run(async move { this.prepare_on(endpoints).await })
            .await?
    }

    async fn prepare_on(&self, endpoints: Endpoints) -> Result<()> {
        let (client, mut events) = connect(&self.reader(), endpoints, false).await?;
        client.subscribe(&self.name, QoS::AtLeastOnce).await?;
        let subscribed = async {
            loop {
                if let Event::Incoming(Packet::SubAck(_)) = events.poll().await? {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(ACK_PATIENCE, subscribed)
            .await
            .context("no SUBACK")?
    }

    fn reader(&self) -> String {
        format!("chaos-reader-{}", self.n)
    }

    /// Publishes numbers until told to stop, each after the PUBACK of the one before.
    pub(crate) async fn publish(self, sites: Sites, stop: watch::Receiver<bool>) -> Result<()> {
        let mut rng = stream(self.seed, Concern::Publisher(self.n));
        let mut number = 0;
        while !*stop.borrow() {
            let up = sites.any(&mut rng).await?;
            let (this, endpoints, stop) = (self.clone(), up.endpoints, stop.clone());
            let session = async move {
                let ended = this.publish_on(endpoints, &mut number, &stop).await;
                (number, ended)
            };
            let ended;
            (number, ended) = up.run(session).await?;
            if ended.is_err() {
                sleep(PACE).await;
            }
        }
        Ok(())
    }

    async fn publish_on(
        &self,
        endpoints: Endpoints,
        number: &mut u64,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let id = format!("chaos-publisher-{}", self.n);
        let (client, mut events) = connect(&id, endpoints, true).await?;
        while !*stop.borrow() {
            *number += 1;
            client
                .publish(&self.name, QoS::AtLeastOnce, false, number.to_string())
                .await?;
            let acknowledged = async {
                loop {
                    if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                        return anyhow::Ok(());
                    }
                }
            };
            timeout(ACK_PATIENCE, acknowledged)
                .await
                .context("no PUBACK")??;
            let port = endpoints.mqtt.port();
            self.history.acknowledged(&self.name, *number, port);
            sleep(PACE).await;
        }
        Ok(())
    }

    /// Receives, comes and goes; at the end stays until everything acknowledged has arrived.
    pub(crate) async fn read(self, sites: Sites, stop: watch::Receiver<bool>) -> Result<()> {
        let mut rng = stream(self.seed, Concern::Queue(self.n));
        while !*stop.borrow() {
            let up = sites.any(&mut rng).await?;
            let stay = Instant::now() + Duration::from_millis(rng.random_range(50..1000));
            let (this, endpoints, stop) = (self.clone(), up.endpoints, stop.clone());
            let session = async move {
                this.receive(endpoints, stay, || *stop.borrow())
                    .await
                    .is_ok()
            };
            // A broken connection is what this run is about.
            up.run(session).await?;
            sleep(Duration::from_millis(rng.random_range(0..300))).await;
        }
        let deadline = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < deadline && !self.drained() {
            let up = sites.any(&mut rng).await?;
            let (this, endpoints) = (self.clone(), up.endpoints);
            let session = async move {
                let drained = || this.drained();
                this.receive(endpoints, deadline, drained).await.is_ok()
            };
            up.run(session).await?;
        }
        Ok(())
    }

    async fn receive(
        &self,
        endpoints: Endpoints,
        until: Instant,
        enough: impl Fn() -> bool + Send,
    ) -> Result<()> {
        let (client, mut events) = connect(&self.reader(), endpoints, false).await?;
        while !enough() {
            let event = match timeout_at(until, events.poll()).await {
                Ok(event) => event?,
                Err(_) => return Ok(()),
            };
            if let Event::Incoming(Packet::Publish(message)) = event {
                let number = std::str::from_utf8(&message.payload)?.parse()?;
                let port = endpoints.mqtt.port();
                self.history.received(&self.name, number, port);
                client.try_ack(&message)?;
            }
        }
        Ok(())
    }

    fn drained(&self) -> bool {
        self.history.is_drained(&self.name)
    }
}

/// The readers of all queues. They are told to come to an end after everybody else has: as long as a publisher may hear of
/// one more message that was taken, no queue is empty.
pub(crate) struct Readers {
    stop: watch::Sender<bool>,
    running: JoinSet<Result<()>>,
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            running: JoinSet::new(),
        }
    }

    /// Begins to read a queue.
    pub(crate) fn spawn(&mut self, queue: Queue, sites: Sites) {
        self.running.spawn(queue.read(sites, self.stop.subscribe()));
    }

    /// Waits until they have received what is due; the first failure, if any.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        let mut first = Ok(());
        while let Some(reader) = self.running.join_next().await {
            let ended = reader.map_err(anyhow::Error::from).flatten();
            first = first.and(ended);
        }
        first
    }
}
