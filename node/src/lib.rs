//! The umbel program.

pub mod ctl;
