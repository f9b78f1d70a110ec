//! What the tests of this binary share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::json;
use umbel_tests::{Cluster, Member, PATIENCE};

/// Long enough for a message that is wrongly sent to arrive.
pub(crate) const NOTHING_COMES: Duration = Duration::from_secs(3);

/// What was told about one device.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Versions acknowledged, in order.
    pub(crate) versions: Vec<u64>,
    /// Last number acknowledged.
    pub(crate) number: u64,
    /// Numbers whose outcome nobody knows.
    pub(crate) unknown: u64,
    /// Refusals (nothing was changed).
    pub(crate) refused: u64,
}

/// Updates a device again and again through the API of one node, with retries, until stopped.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Told>,
}

impl Writer {
    /// Begins.
    pub(crate) fn start(cluster: &Arc<Cluster>, through: usize, device: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (cluster, device, stopped) =
            (Arc::clone(cluster), device.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut told = Told::default();
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                write_once(cluster.node(through), &device, number, &mut told);
            }
            told
        });
        Self { stop, thread }
    }

    /// Ends, and says what was told.
    pub(crate) fn finish(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Until it is acknowledged: every number is written, one after the other.
fn write_once(node: &Member, device: &str, number: u64, told: &mut Told) {
    let began = Instant::now();
    loop {
        assert!(
            began.elapsed() < PATIENCE,
            "{device}: no update is accepted any more"
        );
        match node.update(device, &json!({ "n": number })) {
            Ok((200, body)) => {
                told.versions.push(body["version"].as_u64().unwrap());
                told.number = number;
                return;
            },
            Ok((status, body)) => {
                assert!(status == 429 || status >= 500, "{status} {body}");
                told.refused += 1;
            },
            Err(_) => told.unknown += 1,
        }
    }
}

impl Told {
    /// G1, G3: what the node shows is what was told last, and versions rose by one for each update that happened.
    pub(crate) fn check(&self, node: &Member, device: &str) {
        let shadow = node.shadow(device);
        assert_eq!(shadow["desired"]["n"], self.number, "{shadow} {self:?}");
        assert!(
            self.versions.windows(2).all(|pair| pair[0] < pair[1]),
            "{device}: versions do not rise: {:?}",
            self.versions
        );
        // What was written before this writer began is not its own.
        let before = self.versions.first().map_or(0, |first| first - 1);
        let version = shadow["version"].as_u64().unwrap() - before;
        let told = self.versions.len() as u64;
        assert!(
            version >= told && version <= told + self.unknown + self.refused,
            "{device}: version {version} after {told} acknowledged updates, {} unknown",
            self.unknown
        );
    }
}
