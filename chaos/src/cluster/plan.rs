//! What a run is made of: for each node its folder and configuration, and the disk, the clock and the order to die that the
//! faults need.

use std::{fs, path::Path};

use anyhow::Result;

use super::{
    clocks::Clock,
    doomed::{CRASH_FILE, CRASH_VARIABLE},
    network::{Network, address},
    schedule::Kind,
};
use crate::{
    disk::{Disk, FileSystem},
    process::Launcher,
};

pub(super) const LINK_PORT: u16 = 7400;
/// Snapshots are taken often, so that faults meet them; and sessions live longer than a clock may jump: they end by the
/// wall clock. What a full queue drops was acknowledged, by choice; so queues are larger than a campaign can fill them.
const MORE: &str = "snapshot_entries = 100\n[mqtt]\nsession_expiry_max = \"10000d\"\n\
     queue_messages_max = 1000000\nqueue_bytes_max = \"256MiB\"\n";

/// How the cluster is made.
pub(super) struct Plan<'a> {
    pub(super) umbel: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) nodes: usize,
    pub(super) shards: u16,
    pub(super) faults: &'a [Kind],
}

/// One node's things.
pub(super) struct Equipped {
    pub(super) launcher: Launcher,
    pub(super) disk: Option<Disk>,
    pub(super) clock: Option<Clock>,
}

impl Plan<'_> {
    /// Whether a fault of this kind is in it.
    pub(super) fn has(&self, is: impl Fn(&Kind) -> bool) -> bool {
        self.faults.iter().any(is)
    }

    /// Makes what a node needs.
    pub(super) fn equip(&self, n: usize, network: Option<&Network>) -> Result<Equipped> {
        let folder = self.folder.join(format!("node-{n}"));
        fs::create_dir_all(&folder)?;
        let mut environment = Vec::new();
        let (mut disk, mut clock) = (None, None);
        if self.has(|kind| *kind == Kind::PowerCut) {
            disk = Some(Disk::create(&folder, FileSystem::Ext4)?);
        }
        if self.has(|kind| *kind == Kind::Clock) {
            let made = Clock::create(&folder)?;
            environment.extend(made.environment());
            clock = Some(made);
        }
        if self.has(|kind| *kind == Kind::CrashPoint) {
            let file = self.folder.join(CRASH_FILE).display().to_string();
            environment.push((CRASH_VARIABLE.to_owned(), file));
        }
        let launcher = self.launcher(n, &folder, network, disk.as_ref())?;
        Ok(Equipped {
            launcher: launcher.environment(environment),
            disk,
            clock,
        })
    }

    fn launcher(
        &self,
        n: usize,
        folder: &Path,
        network: Option<&Network>,
        disk: Option<&Disk>,
    ) -> Result<Launcher> {
        let host = |n| host(n, network.is_some());
        let seeds: Vec<String> = (0..self.nodes)
            .filter(|other| *other != n)
            .map(|other| format!("\"{}:{LINK_PORT}\"", host(other)))
            .collect();
        let more = format!(
            "[cluster]\nbind = \"{}:{LINK_PORT}\"\nseeds = [{}]\nzone = \"zone-{n}\"\nshards = {}\n{MORE}",
            host(n),
            seeds.join(", "),
            self.shards
        );
        let namespace = network.map(|network| network.namespace(n));
        let data = disk.map_or(folder, Disk::path).join("data");
        Launcher::with(self.umbel, folder, &data, &more, namespace)
    }
}

/// Where the other nodes find a node.
pub(super) fn host(n: usize, has_network: bool) -> String {
    if has_network { address(n) } else { loopback(n) }
}

/// An address of this machine that no other run uses: processes differ by their id.
fn loopback(n: usize) -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{b}.{c}", 16 + usize::from(a & 7) * 4 + n)
}
