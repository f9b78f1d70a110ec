//! What goes on behind the edges: is the node ready, and the page Prometheus reads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use umbel_http::{Instruments, port::Check};
use umbel_mqtt::broker::Broker;
use umbel_storage::{
    log::{GroupLog, Log},
    state::State,
    store::StateStore,
};

use super::{disk::Disk, process, standing::Standing};
use crate::operator::Operations;

/// How long a start waits to hear what the sessions of other nodes want.
const ROUTES_WITHIN: Duration = Duration::from_secs(10);

/// Readiness and numbers of a node.
pub(super) struct Backdrop {
    standing: Standing,
    log: Arc<Log>,
    state: Arc<StateStore>,
    broker: Arc<Broker>,
    metrics: PrometheusHandle,
    stopping: watch::Sender<bool>,
    started: Instant,
}

impl Backdrop {
    pub(super) fn new(
        disk: &Disk,
        standing: Standing,
        broker: &Arc<Broker>,
        metrics: PrometheusHandle,
    ) -> Arc<Self> {
        Arc::new(Self {
            standing,
            log: Arc::clone(&disk.log),
            state: Arc::clone(&disk.state),
            broker: Arc::clone(broker),
            metrics,
            stopping: watch::channel(false).0,
            started: Instant::now(),
        })
    }

    /// What the HTTP edge shows.
    pub(super) fn instruments(self: &Arc<Self>, operations: Operations) -> Instruments {
        let (checks, metrics) = (Arc::clone(self), Arc::clone(self));
        Instruments {
            checks: Box::new(move || checks.checks()),
            metrics: Box::new(move || metrics.render()),
            operator: Arc::new(operations.clone()),
            elsewhere: Arc::new(operations),
        }
    }

    /// Not ready from here on, so that load balancers look elsewhere; streams end.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Work the broker put off: what clients acknowledged is not sent again after the next start.
    pub(super) async fn finish(&self) {
        self.broker.finish().await;
    }

    /// Turns true when the node stops.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// What has to hold for the node to serve, each by name.
    fn checks(&self) -> Vec<Check> {
        let damaged = self.state.damaged();
        let admitted = self.log.admit();
        let space = match &admitted {
            Ok(()) => "writes are taken".to_owned(),
            Err(refusal) => format!("writes are refused: {refusal}"),
        };
        let mut checks = self.standing.checks();
        if !self.standing.is_alone {
            checks.push(self.routes());
        }
        checks.push(Check {
            name: "storage",
            ok: admitted.is_ok(),
            detail: space,
        });
        checks.push(Check {
            name: "state",
            // In company another copy serves, and this one is mended from it.
            ok: damaged.is_empty() || !self.standing.is_alone,
            detail: match damaged.first() {
                None => "no shard is damaged".to_owned(),
                Some(first) => format!("{} shards are damaged, first {first}", damaged.len()),
            },
        });
        checks
    }

    /// A node that was just started does not know yet who wants what, and would send every message everywhere. After a
    /// while it has to do: what is not known then is of nodes or shards that are down.
    fn routes(&self) -> Check {
        let knows = self.broker.knows_routes();
        Check {
            name: "routes",
            ok: knows || self.started.elapsed() > ROUTES_WITHIN,
            detail: if knows {
                "it is known what the sessions of other nodes want".to_owned()
            } else {
                "not every node and shard has told what its sessions want".to_owned()
            },
        }
    }

    fn render(&self) -> String {
        self.broker.record_metrics();
        self.standing.record();
        process::record();
        self.metrics.render()
    }
}
