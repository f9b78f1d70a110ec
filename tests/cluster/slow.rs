//! F17: a node whose disk is slow gives its shards to others, says so, and gets them back when the disk is well.

use std::{sync::Arc, time::Duration};

use umbel_tests::{Cluster, eventually};

use crate::support::Writer;

const SLOW: &str = "umbel_log_disk_slow";

/// Shards a node owns, as another sees it.
fn owns(cluster: &Cluster, seen_by: usize, node: u64) -> Option<usize> {
    let shards = cluster.shards(seen_by)?;
    Some(shards.iter().filter(|shard| shard["owner"] == node).count())
}

fn elections(cluster: &Cluster) -> f64 {
    let of = |n| cluster.node(n).metric("umbel_shard_elections_total", "");
    cluster.indices().map(of).sum()
}

/// A sync takes longer than a disk may, and less than a lease: nobody would ever be elected instead.
#[test]
fn f17_a_slow_disk_hands_its_shards_over_and_gets_them_back_when_it_is_well() {
    let cluster = Arc::new(Cluster::start());
    let (slow, well) = (0, 1);
    let id = cluster.id(slow);
    let device = cluster.name_at(slow, "slow");
    let other = cluster.name_at(well, "well");
    let before = elections(&cluster);
    let held_up = cluster.node(slow).slow_disk(Duration::from_millis(300));
    let writers = [
        Writer::start(&cluster, well, &device),
        Writer::start(&cluster, well, &other),
    ];
    eventually("the node owns nothing", || {
        (owns(&cluster, well, id)? == 0).then_some(())
    });
    let nodes =
        cluster
            .node(well)
            .umbel(&["ctl", "--server", &cluster.node(well).server(), "nodes"]);
    assert!(nodes.out.contains("its disk is slow"), "{}", nodes.out);
    assert!(cluster.node(slow).metric(SLOW, "") > 0.0);
    assert!(cluster.node(well).metric(SLOW, "") < 1.0);
    // Each shard was handed over, at most with one election for each that could not be.
    let shards = u32::try_from(cluster.shards(well).unwrap().len()).unwrap();
    let more = elections(&cluster) - before;
    assert!(
        more <= f64::from(shards),
        "{more} elections for {shards} shards"
    );
    let lines = cluster.node(slow).log();
    assert_eq!(lines.matches("disk is slow").count(), 1, "one line says so");

    drop(held_up);
    cluster.settled();
    assert!(cluster.node(slow).metric(SLOW, "") < 1.0);
    for (writer, device) in writers.into_iter().zip([&device, &other]) {
        let told = writer.finish();
        told.check(cluster.node(well), device);
    }
}

/// A sync takes so long that the lease is over: others are elected, and this node does not stand against them.
#[test]
fn f17_a_disk_that_hangs_loses_its_shards_once_and_does_not_run_for_them() {
    let cluster = Arc::new(Cluster::start());
    let (hanging, well) = (2, 0);
    let id = cluster.id(hanging);
    let device = cluster.name_at(hanging, "hangs");
    let before = elections(&cluster);
    let _held_up = cluster.node(hanging).slow_disk(Duration::from_secs(10));
    let writer = Writer::start(&cluster, well, &device);
    eventually("the node owns nothing", || {
        (owns(&cluster, well, id)? == 0).then_some(())
    });
    let version = cluster.node(well).shadow(&device)["version"]
        .as_u64()
        .unwrap();
    eventually("others serve its shards", || {
        let now = cluster.node(well).shadow(&device)["version"].as_u64()?;
        (now > version + 20).then_some(())
    });
    let told = writer.finish();
    told.check(cluster.node(well), &device);
    assert_eq!(owns(&cluster, well, id), Some(0), "it took them back");
    let shards = u32::try_from(cluster.shards(well).unwrap().len()).unwrap();
    let more = elections(&cluster) - before;
    assert!(
        more <= 2.0 * f64::from(shards),
        "{more} elections for {shards} shards"
    );
    let links = cluster.node(well).get("/api/v1/cluster/nodes").unwrap();
    let nodes = links["items"].as_array().unwrap();
    assert!(
        nodes.iter().all(|node| node["state"] != "unreachable"),
        "{links}"
    );
}
