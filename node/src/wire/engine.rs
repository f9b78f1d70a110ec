//! The engine room: a runtime of its own for what the cluster stands on.
//!
//! Heartbeats, votes, appends and the log's answers are little work that must not wait. In one runtime they would stand in
//! the same queues as ten thousand clients that come back at once, and a node that is only busy would lose its leases.
//! Threads of their own get their share from the system, whatever waits elsewhere. What is awaited here is that of the
//! control lane, of the groups, gossip and membership; connections, actors and the other lanes stay where they were.

use std::{io, num::NonZeroUsize, thread};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::context::TokioContext;

/// Enough for the groups of a large machine; more would only be more threads.
const THREADS_MAX: usize = 4;

/// The runtime; it ends with this.
pub(super) struct Engine(Option<Runtime>);

impl Engine {
    /// Starts its threads: as many as there are processors, to a bound.
    pub(super) fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.min(THREADS_MAX))
            .thread_name("umbel-cluster")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }

    /// Runs a future here; what it spawns, opens and waits for belongs to the engine room.
    pub(super) async fn run<F: Future>(&self, future: F) -> F::Output {
        match self.handle() {
            Some(handle) => TokioContext::new(future, handle.clone()).await,
            None => future.await,
        }
    }

    /// The same for what does not wait.
    pub(super) fn call<T>(&self, work: impl FnOnce() -> T) -> T {
        let _here = self.handle().map(Handle::enter);
        work()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A runtime may not be waited for inside another. Nothing is left in it that anybody waits for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[tokio::test]
    async fn f22_what_runs_in_the_engine_room_goes_on_while_the_clients_runtime_does_nothing() {
        let engine = Engine::start().expect("threads");
        let (tell, told) = mpsc::channel();
        engine
            .run(async {
                drop(tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    tell.send(thread::current().name().map(str::to_owned))
                }));
            })
            .await;
        // The only thread of the runtime of this test waits here, as one does that is busy.
        let name = told.recv_timeout(Duration::from_secs(30)).expect("it ran");
        assert_eq!(name.as_deref(), Some("umbel-cluster"));
    }
}
