//! Proposals per second through 64 shards over the real stores.

fn main() {}
