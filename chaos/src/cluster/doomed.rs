//! Nodes that are to die where it hurts, and what is done to lead them there.

use std::{fs, io::ErrorKind};

use anyhow::Result;

use super::nodes::Nodes;
use crate::{disk::Disk, http, site::Site};

/// Where nodes read at which point one of them is to die, and the variable that tells it so.
pub(super) const CRASH_FILE: &str = "crash-at";
pub(super) const CRASH_VARIABLE: &str = "UMBEL_CRASH_AT";

impl Nodes {
    /// Makes the node that comes to this point for its `pass`th time die there.
    pub(super) fn arm(&self, point: &str, pass: usize) -> Result<()> {
        let file = self.folder.join(CRASH_FILE);
        let new = file.with_extension("new");
        fs::write(&new, format!("{point} {pass}"))?;
        fs::rename(&new, &file)?;
        Ok(())
    }

    /// No more of that; whether a node came there: it takes the order away before it dies.
    pub(super) fn disarm(&self) -> Result<bool> {
        match fs::remove_file(self.folder.join(CRASH_FILE)) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a node has come there.
    pub(super) fn is_disarmed(&self) -> bool {
        !self.folder.join(CRASH_FILE).exists()
    }

    /// Starts all that ended at their own hands. How many.
    pub(super) async fn raise(&mut self) -> Result<usize> {
        let mut raised = 0;
        for n in self.indices() {
            let ended = match self.running.get_mut(n).and_then(Option::as_mut) {
                Some(node) => node.ended()?.is_some(),
                None => true,
            };
            if ended {
                drop(self.take(n));
                self.start_node(n).await?;
                raised += 1;
            }
        }
        Ok(raised)
    }

    /// What a node keeps is gone, but for what it knows of the cluster.
    pub(super) fn wipe(&self, n: usize) -> Result<()> {
        let folder = self.folder.join(format!("node-{n}"));
        let data = self.disks.get(n).map_or(&*folder, Disk::path).join("data");
        for entry in fs::read_dir(data)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("cluster") {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// `drain` or `undrain` of a node, asked of any that answers.
    pub(super) async fn order(&self, n: usize, what: &str) {
        let id = self.ids.get(n).copied().unwrap_or_default();
        for up in self.sites.iter().filter_map(Site::here) {
            let (server, path) = (
                up.endpoints.http,
                format!("/api/v1/cluster/nodes/{id}/{what}"),
            );
            let asked = async move { http::ask(server, "POST", &path, &[], "{}").await };
            // A node that was told to die may be the one that is asked.
            if let Ok(Ok((200..300, _))) = up.run(asked).await {
                return;
            }
        }
    }
}
