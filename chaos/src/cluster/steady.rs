//! Devices that never stop sending, and watchers of what is said of them: through some faults nobody may tell that such
//! a device is offline, and no node may close its connection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rumqttc::{Event, Packet, QoS};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{interval, sleep},
};

use crate::{
    history::History,
    process::Endpoints,
    site::{Site, Sites},
    worker::connect,
};

use super::gaps::Happened;

/// Devices at each node.
const AT_EACH: usize = 3;
/// Half as long again without a word, and a device counts as gone: shorter than most faults.
const KEEP_ALIVE_S: u8 = 2;
/// How often a device sends.
const SENDS_EVERY: Duration = Duration::from_millis(250);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const PREFIX: &str = "steady-";

/// Something that was told or felt.
#[derive(Clone, Debug)]
struct Seen {
    at: Duration,
    what: String,
}

#[derive(Debug, Default)]
struct Sightings {
    /// Devices told to be online or offline, by any watcher.
    events: usize,
    /// What should not have been.
    gone: Vec<Seen>,
}

/// All of them, at work until dropped.
pub(super) struct Steady {
    seen: Arc<Mutex<Sightings>>,
    history: Arc<History>,
    tasks: JoinSet<()>,
}

impl Steady {
    /// Watchers first, then devices, on every node; returns when every device is connected.
    pub(super) async fn start(sites: &Sites, history: &Arc<History>) -> Result<Self> {
        let mut this = Self {
            seen: Arc::default(),
            history: Arc::clone(history),
            tasks: JoinSet::new(),
        };
        let mut all = Vec::new();
        for (n, site) in sites.iter().enumerate() {
            let (ready, is_ready) = watch::channel(false);
            let id = format!("watcher-{n}");
            this.spawn(site, ready, id, watch_once);
            all.push(is_ready);
        }
        for mut ready in all.drain(..) {
            ready.wait_for(|ready| *ready).await?;
        }
        for (n, site) in sites.iter().enumerate() {
            for k in 0..AT_EACH {
                let (ready, is_ready) = watch::channel(false);
                this.spawn(site, ready, format!("{PREFIX}{n}-{k}"), send_once);
                all.push(is_ready);
            }
        }
        for mut ready in all {
            ready.wait_for(|ready| *ready).await?;
        }
        Ok(this)
    }

    /// Does something at a site again and again: connections end with their nodes.
    fn spawn<W, F>(&mut self, site: &Site, ready: watch::Sender<bool>, id: String, once: W)
    where
        W: Fn(Sight, Endpoints, Arc<watch::Sender<bool>>) -> F + Send + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let sight = Sight {
            id,
            seen: Arc::clone(&self.seen),
            history: Arc::clone(&self.history),
        };
        let (site, ready) = (site.clone(), Arc::new(ready));
        self.tasks.spawn(async move {
            loop {
                if let Some(up) = site.here() {
                    let work = once(sight.clone(), up.endpoints, Arc::clone(&ready));
                    let ended = up.run(work).await;
                    let was_ready = *ready.borrow();
                    if let (true, Ok(Err(error))) = (was_ready, ended) {
                        sight.gone(format!("{}: {error:#}", sight.id));
                    }
                }
                sleep(AGAIN_AFTER).await;
            }
        });
    }

    /// What should not have been during faults that no device may feel; fails if the watchers saw nothing at all.
    pub(super) fn judge(&self, happened: &[Happened]) -> Result<Vec<String>> {
        let seen = self.seen.lock().expect("nobody panics while recording");
        ensure!(seen.events > 0, "the watchers of devices saw nothing");
        let mut breaches = Vec::new();
        for fault in happened.iter().filter(|fault| fault.kind.keeps_devices()) {
            let inside =
                |seen: &&Seen| seen.at >= fault.at && seen.at <= fault.until + fault.healed;
            for Seen { what, at } in seen.gone.iter().filter(inside) {
                let after = at.saturating_sub(fault.at);
                breaches.push(format!(
                    "{after:?} after the beginning of {}: {what}",
                    fault.what
                ));
            }
        }
        Ok(breaches)
    }
}

/// One watcher's or device's place to write to.
#[derive(Clone)]
struct Sight {
    id: String,
    seen: Arc<Mutex<Sightings>>,
    history: Arc<History>,
}

impl Sight {
    fn gone(&self, what: String) {
        let at = self.history.now();
        self.edit(|seen| seen.gone.push(Seen { at, what }));
    }

    fn edit(&self, change: impl FnOnce(&mut Sightings)) {
        change(&mut self.seen.lock().expect("nobody panics while recording"));
    }
}

async fn watch_once(
    sight: Sight,
    endpoints: Endpoints,
    ready: Arc<watch::Sender<bool>>,
) -> Result<()> {
    let (client, mut events) = connect(&sight.id, endpoints, true).await?;
    let filter = "$aws/events/presence/+/+";
    client.subscribe(filter, QoS::AtLeastOnce).await?;
    loop {
        // The watcher's own connection is none that is promised anything.
        let Ok(event) = events.poll().await else {
            return Ok(());
        };
        match event {
            Event::Incoming(Packet::SubAck(_)) => {
                ready.send_replace(true);
            },
            Event::Incoming(Packet::Publish(message)) => {
                sight.edit(|seen| seen.events += 1);
                let name = message.topic.rsplit('/').next().unwrap_or_default();
                if message.topic.contains("/disconnected/") && name.starts_with(PREFIX) {
                    let body = String::from_utf8_lossy(&message.payload);
                    sight.gone(format!("{} was told that {name} is gone: {body}", sight.id));
                }
            },
            _ => {},
        }
    }
}

/// Connects and pings, and takes no answer amiss: only the node ends it.
async fn send_once(
    sight: Sight,
    endpoints: Endpoints,
    ready: Arc<watch::Sender<bool>>,
) -> Result<()> {
    let mut stream = TcpStream::connect(endpoints.mqtt).await?;
    stream.set_nodelay(true)?;
    let id = sight.id.as_bytes();
    let length = u8::try_from(id.len())?;
    let head = [
        0x10,
        12 + length,
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        4,
        2,
        0,
        KEEP_ALIVE_S,
        0,
        length,
    ];
    stream.write_all(&[&head[..], id].concat()).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [0x20, 2, 0, 0], "CONNACK {answer:?}");
    ready.send_replace(true);
    let (mut from, mut to) = stream.split();
    let mut every = interval(SENDS_EVERY);
    let mut bytes = [0; 64];
    loop {
        tokio::select! {
            _ = every.tick() => to.write_all(&[0xc0, 0]).await.context("a ping could not be sent")?,
            read = from.read(&mut bytes) => {
                ensure!(read.context("the connection broke")? > 0, "the node closed the connection");
            },
        }
    }
}
