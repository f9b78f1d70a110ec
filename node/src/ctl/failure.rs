//! Why a command did not do what was asked, and how the shell learns of it.

use serde_json::Value;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// No whole answer came.
    #[error(
        "{server}: {detail}: that node is down, or its API is elsewhere; any other node of the cluster answers as well (--server)"
    )]
    NoAnswer {
        /// Who was asked.
        server: String,
        /// What happened.
        detail: String,
    },
    /// The server refused.
    #[error("{detail} ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's words.
        detail: String,
    },
    /// The node cannot serve.
    #[error("the node is not ready")]
    NotReady {
        /// Its checks, ready to print.
        shown: String,
    },
}

impl Failure {
    /// From an answer that is not a success.
    pub(super) fn of_answer(status: u16, body: &Value) -> Self {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let detail = text("detail").or_else(|| text("title"));
        Self::Refused {
            status,
            detail: detail.unwrap_or_else(|| "refused".to_owned()),
        }
    }

    /// What goes to standard output all the same.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::NotReady { shown } => shown,
            Self::Usage(_) | Self::NoAnswer { .. } | Self::Refused { .. } => "",
        }
    }

    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NoAnswer { .. } | Self::NotReady { .. } => 1,
            Self::Refused { status, .. } => match status {
                404 | 409 | 412 => 3,
                400 | 413 | 415 => 2,
                _ => 1,
            },
        }
    }
}
