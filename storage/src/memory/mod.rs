//! Twins of the stores in memory: for tests of other rooms, and held to the same suites as the real ones.

mod ledger;

mod rows;

pub use ledger::MemoryLedger;
