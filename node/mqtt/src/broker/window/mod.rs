//! Windows: the connected part of durable sessions, on the node of the connection.
//!
//! A window holds what its home pushed and the client has not acknowledged, and asks the home for everything that has to
//! last. While the way to the home is lost, or the home moves, the connection goes on: what the client publishes is
//! routed, what it acknowledges is told the next home, and what it asks for waits a little.

mod ask;
mod attach;
mod push;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use umbel_core::ids::{NodeId, Term};

pub(crate) use self::{ask::Verdicts, attach::NoHome};
use super::{mailbox::Mailbox, peers::home::Acked};

/// Windows that attach at once: more are a storm for the homes that just took over.
const ATTACHING_MAX: usize = 64;

/// The way of a window to its home.
#[derive(Debug)]
pub(crate) struct Link {
    /// Which node has the home, and in which term.
    node: NodeId,
    term: Term,
    /// The home itself, if that is this node.
    home: Option<Arc<Mailbox>>,
    /// Names the attempt to attach; what is pushed for another is not taken.
    pub(super) generation: u64,
    way: Way,
    /// The window never was attached, and its session begins with it.
    is_fresh: bool,
    /// Messages that came in this generation.
    received: u64,
    /// Acknowledgements told in this generation.
    acked: u64,
    /// Up to which number an earlier connection may have been sent, as a home said.
    pub(super) sent: Option<u64>,
    /// Acknowledged while no home was attached, or not yet.
    late: Vec<u64>,
    window: u16,
}

/// Whether a home listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The home pushes, and may be asked.
    Open,
    /// It is being attached to.
    Attaching,
    /// It has to be attached to again.
    Lost,
}

/// What all windows of a node share.
#[derive(Debug)]
pub(crate) struct Windows {
    generation: AtomicU64,
    attaching: Arc<Semaphore>,
    /// Acknowledgements on their way to other nodes.
    acked: Mutex<BTreeMap<NodeId, Vec<Acked>>>,
    is_telling: AtomicBool,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(0),
            attaching: Arc::new(Semaphore::new(ATTACHING_MAX)),
            acked: Mutex::default(),
            is_telling: AtomicBool::new(false),
        }
    }
}

impl Windows {
    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Link {
    /// The home, if it is on this node and listens.
    pub(crate) fn here(&self) -> Option<&Arc<Mailbox>> {
        self.home.as_ref().filter(|_| self.way == Way::Open)
    }

    /// A way nobody has gone yet.
    pub(super) fn new(me: NodeId, is_fresh: bool, window: u16) -> Self {
        Self {
            node: me,
            term: Term::default(),
            home: None,
            generation: 0,
            way: Way::Lost,
            is_fresh,
            received: 0,
            acked: 0,
            sent: None,
            late: Vec::new(),
            window,
        }
    }
}
