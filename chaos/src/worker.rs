//! Workers: real MQTT clients that update and read shadows, several to a device so that they race.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use rand::{Rng, rngs::StdRng};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    SubscribeFilter,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    history::{Action, History, Operation, Outcome},
    http,
    process::Endpoints,
    seeds::{Concern, stream},
    site::Sites,
};

/// Longest wait for an answer; then the outcome is unknown.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How often the last read is tried, and the pause between.
const LAST_READS_MAX: u32 = 30;
const LAST_READ_AGAIN: Duration = Duration::from_millis(300);
/// Pause before connecting again.
const RECONNECT_AFTER: Duration = Duration::from_millis(10);

/// The id of the device that worker `n` works on.
pub(crate) fn device(n: u16, devices: u16) -> String {
    format!("chaos-device-{}", n % devices.max(1))
}

/// Connects an MQTT client: one connection, no resending by the library, so that every outcome is ours to judge.
/// With a session that stays (`clean` is false), messages have to be acknowledged by the caller.
pub(crate) async fn connect(
    id: &str,
    endpoints: Endpoints,
    clean: bool,
) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new(id, endpoints.mqtt.ip().to_string(), endpoints.mqtt.port());
    options
        .set_keep_alive(Duration::from_secs(30))
        .set_clean_session(clean)
        // The library acknowledges what it has read before we have seen it, up to ten messages ahead: a reader that
        // leaves then would lose them, and we would blame the node.
        .set_manual_acks(!clean);
    let (client, mut events) = AsyncClient::new(options, 64);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(5).set_tcp_nodelay(true);
    events.set_network_options(network);
    let connected = async {
        loop {
            if let Event::Incoming(Packet::ConnAck(_)) = events.poll().await? {
                return anyhow::Ok(());
            }
        }
    };
    timeout(ANSWER_PATIENCE, connected)
        .await
        .context("no CONNACK")??;
    Ok((client, events))
}

/// One worker.
pub(crate) struct Worker {
    id: String,
    device: String,
    history: Arc<History>,
    rng: StdRng,
    /// High half of every marker of this worker, which makes markers unique.
    lane: u64,
    count: u64,
    last_version: u64,
    /// The node it speaks to.
    node: usize,
}

impl Worker {
    /// Worker `n` of a run.
    pub(crate) fn new(n: u16, devices: u16, seed: u64, history: Arc<History>) -> Self {
        Self {
            id: format!("chaos-worker-{n}"),
            device: device(n, devices),
            history,
            rng: stream(seed, Concern::Worker(n)),
            lane: (u64::from(n) + 1) << 32,
            count: 0,
            last_version: 0,
            node: 0,
        }
    }

    /// Works until told to stop, then reads once more.
    pub(crate) async fn work(mut self, sites: Sites, stop: watch::Receiver<bool>) -> Result<()> {
        while !*stop.borrow() {
            let up = sites.any(&mut self.rng).await?;
            self.node = up.node;
            let (endpoints, stop) = (up.endpoints, stop.clone());
            let session = async move {
                let ended = self.connected(endpoints, &stop).await;
                (self, ended)
            };
            let ended;
            (self, ended) = up.run(session).await?;
            // Whatever ended the connection is in the history already, as an unknown outcome.
            if ended.is_err() {
                sleep(RECONNECT_AFTER).await;
            }
        }
        // Nothing is broken any more, but a cluster may be electing still.
        let mut tries = 0;
        loop {
            let up = sites.any(&mut self.rng).await?;
            self.node = up.node;
            let endpoints = up.endpoints;
            let last = async move {
                let read = self.read_once(endpoints).await;
                (self, read)
            };
            let read;
            (self, read) = up.run(last).await?;
            tries += 1;
            if read.is_ok() || tries == LAST_READS_MAX {
                return read;
            }
            sleep(LAST_READ_AGAIN).await;
        }
    }

    async fn read_once(&mut self, endpoints: Endpoints) -> Result<()> {
        let mut connection = Connection::open(self, endpoints).await?;
        self.step(&mut connection, Action::Read).await
    }

