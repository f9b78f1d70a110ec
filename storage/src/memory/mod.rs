//! Twins of the stores in memory: for tests of other rooms, and held to the same suites as the real ones.

mod ledger;
mod log;
mod nodes;
mod rows;
mod state;

pub use ledger::MemoryLedger;
pub use log::MemoryLog;
pub use nodes::{MemoryNodes, OneNode};
pub use state::MemoryState;
