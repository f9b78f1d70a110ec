//! Snapshots of a running group, and what they let the log forget.

use std::{fmt, time::Duration};

use tokio::{sync::oneshot, time::timeout};
use umbel_storage::{crash, log::Meta, snapshot::Snapshot};

use super::{Group, stopped};
use crate::raft::{Damage, recover::Checkpoint};

/// How long openraft may take to learn of a snapshot; the next one purges what this one could not.
const PURGE_WITHIN: Duration = Duration::from_secs(5);

impl Group {
    /// Takes a snapshot, remembers durably how far the state is, and lets openraft purge the log, except for a tail for
    /// peers that are a little late; `all` leaves hardly any.
    pub(crate) async fn snapshot(&self, all: bool) -> Result<(), Damage> {
        let tail = self.tail(all);
        let failed = |what: &str, error: &dyn fmt::Display| {
            Damage::new(format!("{what} of shard {}: {error}", self.id))
        };
        let mark = self
            .machine
            .take_snapshot()
            .await
            .map_err(|error| failed("snapshot", &error))?;
        let mark = Checkpoint::of(&mark)
            .encode()
            .map_err(|error| failed("mark", &error))?;
        crash::point("checkpoint.before");
        let (sender, receiver) = oneshot::channel();
        self.log.set_meta(
            self.id,
            Meta::Checkpoint,
            mark.into(),
            Box::new(move |outcome| drop(sender.send(outcome))),
        );
        match receiver.await {
            Ok(Ok(())) => {},
            Ok(Err(error)) => return Err(failed("checkpoint mark", &error)),
            Err(error) => return Err(failed("checkpoint mark", &error)),
        }
        crash::point("checkpoint.saved");
        self.machine.prepare();
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|error| stopped(&self.machine, &error))?;
        match tail {
            Some(tail) => self.purge_but(tail).await,
            None => Ok(()),
        }
    }

    /// How many entries to keep, if fewer than openraft keeps by itself.
    fn tail(&self, all: bool) -> Option<u64> {
        let policy = self.config.snapshots;
        self.mux.as_ref()?;
        if all {
            return Some(policy.tail_entries);
        }
        let progress = self.machine.progress();
        let entries = progress
            .applied
            .saturating_sub(progress.snapshot.unwrap_or(0));
        let each = progress.fresh_bytes / entries.max(1);
        let tail = policy.peer_tail_bytes.checked_div(each)?;
        (tail < policy.peer_tail_entries).then_some(tail.max(policy.tail_entries))
    }

    /// Purges up to the snapshot that openraft is about to learn of, but for so many entries.
    async fn purge_but(&self, tail: u64) -> Result<(), Damage> {
        let Some(at) = self.machine.progress().snapshot else {
            return Ok(());
        };
        let mut data = self.raft.data_metrics();
        let known = data.wait_for(|data| data.snapshot.is_some_and(|id| id.index >= at));
        if timeout(PURGE_WITHIN, known).await.is_err() {
            return Ok(());
        }
        let Some(upto) = at.checked_sub(tail) else {
            return Ok(());
        };
        self.raft
            .trigger()
            .purge_log(upto)
            .await
            .map_err(|error| stopped(&self.machine, &error))
    }

    /// A fresh, durable copy of the rows. openraft is not told: what it has purged stays as it was.
    pub(crate) async fn cut(&self) -> Result<Snapshot, Damage> {
        let taken = self.machine.take_snapshot().await;
        taken.map_err(|error| Damage::new(format!("snapshot of shard {}: {error}", self.id)))?;
        let latest = self.machine.latest_snapshot();
        latest.ok_or_else(|| Damage::new("the snapshot is gone".to_owned()))
    }
}
