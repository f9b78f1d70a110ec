//! The `umbel` program: edges, composition, configuration, start and drain.
//!
//! Deliberately absent: domain decisions. [`wire`] puts the rooms together; everything else here reads what people wrote
//! or tells them what is.

mod backup;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod datadir;
pub mod dev;
pub mod identity;
mod membership;
mod operator;
mod peers;
pub mod run;
pub mod telemetry;
pub mod wire;
