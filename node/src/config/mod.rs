//! Configuration in two stages: what was written ([`raw`]), then what will be used ([`resolve`]).
//!
//! Everything is checked before the first port opens. Unknown keys are errors with a suggestion; every key can be
//! overridden from the environment as `UMBEL__SECTION__KEY`. The environment is read here, once, and nowhere else.

mod cluster;
mod load;
mod raw;
mod resolve;
mod show;
mod suggest;
mod units;

use std::path::PathBuf;

use thiserror::Error;

pub use cluster::{Cluster, Link};
pub use load::{Loaded, Origin, load};
pub use raw::{Admission, Identity, ListenerKind, LogFormat, NodeRole};
pub use resolve::{
    Actors, Aws, Config, Devices, Http, Listener, Log, Mqtt, Node, Policies, Shadows, Storage, Tls,
    User,
};
pub use show::show;

/// A span of time as people write it in the configuration: `250ms`, `30s`, `10m`, `1h`, `7d`.
pub fn span(text: &str) -> Option<std::time::Duration> {
    units::Span::parse(text).map(|span| span.0)
}

/// Why a configuration cannot be used. Nothing was started.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no TOML, or a key or value is not known.
    #[error("{place}: {detail}")]
    Syntax {
        /// File and line, or environment variable.
        place: String,
        /// What is wrong, with a suggestion where there is one.
        detail: String,
    },
    /// A value is of the right type and still cannot be used.
    #[error("{place}{key}: {detail}")]
    Value {
        /// Where the key was set, with a colon; empty if nowhere.
        place: String,
        /// The key, dotted.
        key: String,
        /// What is wrong.
        detail: String,
    },
}
