//! What every black-box test needs: a node as a process, patience, and the programs that people use.
//!
//! Tests here see the system only from outside, through ports and processes. Ports are 0, waiting is for a state and
//! never for a time, and nothing outlives its test.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test harness fails by panicking"
)]

mod cluster;
mod deploy;
mod http;
mod member;
mod mqtt;
mod netns;
mod node;
mod programs;
mod served;
mod session;
mod slow;

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

pub use cluster::{Cluster, Plan};
pub use deploy::{compare, deploy};
pub use http::{Answer, request};
pub use member::Member;
pub use mqtt::{Wire, connect_packet, framed};
pub use node::{Endpoints, Node};
pub use programs::{
    Outcome, Output, Running, mosquitto, mosquitto_pub, mosquitto_sub, outcome, program, python,
    umbel,
};
pub use served::{Authority, Served};
pub use session::{Message, Session, Will};
pub use slow::SlowDisk;

/// The one patience knob: how long any state may take to come on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `state` gives a value. `why` says in the failure what did not come.
#[expect(clippy::disallowed_methods, reason = "the one place that waits")]
pub fn eventually<T>(why: impl Display, mut state: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = state() {
            return value;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "did not come within {PATIENCE:?}: {why}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
