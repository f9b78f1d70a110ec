//! Workers that update and read shadows through the API of any node, and find out how long a shard does not serve.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    history::{Action, History, Operation, Outcome},
    http,
    seeds::{Concern, stream},
    site::{Sites, Up},
    worker::device,
};

/// Longest wait for an answer: what is not known by then is unknown.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rest between two requests: the machine has other things to do.
const PACE: Duration = Duration::from_millis(15);

/// One worker.
pub(super) struct Caller {
    device: String,
    history: Arc<History>,
    rng: StdRng,
    lane: u64,
    count: u64,
    last_version: u64,
}

impl Caller {
    /// Worker `n`; its device is one that an MQTT worker has, too, where there are as many.
    pub(super) fn new(n: u16, devices: u16, seed: u64, history: Arc<History>) -> Self {
        Self {
            device: device(n, devices),
            history,
            rng: stream(seed, Concern::Caller(n)),
            // Apart from the lanes of MQTT workers.
            lane: 1 << 60 | u64::from(n) << 32,
            count: 0,
            last_version: 0,
        }
    }

    /// Works until told to stop.
    pub(super) async fn work(mut self, sites: Sites, stop: watch::Receiver<bool>) -> Result<()> {
        while !*stop.borrow() {
            let up = sites.any(&mut self.rng).await?;
            let action = match self.rng.random_range(0..10) {
                0..2 => Action::Read,
                draw => {
                    self.count += 1;
                    let expected = (draw < 4 && self.last_version > 0).then_some(self.last_version);
                    Action::Update {
                        marker: self.lane | self.count,
                        expected,
                    }
                },
            };
            let outcome = step(&self.history, &self.device, action, &up).await?;
            if let Outcome::Ok { version, .. } = outcome {
                self.last_version = version;
            }
            sleep(PACE).await;
        }
        Ok(())
    }
}

/// One request and its place in the history.
pub(super) async fn step(
    history: &Arc<History>,
    device: &str,
    action: Action,
    up: &Up,
) -> Result<Outcome> {
    let began = history.now();
    let (server, asked, of) = (up.endpoints.http, action.clone(), device.to_owned());
    let answer = async move { timeout(PATIENCE, ask(server, &of, &asked)).await };
    let outcome = match up.run(answer).await? {
        Ok(Ok(outcome)) => outcome,
        // No answer, or a broken one.
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    };
    let operation = Operation {
        action,
        began,
        ended: history.now(),
        outcome: outcome.clone(),
        node: up.node,
    };
    history.operation(device, operation);
    Ok(outcome)
}

async fn ask(server: std::net::SocketAddr, device: &str, action: &Action) -> Result<Outcome> {
    let path = format!("/api/v1/devices/{device}/shadows/$classic");
    let (status, body) = match action {
        Action::Read => http::ask(server, "GET", &path, &[], "").await?,
        Action::Update { marker, expected } => {
            let body = json!({ "reported": { "marker": marker } }).to_string();
            let tag = expected.map(|version| format!("\"{version}\""));
            let mut headers = vec![("content-type", "application/merge-patch+json")];
            if let Some(tag) = &tag {
                headers.push(("if-match", tag));
            }
            http::ask(server, "PATCH", &path, &headers, &body).await?
        },
    };
    let version = body.get("version").and_then(Value::as_u64);
    let marker = body.pointer("/reported/marker").and_then(Value::as_u64);
    Ok(match (status, version) {
        (200 | 201, Some(version)) => Outcome::Ok { version, marker },
        (404, _) => Outcome::Missing,
        (409 | 412, _) => Outcome::Conflict,
        // A server fault does not say whether the write happened.
        (500, _) | (200 | 201, None) => Outcome::Unknown,
        (status, _) => Outcome::Refused {
            code: status.into(),
        },
    })
}
