//! What was said to be durable is read back, or a clear error.
//!
//! Two stores with different duties: the *log* (raft-engine) is believed, the *state* (sled) can be rebuilt from it.
//! Deliberately absent: Raft, actors, topics.

pub mod codec;
pub mod crash;
mod digest;
mod guard;
pub mod ledger;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod nodes;
pub mod record;
pub mod snapshot;
pub mod space;
pub mod state;
pub mod store;
pub mod table;

pub use ledger::{Ledger, Receipt, Refusal};
pub use nodes::{Boot, Nodes, Owner, Peer, PeerError, Reach};
pub use state::State;
pub use table::{Operation, Pairs, ReadError, Table, Write};
