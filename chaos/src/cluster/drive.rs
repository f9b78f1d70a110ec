//! Carries out one fault after the other, each on a cluster that is whole.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::{
    disk::SlowDisk,
    gaps::Happened,
    hardships,
    nodes::{Nodes, Shard},
    points::POINTS,
    schedule::{Kind, Step},
    weather::Weather,
};
use crate::history::History;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Operations between two faults, at least, if the machine does them in time.
const AT_STAKE: usize = 100;
const LOAD_WITHIN: Duration = Duration::from_secs(10);

/// The least that a slow disk adds to a sync.
const SYNC_MIN: Duration = Duration::from_millis(100);
/// A node may take so long to find out that its disk is slow, and to hand its shards over.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// Breaks and heals.
pub(super) struct Drive {
    pub(super) nodes: Nodes,
    history: Arc<History>,
    heals_within: Duration,
    /// What was done so far.
    pub(super) happened: Vec<Happened>,
    /// Where nodes are to die, in turn.
    wanted: Vec<&'static str>,
    /// Point → how often a node was to die there, and how often it did.
    pub(super) points: BTreeMap<&'static str, (u32, u32)>,
}

impl Drive {
    pub(super) fn new(
        nodes: Nodes,
        history: Arc<History>,
        heals_within: Duration,
        points: Vec<&'static str>,
    ) -> Self {
        Self {
            nodes,
            history,
            heals_within,
            happened: Vec::new(),
            wanted: if points.is_empty() {
                POINTS.to_vec()
            } else {
                points
            },
            points: BTreeMap::new(),
        }
    }

    /// Breaks, waits, heals, and waits until the cluster is whole.
    pub(super) async fn step(&mut self, step: &Step) -> Result<()> {
        sleep(step.after).await;
        self.nodes.check()?;
        // A busy machine elects anew now and then.
        self.nodes.whole(self.heals_within).await?;
        self.something_is_at_stake().await;
        let before = self.owned(step.kind.moves_nothing()).await?;
        let owner = before
            .iter()
            .find(|shard| shard.id == step.shard)
            .and_then(|shard| shard.owner)
            .context("a shard of a whole cluster has no owner")?;
        let others: Vec<usize> = self.nodes.indices().filter(|n| *n != owner).collect();
        let other = others
            .get(step.draw % others.len().max(1))
            .copied()
            .context("there is one node only")?;
        let at = self.history.now();
        let victims = self.victims(step, owner, other);
        self.break_it(step, owner, other, &victims).await?;
        let until = self.history.now();
        let healed = self.nodes.whole(self.heals_within).await?;
        let hit: Vec<&Shard> = before
            .iter()
            .filter(|shard| shard.owner.is_some_and(|owner| victims.contains(&owner)))
            .collect();
        let after = self.nodes.shards(0).await?;
        let is_there = |shard: &&&Shard| after.iter().any(|now| now.is_owned_as(shard));
        let changed = hit.len() - hit.iter().filter(is_there).count();
        self.happened.push(Happened {
            what: format!("{step}: owner {owner}, victims {victims:?}"),
            kind: step.kind,
            at,
            until,
            healed,
            shards: hit.iter().map(|shard| shard.id).collect(),
            changed,
        });
        Ok(())
    }

    /// Says how often nodes died where they were to, and whether one ever did.
    pub(super) fn tell_points(&self) -> bool {
        for (point, (tried, reached)) in &self.points {
            println!("{point}: died there {reached} times of {tried}");
        }
        self.points.values().any(|(_, reached)| *reached > 0)
    }

    /// Waits for load: a fault that hits nothing shows nothing, and a busy machine is slow.
    async fn something_is_at_stake(&self) {
        let (began, before) = (Instant::now(), self.history.operations());
        while self.history.operations() < before + AT_STAKE && began.elapsed() < LOAD_WITHIN {
            sleep(LOOK_EVERY).await;
        }
    }

