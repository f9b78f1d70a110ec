//! Shards of several nodes in one process, over a net in memory and disks in memory.

#![expect(
    clippy::print_stdout,
    clippy::panic,
    reason = "tests report figures, and fail by panicking wherever they are"
)]

mod faults;
mod figures;
mod members;
mod nodes;
mod regress;
mod serving;
mod world;
