//! What an operator does and sees: configuration, identity, limits, full disks, numbers, logs, and the end.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod api;
mod config;
mod ctl;
mod deploy;
mod disk;
mod flood;
mod identity;
mod observe;
mod proxy;
mod reload;
mod stop;
