//! Everybody who works while things break.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{Options, caller::Caller, nodes::Nodes};
use crate::{
    history::History,
    queue::{Queue, Readers},
    worker::Worker,
};

/// Readers have a minute to receive what is due.
const FINISH_WITHIN: Duration = Duration::from_secs(90);

/// Everybody who works.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<()>>,
    readers: Readers,
}

impl Load {
    pub(super) async fn start(
        options: &Options,
        seed: u64,
        nodes: &Nodes,
        history: &Arc<History>,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        let mut readers = Readers::new();
        for n in 0..options.queues {
            let queue = Queue::new(n, seed, Arc::clone(history));
            queue.prepare(&nodes.sites).await?;
            clients.spawn(queue.clone().publish(nodes.sites.clone(), stopped.clone()));
            readers.spawn(queue, nodes.sites.clone());
        }
        for n in 0..options.workers {
            let worker = Worker::new(n, options.devices, seed, Arc::clone(history));
            clients.spawn(worker.work(nodes.sites.clone(), stopped.clone()));
            let caller = Caller::new(n, options.devices, seed, Arc::clone(history));
            clients.spawn(caller.work(nodes.sites.clone(), stopped.clone()));
        }
        Ok(Self {
            stop,
            clients,
            readers,
        })
    }

    pub(super) async fn end(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        // One that fails does not keep the others from receiving what is due.
        let all = async {
            let mut first = Ok(());
            while let Some(client) = self.clients.join_next().await {
                let ended = client.map_err(anyhow::Error::from).flatten();
                first = first.and(ended);
            }
            first = first.and(self.readers.end().await);
            first.context("a client could not finish after the last fault")
        };
        timeout(FINISH_WITHIN, all)
            .await
            .context("a client does not come to an end after the last fault")?
    }
}
