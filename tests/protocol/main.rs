//! The wire, byte by byte, where well-behaved clients do not go.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod malformed;
mod mistakes;
mod presence;
mod redelivery;
