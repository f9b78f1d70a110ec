//! Partitions, in all their shapes.