    /// All shards, once each has an owner; the one that it is to keep, if that matters.
    async fn owned(&self, to_stay: bool) -> Result<Vec<Shard>> {
        let began = Instant::now();
        loop {
            let shards = self.nodes.shards(0).await?;
            let ready = |shard: &Shard| shard.is_at_home() || !to_stay && shard.owner.is_some();
            if shards.iter().all(ready) {
                return Ok(shards);
            }
            if began.elapsed() > self.heals_within {
                bail!("a shard has no owner");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn victims(&self, step: &Step, owner: usize, other: usize) -> Vec<usize> {
        match step.kind {
            Kind::KillOwner
            | Kind::PauseOwner
            | Kind::Isolate
            | Kind::OneWay
            | Kind::Starve
            | Kind::SlowDisk => vec![owner],
            Kind::KillFollower | Kind::Restart => vec![other],
            // One of them, or all.
            Kind::Clock if (step.draw / 5).is_multiple_of(2) => vec![owner],
            Kind::PowerCut
            | Kind::CrashPoint
            | Kind::MildNetwork
            | Kind::BadNetwork
            | Kind::Clock => self.nodes.indices().collect(),
            Kind::KillMajority => self.nodes.indices().filter(|n| *n != other).collect(),
        }
    }

    async fn break_it(
        &mut self,
        step: &Step,
        owner: usize,
        other: usize,
        victims: &[usize],
    ) -> Result<()> {
        match step.kind {
            Kind::KillOwner | Kind::KillFollower | Kind::KillMajority => {
                for victim in victims {
                    self.nodes.take(*victim)?.kill().await?;
                }
                sleep(step.lasts).await;
                for victim in victims {
                    self.nodes.start_node(*victim).await?;
                }
            },
            Kind::Restart => {
                self.nodes.take(other)?.terminate().await?;
                self.nodes.start_node(other).await?;
            },
            Kind::PauseOwner => {
                self.nodes.node(owner)?.freeze()?;
                sleep(step.lasts).await;
                self.nodes.node(owner)?.thaw()?;
            },
            Kind::SlowDisk => {
                // The shorter ones are more usual.
                let by = SYNC_MIN.saturating_mul(1 << (step.draw % 6));
                let _slow = SlowDisk::of(self.nodes.node(owner)?.id()?, by).await?;
                sleep(NOTICED_WITHIN + step.lasts).await;
            },
            Kind::Isolate => {
                for n in self.nodes.indices().filter(|n| *n != owner) {
                    self.network()?.deafen(owner, n).await?;
                    self.network()?.deafen(n, owner).await?;
                }
                self.cut_for(step.lasts).await?;
            },
            Kind::OneWay => {
                let (deaf, to) = if step.draw.is_multiple_of(2) {
                    (owner, other)
                } else {
                    (other, owner)
                };
                self.network()?.deafen(deaf, to).await?;
                self.cut_for(step.lasts).await?;
            },
            _ => self.make_hard(step, owner, other, victims).await?,
        }
        Ok(())
    }

    /// The kinds of [`hardships`].
    async fn make_hard(
        &mut self,
        step: &Step,
        owner: usize,
        other: usize,
        victims: &[usize],
    ) -> Result<()> {
        match step.kind {
            Kind::PowerCut => hardships::cut_power(&mut self.nodes, step.lasts).await?,
            Kind::MildNetwork => {
                hardships::blow(&self.nodes, Weather::mild(step.draw), step).await?;
            },
            Kind::BadNetwork => {
                hardships::blow(&self.nodes, Weather::bad(step.draw), step).await?;
            },
            Kind::Starve => hardships::starve(&self.nodes, owner, step.lasts).await?,
            Kind::Clock => hardships::move_clocks(&self.nodes, victims, step).await?,
            Kind::CrashPoint => {
                let tried = self
                    .points
                    .values()
                    .map(|(tried, _)| *tried as usize)
                    .sum::<usize>();
                let point = *self
                    .wanted
                    .get(tried % self.wanted.len())
                    .context("no points")?;
                let was_reached =
                    hardships::die_at(&mut self.nodes, point, (owner, other), step).await?;
                let times = self.points.entry(point).or_default();
                times.0 += 1;
                times.1 += u32::from(was_reached);
            },
            _ => bail!("nobody knows how to do {:?}", step.kind),
        }
        Ok(())
    }

    async fn cut_for(&self, span: Duration) -> Result<()> {
        sleep(span).await;
        self.network()?.heal().await
    }

    fn network(&self) -> Result<&super::network::Network> {
        let network = self.nodes.network.as_ref();
        network.context("the network cannot be cut")
    }
}
