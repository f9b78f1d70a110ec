//! Tasks without which a node is not what it says it is.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use crate::raft::Fatal;

/// The task, which ends the node if it panics: a node that beats no heart, or takes no write of a shard that it owns, must
/// not go on as if it did.
pub(crate) async fn vital(
    what: &'static str,
    fatal: Fatal,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let mut task = Box::pin(task);
    let panicked = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        match polled {
            Ok(Poll::Ready(())) => Poll::Ready(false),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(true),
        }
    });
    if panicked.await {
        fatal(format!("{what} panicked"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_panics_ends_the_node_and_one_that_ends_does_not() {
        let ended: Arc<Mutex<Vec<String>>> = Arc::default();
        let fatal: Fatal = {
            let ended = Arc::clone(&ended);
            Arc::new(move |why| ended.lock().push(why))
        };
        vital("a task", Arc::clone(&fatal), async {
            tokio::task::yield_now().await;
        })
        .await;
        assert!(ended.lock().is_empty());
        vital("a task", fatal, async {
            tokio::task::yield_now().await;
            panic!("as asked");
        })
        .await;
        assert_eq!(*ended.lock(), ["a task panicked"]);
    }
}
