//! Points at which a test makes the node die: the program calls [`point`] by name where a death would hurt most, before
//! and after what it makes durable or tells.
//!
//! Only debug builds, and those with the feature `crash-points`, know them; elsewhere a point is an empty function. A
//! node started with `UMBEL_CRASH_AT` reads the file named there whenever it comes to a point; the file holds a point's
//! name and which pass of it is meant, and it is taken away before the node dies, so that the next one lives.

/// Dies here (SIGKILL to itself), if a test wants it.
#[cfg(any(debug_assertions, feature = "crash-points"))]
pub fn point(name: &str) {
    armed::pass(name);
}

/// Nothing, in a release.
#[cfg(not(any(debug_assertions, feature = "crash-points")))]
#[inline(always)]
pub const fn point(_name: &str) {}

#[cfg(any(debug_assertions, feature = "crash-points"))]
mod armed {
    use std::{
        env, fs,
        path::PathBuf,
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
        thread,
    };

    use rustix::process::{Signal, getpid, kill_process};

    static ORDER: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| env::var_os("UMBEL_CRASH_AT").map(PathBuf::from));
    static PASSES: AtomicU32 = AtomicU32::new(0);

    pub(super) fn pass(name: &str) {
        let Some(path) = &*ORDER else {
            return;
        };
        let Ok(order) = fs::read_to_string(path) else {
            return;
        };
        if is_due(&order, name) && fs::remove_file(path).is_ok() {
            die();
        }
    }

    /// Whether this pass of a point is the one that is meant.
    fn is_due(order: &str, name: &str) -> bool {
        let mut words = order.split_whitespace();
        if words.next() != Some(name) {
            return false;
        }
        let due = words.next().and_then(|pass| pass.parse().ok());
        PASSES.fetch_add(1, Ordering::Relaxed) + 1 >= due.unwrap_or(1)
    }

    fn die() {
        if kill_process(getpid(), Signal::KILL).is_ok() {
            // The signal is on its way; nothing more may be done meanwhile.
            loop {
                thread::park();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn a_node_dies_at_the_pass_that_is_meant_and_at_no_other_point() {
            assert!(!super::is_due("here 3", "there"));
            assert!(!super::is_due("here 3", "here"));
            assert!(!super::is_due("here 3", "here"));
            assert!(super::is_due("here 3", "here"));
        }
    }
}
