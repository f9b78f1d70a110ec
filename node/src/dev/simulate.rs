//! Simulated devices of `umbel dev`: they report, and they obey what is desired of them.

use std::{net::SocketAddr, time::Duration};

use rand::Rng;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Map, Value, json};
use tokio::{task::JoinSet, time};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const REPORT_EVERY: Duration = Duration::from_secs(10);
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
/// Time over which the devices appear, so that the first page already shows a fleet.
const ARRIVAL: Duration = Duration::from_secs(2);

/// The id of the `n`th simulated device.
pub fn name(n: usize) -> String {
    format!("sim-{n:04}")
}

/// Plays the devices until the set is dropped. They are spread over the brokers; one that loses its broker goes to the
/// next.
pub fn start(devices: usize, brokers: &[SocketAddr]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for n in 1..=devices {
        let delay = ARRIVAL.mul_f64(rand::rng().random());
        let mut brokers = brokers.to_vec();
        let mine = n % brokers.len().max(1);
        brokers.rotate_left(mine);
        tasks.spawn(async move {
            time::sleep(delay).await;
            let mut device = Device::new(name(n));
            for broker in brokers.iter().cycle() {
                play(&mut device, *broker).await;
                time::sleep(RECONNECT_AFTER).await;
            }
        });
    }
    tasks
}

/// Plays one device until it loses this broker.
async fn play(device: &mut Device, broker: SocketAddr) {
    let mut options = MqttOptions::new(&device.id, broker.ip().to_string(), broker.port());
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
    let (client, mut events) = AsyncClient::new(options, 16);
    let mut reports = time::interval(REPORT_EVERY);
    // A connection that is being made would be given up for a report.
    let mut is_connected = false;
    loop {
        let told = tokio::select! {
            _ = reports.tick(), if is_connected => Some(device.report()),
            event = next(&mut events) => match event {
                Heard::Connected => {
                    is_connected = true;
                    // A full queue means the event loop is behind; the next connection tries again.
                    drop(client.try_subscribe(device.topic("update/delta"), QoS::AtLeastOnce));
                    Some(device.report())
                },
                Heard::Delta(payload) => device.obey(&payload),
                Heard::Nothing => None,
                Heard::Lost => return,
            },
        };
        if let Some(report) = told {
            let topic = device.topic("update");
            drop(client.try_publish(topic, QoS::AtLeastOnce, false, report.to_string()));
        }
    }
}

enum Heard {
    Connected,
    Delta(Vec<u8>),
    Nothing,
    Lost,
}

async fn next(events: &mut EventLoop) -> Heard {
    match events.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(_))) => Heard::Connected,
        Ok(Event::Incoming(Packet::Publish(message))) => Heard::Delta(message.payload.to_vec()),
        Ok(_) => Heard::Nothing,
        Err(_) => Heard::Lost,
    }
}

/// What a simulated device knows about itself.
struct Device {
    id: String,
    temperature: f64,
    settings: Map<String, Value>,
}

impl Device {
    fn new(id: String) -> Self {
        Self {
            id,
            temperature: rand::rng().random_range(15.0..25.0),
            settings: Map::new(),
        }
    }

    fn topic(&self, suffix: &str) -> String {
        format!("$aws/things/{}/shadow/{suffix}", self.id)
    }

    /// A walk of the temperature, and the settings in force.
    fn report(&mut self) -> Value {
        self.temperature += rand::rng().random_range(-0.5..0.5);
        let mut reported = self.settings.clone();
        reported.insert(
            "temperature".into(),
            json!((self.temperature * 10.0).round() / 10.0),
        );
        reported.insert("firmware".into(), json!("1.0.0"));
        json!({ "state": { "reported": reported } })
    }

    /// Takes over what is desired and says so at once.
    fn obey(&mut self, delta: &[u8]) -> Option<Value> {
        let delta: Value = serde_json::from_slice(delta).ok()?;
        let desired = delta.get("state")?.as_object()?;
        for (key, value) in desired {
            self.settings.insert(key.clone(), value.clone());
        }
        Some(json!({ "state": { "reported": desired } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reports_what_was_desired_of_it_and_keeps_it() {
        let mut device = Device::new(name(1));
        let delta = br#"{"version":3,"state":{"interval":5}}"#;
        let report = device.obey(delta).unwrap();
        assert_eq!(report, json!({"state":{"reported":{"interval":5}}}));
        let next = device.report();
        assert_eq!(next["state"]["reported"]["interval"], 5);
        assert!(device.obey(b"rubbish").is_none());
    }
}
