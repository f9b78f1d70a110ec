//! Faults that leave every process where it is, and make its life hard; the power that goes; and deaths at chosen points.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::{nodes::Nodes, schedule::Step, starved::Starved, weather::Weather};
use crate::disk::SETTLE;

/// What a starved node is left of one processor.
const STARVED_PERMILLE: u32 = 100;
/// How often a clock that goes to and fro is moved.
const STROBE_EVERY: Duration = Duration::from_millis(50);
const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;
/// How long it is waited for a node to come to a point after what leads there.
const LED_WITHIN: Duration = Duration::from_secs(4);
/// How long the death itself may take on a busy machine.
const DIES_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Points on the way of a copy that is made from nothing.
const REBUILDING: &[&str] = &[
    "install.",
    "replica.",
    "snapshot.adopted",
    "snapshot.piece",
    "snapshot.received",
    "state.restore",
];

/// All nodes at once: frozen, so that no system call is on its way; cut; killed; and started with what is left.
pub(super) async fn cut_power(nodes: &mut Nodes, lasts: Duration) -> Result<()> {
    for n in nodes.indices() {
        nodes.node(n)?.freeze()?;
    }
    sleep(SETTLE).await;
    for disk in &nodes.disks {
        disk.cut()?;
    }
    for n in nodes.indices() {
        nodes.take(n)?.kill().await?;
    }
    sleep(lasts).await;
    for disk in &nodes.disks {
        disk.restore()?;
    }
    for n in nodes.indices() {
        nodes.start_node(n).await?;
    }
    Ok(())
}

/// The same weather on all wires between nodes.
pub(super) async fn blow(nodes: &Nodes, weather: Weather, step: &Step) -> Result<()> {
    let network = nodes.network.as_ref().context("there are no wires")?;
    println!("   {weather}");
    let relays = network.blow(weather, step.draw as u64).await?;
    sleep(step.lasts).await;
    // First no new packets, then those that are held.
    network.heal().await?;
    for (n, relay) in relays.into_iter().enumerate() {
        let passed = relay.end()?;
        println!("   node {n}: {passed:?}");
        if passed.passed == 0 {
            bail!("no packet of node {n} went through the weather");
        }
    }
    Ok(())
}

/// A tenth of one processor.
pub(super) async fn starve(nodes: &Nodes, victim: usize, lasts: Duration) -> Result<()> {
    let starved = Starved::new(nodes.node(victim)?.id()?, STARVED_PERMILLE)?;
    sleep(lasts).await;
    drop(starved);
    Ok(())
}

/// The wall clocks of `victims` jump; at the end they are right again, which is a jump, too.
pub(super) async fn move_clocks(nodes: &Nodes, victims: &[usize], step: &Step) -> Result<()> {
    let jumps: &[i64] = match step.draw % 5 {
        0 => &[HOUR],
        1 => &[-HOUR],
        2 => &[TEN_YEARS],
        3 => &[-TEN_YEARS],
        _ => &[HOUR, 0, -HOUR, 0],
    };
    println!("   clocks of {victims:?} jump by {jumps:?} s");
    let until = Instant::now() + step.lasts;
    let mut next = jumps.iter().cycle();
    while Instant::now() < until {
        let jump = next.next().copied().unwrap_or_default();
        for victim in victims {
            nodes.clock(*victim)?.set(jump)?;
        }
        sleep(STROBE_EVERY).await;
    }
    for victim in victims {
        nodes.clock(*victim)?.set(0)?;
    }
    Ok(())
}

/// The node that comes to a point first dies there. Load alone leads to most points. Where it does not, a node gives its
/// shards away and gets them back; then another is killed, which makes for elections, taken-over shards and copies that
/// catch up, from nothing where the point is about that. Whether the point was reached.
pub(super) async fn die_at(
    nodes: &mut Nodes,
    point: &str,
    (owner, other): (usize, usize),
    step: &Step,
) -> Result<bool> {
    // Not always the first time.
    let pass = 1 + step.draw / 400;
    nodes.arm(point, pass)?;
    let from_nothing = REBUILDING.iter().any(|prefix| point.starts_with(prefix));
    if !from_nothing && !comes_there(nodes, step.lasts).await {
        nodes.order(owner, "drain").await;
        comes_there(nodes, LED_WITHIN).await;
        nodes.order(owner, "undrain").await;
    }
    if !comes_there(nodes, LED_WITHIN).await {
        nodes.take(other)?.kill().await?;
        if from_nothing {
            nodes.wipe(other)?;
        }
        comes_there(nodes, step.lasts).await;
        // It may be the one that dies, even before it says where it listens.
        let started = nodes.start_node(other).await;
        if started.is_err() && !nodes.is_disarmed() {
            return started.map(|()| false);
        }
        comes_there(nodes, LED_WITHIN).await;
    }
    let was_reached = nodes.disarm()?;
    println!(
        "   {point}, pass {pass}: {}",
        if was_reached {
            "reached"
        } else {
            "not reached"
        }
    );
    let began = Instant::now();
    // The order is taken away a moment before the end.
    while nodes.raise().await? == 0 && was_reached {
        if began.elapsed() > DIES_WITHIN {
            bail!("a node came to {point} and lives");
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(was_reached)
}

/// Waits until a node has come to the point.
async fn comes_there(nodes: &Nodes, within: Duration) -> bool {
    let until = Instant::now() + within;
    while !nodes.is_disarmed() {
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
