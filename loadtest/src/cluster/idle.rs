//! Nodes that have nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use super::{
    Common, Folder, conclude, load,
    nodes::{Nodes, Plan},
};

const MIB: f64 = 1_048_576.0;

/// `umbel-loadtest cluster idle`
#[derive(Args)]
pub(crate) struct IdleArgs {
    /// Shards; each number given is a cluster of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256])]
    shards: Vec<u16>,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Rest after the cluster is whole, so that its beginning is not measured.
    #[arg(long, default_value_t = 15)]
    rest_seconds: u64,
    /// How long to measure.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Idle {
    shards: u16,
    seconds: f64,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    cpu_percent_of_a_core: f64,
    resident_mib: f64,
}

/// Measures and prints the table.
pub(super) async fn run(args: IdleArgs) -> Result<()> {
    let (folder, before) = (Folder::new(&args.common)?, load()?);
    let mut all = Vec::new();
    for shards in args.shards.iter().copied() {
        let nodes = Nodes::start(&Plan {
            umbel: &args.common.umbel,
            folder: &folder.part(&format!("shards-{shards}"))?,
            nodes: args.nodes,
            shards,
        })
        .await?;
        sleep(Duration::from_secs(args.rest_seconds)).await;
        let idle = measure(&nodes, shards, Duration::from_secs(args.seconds)).await?;
        nodes.end().await?;
        print(&idle);
        all.push(idle);
    }
    conclude(&args.common, before, all)
}

async fn measure(nodes: &Nodes, shards: u16, span: Duration) -> Result<Idle> {
    let (before, began) = (nodes.usage()?, Instant::now());
    sleep(span).await;
    let (after, seconds) = (nodes.usage()?, began.elapsed().as_secs_f64());
    let each = before.iter().zip(&after).map(|(before, after)| Node {
        cpu_percent_of_a_core: after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds * 100.0,
        resident_mib: after.resident as f64 / MIB,
    });
    Ok(Idle {
        shards,
        seconds,
        nodes: each.collect(),
    })
}

fn print(idle: &Idle) {
    let nodes: Vec<String> = idle
        .nodes
        .iter()
        .map(|node| {
            format!(
                "{:.1} % of a core {:.0} MiB",
                node.cpu_percent_of_a_core, node.resident_mib
            )
        })
        .collect();
    println!(
        "{:>4} shards, {:.0} s: {}",
        idle.shards,
        idle.seconds,
        nodes.join(" | ")
    );
}