    async fn connected(
        &mut self,
        endpoints: Endpoints,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let mut connection = Connection::open(self, endpoints).await?;
        let client = http::get(endpoints.http, &format!("/api/v1/clients/{}", self.id)).await?;
        let epoch = client.pointer("/epoch").and_then(Value::as_u64);
        self.history
            .epoch(&self.id, epoch.context("epoch of a client")?);
        while !*stop.borrow() {
            let action = self.choose();
            self.step(&mut connection, action).await?;
        }
        Ok(())
    }

    fn choose(&mut self) -> Action {
        match self.rng.random_range(0..10) {
            0..2 => Action::Read,
            draw => {
                self.count += 1;
                let expected = (draw < 4).then_some(self.last_version);
                Action::Update {
                    marker: self.lane | self.count,
                    expected,
                }
            },
        }
    }

    async fn step(&mut self, connection: &mut Connection, action: Action) -> Result<()> {
        let began = self.history.now();
        let answer = connection
            .ask(&self.device, &action, &format!("{}-{began:?}", self.id))
            .await;
        let lost = answer.as_ref().err().map(ToString::to_string);
        let outcome = answer.unwrap_or(Outcome::Unknown);
        if let Outcome::Ok { version, .. } = outcome {
            self.last_version = version;
        }
        let ended = self.history.now();
        self.history.operation(
            &self.device,
            Operation {
                action,
                began,
                ended,
                outcome,
                node: self.node,
            },
        );
        match lost {
            Some(why) => bail!(why),
            None => Ok(()),
        }
    }
}

/// A connection that is subscribed to the answers of one device.
struct Connection {
    client: AsyncClient,
    events: EventLoop,
}

impl Connection {
    async fn open(worker: &Worker, endpoints: Endpoints) -> Result<Self> {
        let (client, mut events) = connect(&worker.id, endpoints, true).await?;
        let filters = [
            "update/accepted",
            "update/rejected",
            "get/accepted",
            "get/rejected",
        ]
        .map(|suffix| SubscribeFilter::new(shadow(&worker.device, suffix), QoS::AtLeastOnce));
        client.subscribe_many(filters).await?;
        let subscribed = async {
            loop {
                if let Event::Incoming(Packet::SubAck(_)) = events.poll().await? {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(ANSWER_PATIENCE, subscribed)
            .await
            .context("no SUBACK")??;
        Ok(Self { client, events })
    }

    /// Asks and waits for the answer with our token. An error means that the outcome is unknown.
    async fn ask(&mut self, device: &str, action: &Action, token: &str) -> Result<Outcome> {
        let (verb, body) = request(action, token);
        self.client
            .publish(
                shadow(device, verb),
                QoS::AtLeastOnce,
                false,
                body.to_string(),
            )
            .await?;
        let answered = async {
            loop {
                if let Event::Incoming(Packet::Publish(message)) = self.events.poll().await?
                    && let Some(outcome) = outcome(&message, token)
                {
                    return anyhow::Ok(outcome);
                }
            }
        };
        timeout(ANSWER_PATIENCE, answered)
            .await
            .context("no answer")?
    }
}

fn shadow(device: &str, suffix: &str) -> String {
    format!("$aws/things/{device}/shadow/{suffix}")
}

fn request(action: &Action, token: &str) -> (&'static str, Value) {
    match action {
        Action::Read => ("get", json!({ "clientToken": token })),
        Action::Update { marker, expected } => {
            let mut body = json!({
                "state": { "reported": { "marker": marker } },
                "clientToken": token,
            });
            if let (Some(expected), Some(body)) = (expected, body.as_object_mut()) {
                body.insert("version".into(), json!(expected));
            }
            ("update", body)
        },
    }
}

/// What a message says about the request with this token, if it is its answer.
fn outcome(message: &Publish, token: &str) -> Option<Outcome> {
    let body: Value = serde_json::from_slice(&message.payload).ok()?;
    if body.get("clientToken").and_then(Value::as_str) != Some(token) {
        return None;
    }
    if message.topic.ends_with("/accepted") {
        let version = body.get("version")?.as_u64()?;
        let marker = body
            .pointer("/state/reported/marker")
            .and_then(Value::as_u64);
        return Some(Outcome::Ok { version, marker });
    }
    Some(match body.get("code")?.as_u64()? {
        404 => Outcome::Missing,
        409 => Outcome::Conflict,
        // A server fault does not say whether the write happened.
        500 => Outcome::Unknown,
        code => Outcome::Refused { code },
    })
}
