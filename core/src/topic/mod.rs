//! Topics and filters.

pub mod aws;
