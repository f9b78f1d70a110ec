//! Refusals of fleet and broker in the words of the port.

use umbel_actors::{EditError, Refused};
use umbel_mqtt::broker::{PublishRefused, RetainedUnavailable};

use crate::port::Refusal;

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Overloaded | Refused::Restarting => Self::Overloaded,
            Refused::TooManyInFlight => Self::TooManyInFlight,
            Refused::NotOwner => Self::NotOwner,
            Refused::Unavailable => Self::NoQuorum,
            Refused::StorageFull => Self::StorageFull,
            Refused::Quarantined => Self::Quarantined,
            Refused::Stopping => Self::Stopping,
            Refused::NotListed => Self::NotListed,
            Refused::TooLarge => Self::TooLarge,
            Refused::Unreadable | Refused::Unknown => {
                tracing::warn!(%refused, "an HTTP request failed");
                Self::Internal(refused.to_string())
            },
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Refused(refused) => refused.into(),
            EditError::NotFound => Self::NotFound,
            EditError::Exists => Self::Exists,
            EditError::PreconditionFailed { revision } => Self::VersionConflict {
                current: Some(revision),
            },
            EditError::Invalid(detail) => Self::Invalid {
                pointer: "#".to_owned(),
                detail,
            },
        }
    }
}

impl From<PublishRefused> for Refusal {
    fn from(refused: PublishRefused) -> Self {
        match refused {
            PublishRefused::Topic(_) | PublishRefused::Retain => Self::Invalid {
                pointer: "#".to_owned(),
                detail: refused.to_string(),
            },
            PublishRefused::QuotaExceeded => Self::TooManyInFlight,
            PublishRefused::TooLarge => Self::TooLarge,
            PublishRefused::Unavailable => Self::Overloaded,
        }
    }
}

impl From<RetainedUnavailable> for Refusal {
    fn from(_: RetainedUnavailable) -> Self {
        Self::Overloaded
    }
}
