//! Plays the devices: connects them at a rate, keeps them beating and reporting, counts what happens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rand::Rng;
use rumqttc::mqttbytes::{QoS, v4::Packet};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    backoff::Backoff,
    client::{Client, PATIENCE, Target},
    profile::Profile,
    sample::Samples,
};

/// Connection attempts under way at once.
const CONNECTING_MAX: usize = 256;
/// Connections from one source address, below the range of ephemeral ports.
const PER_ADDRESS: usize = 20_000;

/// A running fleet.
pub(crate) struct Fleet {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Fleet {
    /// Starts connecting the devices at the profile's rate. Returns when all have been started.
    pub(crate) async fn start(
        target: Target,
        profile: Arc<Profile>,
        samples: Arc<Samples>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for n in 0..profile.devices {
            let due = Duration::from_secs_f64(n as f64 / profile.connect_rate);
            sleep_until((started + due).into()).await;
            let player = Player {
                id: format!("{}{n:07}", profile.prefix),
                source: source(n),
                target: target.clone(),
                profile: Arc::clone(&profile),
                samples: Arc::clone(&samples),
                permits: Arc::clone(&permits),
            };
            let stopped = stopped.clone();
            tasks.spawn(async move { player.play(stopped).await });
        }
        Self { tasks, stop }
    }

    /// Ends every device.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

fn source(n: usize) -> SocketAddr {
    let host = u8::try_from(1 + n / PER_ADDRESS).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))
}

struct Player {
    id: String,
    source: SocketAddr,
    target: Target,
    profile: Arc<Profile>,
    samples: Arc<Samples>,
    permits: Arc<Semaphore>,
}

impl Player {
    async fn play(self, mut stopped: watch::Receiver<bool>) {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::select! {
                ended = self.live(&mut backoff) => ended,
                _ = stopped.changed() => return,
            };
            if let Err(error) = ended {
                self.samples.fail(&error);
            }
            tokio::select! {
                () = sleep(backoff.after_failure()) => {},
                _ = stopped.changed() => return,
            }
        }
    }

    /// One connection, from CONNECT to its loss.
    async fn live(&self, backoff: &mut Backoff) -> Result<()> {
        let mut client = {
            let _permit = self.permits.acquire().await?;
            let began = Instant::now();
            let client =
                Client::connect(&self.target, self.source, &self.id, self.profile.keep_alive)
                    .await?;
            self.samples.connects.record(began.elapsed());
            client
        };
        backoff.succeeded();
        self.samples.open.fetch_add(1, Ordering::Relaxed);
        let _open = Open(&self.samples);
        if self.profile.updates_per_hour > 0.0 {
            client
                .subscribe(&format!("{}/+", self.shadow("update")))
                .await?;
        }
        Beat::new(self).run(&mut client).await
    }

    fn shadow(&self, verb: &str) -> String {
        format!("$aws/things/{}/shadow/{verb}", self.id)
    }
}

/// Counts an open connection until it is dropped.
struct Open<'a>(&'a Samples);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The two clocks of a connected device, and what it waits for.
struct Beat<'a> {
    player: &'a Player,
    ping_at: Instant,
    update_at: Option<Instant>,
    pinged: Option<Instant>,
    updated: Option<Instant>,
    count: u64,
}

impl<'a> Beat<'a> {
    fn new(player: &'a Player) -> Self {
        let mut rng = rand::rng();
        let now = Instant::now();
        let spread = |span: Duration, share: f64| now + span.mul_f64(share);
        let ping_at = spread(player.profile.heartbeat, rng.random());
        let update_at = player
            .profile
            .update_every()
            .map(|every| spread(every, rng.random()));
        Self {
            player,
            ping_at,
            update_at,
            pinged: None,
            updated: None,
            count: 0,
        }
    }

    async fn run(mut self, client: &mut Client) -> Result<()> {
        loop {
            let update_at = self.update_at.unwrap_or(self.ping_at + PATIENCE);
            tokio::select! {
                packet = client.next() => self.heard(client, packet?).await?,
                () = sleep_until(self.ping_at.into()) => self.ping(client).await?,
                () = sleep_until(update_at.into()) => self.update(client).await?,
            }
        }
    }

    async fn ping(&mut self, client: &mut Client) -> Result<()> {
        if self.pinged.replace(Instant::now()).is_some() {
            bail!("no PINGRESP within a heartbeat");
        }
        self.ping_at += self.player.profile.heartbeat;
        client.ping().await
    }

    async fn update(&mut self, client: &mut Client) -> Result<()> {
        let Some(every) = self.player.profile.update_every() else {
            self.update_at = None;
            return Ok(());
        };
        self.update_at = Some(Instant::now() + every);
        // One update in flight: a device on a poor link waits for its answer, too.
        if self.updated.is_some() {
            return Ok(());
        }
        self.updated = Some(Instant::now());
        self.count += 1;
        let body = self.player.profile.report(self.count);
        client
            .publish(
                &self.player.shadow("update"),
                QoS::AtLeastOnce,
                body.as_bytes(),
            )
            .await?;
        Ok(())
    }

    async fn heard(&mut self, client: &mut Client, packet: Packet) -> Result<()> {
        let samples = &self.player.samples;
        match packet {
            Packet::PingResp => {
                if let Some(began) = self.pinged.take() {
                    samples.pings.record(began.elapsed());
                }
            },
            Packet::Publish(message) => {
                if message.qos == QoS::AtLeastOnce {
                    client.acknowledge(message.pkid).await?;
                }
                let accepted = message.topic.ends_with("/accepted");
                if accepted || message.topic.ends_with("/rejected") {
                    let began = self.updated.take();
                    if let (true, Some(began)) = (accepted, began) {
                        samples.updates.record(began.elapsed());
                    } else {
                        samples.rejected.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
            _ => {},
        }
        Ok(())
    }
}
