//! Shards of several nodes in one process, over a net in memory and disks in memory.

#![expect(
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report figures, and fail by panicking wherever they are"
)]

mod damage;
mod faults;
mod figures;
mod members;
mod nodes;
mod on_disk;
mod regress;
mod schedule;
mod serving;
mod world;
