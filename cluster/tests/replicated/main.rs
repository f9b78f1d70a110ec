//! Shards of several nodes in one process, over a net in memory and disks in memory.

mod faults;
mod members;
mod nodes;
mod serving;
mod world;
