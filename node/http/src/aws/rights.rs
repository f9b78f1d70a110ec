//! Who calls, and what they may do.

use std::sync::Arc;

use umbel_core::policy::{Action, Compiled};

use super::error::{AwsError, Exception};

/// Who calls.
#[derive(Clone)]
pub struct Caller {
    /// The certificate id, for logs.
    pub principal: String,
    /// What they may do.
    pub policy: Arc<Compiled>,
}

impl Caller {
    /// Passes, or is the error to answer.
    pub(super) fn need(&self, action: Action, resource: &str) -> Result<(), AwsError> {
        self.granted(self.policy.allows(action, resource))
    }

    /// The same for a publication, which has rules that no policy lifts.
    pub(super) fn need_publish(&self, topic: &str, retain: bool) -> Result<(), AwsError> {
        self.granted(self.policy.may_publish(topic, retain))
    }

    fn granted(&self, is_granted: bool) -> Result<(), AwsError> {
        if is_granted {
            return Ok(());
        }
        tracing::debug!(principal = %self.principal, "forbidden");
        Err(AwsError::new(Exception::Forbidden, "Forbidden"))
    }
}
