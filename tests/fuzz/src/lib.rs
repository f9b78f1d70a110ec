//! What is done with bytes from strangers, and what must hold whatever they are.
//!
//! Each target has a `run` that panics when a law is broken and says whether the bytes were accepted. libFuzzer calls
//! them from `fuzz_targets/`; the test `mutation` of the tests room compiles the same files and feeds them seeded
//! mutations of its seeds, so every run of the suite tries some 100,000 inputs each.

pub mod mqtt;
pub mod policy;
pub mod records;
pub mod shadow;
pub mod topics;
