//! Where clients find nodes: one site for each node, with the runtime on which sockets to it are opened (a node may live
//! in a network namespace of its own).

use std::{future::Future, sync::Arc};

use anyhow::{Context as _, Result};
use futures_util::future::select_all;
use rand::Rng;
use tokio::{runtime::Handle, sync::watch};

use crate::process::Endpoints;

/// One node as clients see it.
#[derive(Clone)]
pub(crate) struct Site {
    place: watch::Receiver<Option<Endpoints>>,
    runtime: Handle,
    n: usize,
}

impl Site {
    /// Node `n`, at the place told by `place` (none while it is down), spoken to from `runtime`.
    pub(crate) fn new(
        n: usize,
        place: watch::Receiver<Option<Endpoints>>,
        runtime: Handle,
    ) -> Self {
        Self { place, runtime, n }
    }

    /// Where it listens, once it is up.
    async fn up(&mut self) -> Result<Endpoints> {
        let endpoints = *self.place.wait_for(Option::is_some).await?;
        endpoints.context("the value was awaited")
    }

    /// Where it listens, if it is up.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        *self.place.borrow()
    }
}

/// All nodes.
#[derive(Clone)]
pub(crate) struct Sites(Arc<[Site]>);

/// A node that is up.
pub(crate) struct Up {
    /// Where it listens.
    pub(crate) endpoints: Endpoints,
    /// Which it is.
    pub(crate) node: usize,
    runtime: Handle,
}

impl Sites {
    pub(crate) fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        Self(sites.into_iter().collect())
    }

    /// Any node that is up; waits for one.
    pub(crate) async fn any(&self, rng: &mut impl Rng) -> Result<Up> {
        let up: Vec<&Site> = self.0.iter().filter(|s| s.endpoints().is_some()).collect();
        // Nothing is drawn where there is no choice, so that runs with one node keep their schedules.
        let site = match up[..] {
            [] => {
                let waiting = self.0.iter().map(|site| {
                    let mut site = site.clone();
                    Box::pin(async move { site.up().await.map(|_| site) })
                });
                select_all(waiting).await.0?
            },
            [site] => site.clone(),
            _ => up
                .get(rng.random_range(0..up.len()))
                .map(|site| (*site).clone())
                .context("drawn from what is there")?,
        };
        let endpoints = site.clone().up().await?;
        Ok(Up {
            endpoints,
            node: site.n,
            runtime: site.runtime,
        })
    }

    /// Every node.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.0.iter()
    }
}

impl Site {
    /// The node, if it is up.
    pub(crate) fn here(&self) -> Option<Up> {
        Some(Up {
            endpoints: self.endpoints()?,
            node: self.n,
            runtime: self.runtime.clone(),
        })
    }
}

impl Up {
    /// Does something where the node can be reached.
    pub(crate) async fn run<F>(&self, work: F) -> Result<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Ok(self.runtime.spawn(work).await?)
    }
}
