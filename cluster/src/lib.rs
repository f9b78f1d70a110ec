//! An ordered, replicated log for each shard.
