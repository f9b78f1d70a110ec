//! Who a client is: asked once per connection, answered by the node's configuration.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    device::Kind,
    ids::{ClientId, DeviceId},
    policy::Compiled,
};

use crate::{peer::ListenerId, reason::ReasonCode};

/// What a client shows.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Where it came in; decides which credentials count.
    pub listener: &'a ListenerId,
    /// The certificate chain it proved to own, leaf first.
    pub certificates: Option<&'a [CertificateDer<'static>]>,
    /// User name of CONNECT.
    pub username: Option<&'a str>,
    /// Password of CONNECT.
    pub password: Option<&'a [u8]>,
    /// Client identifier of CONNECT, or the one the server assigned.
    pub client_id: &'a str,
}

/// Turns what a client shows into who it is. `node/src` implements it.
pub trait Authenticator: Send + Sync + 'static {
    /// Judges a client. Expensive checks (argon2) run off the runtime and are bounded by the implementation.
    fn identify<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Identity, AuthError>>;
}

/// Who a client is, and what it may do.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A device, or anything else.
    pub kind: Kind,
    /// The device it speaks for.
    pub device: Option<DeviceId>,
    /// What proved it: a certificate id or a user name. Shown to people, and in lifecycle events.
    pub principal: String,
    /// What it may do.
    pub policy: Arc<Compiled>,
    /// The client it is.
    pub client: ClientId,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// No such user, or a wrong password.
    #[error("bad user name or password")]
    BadCredentials,
    /// Known, and not allowed to connect like this.
    #[error("not authorized to connect")]
    NotAuthorized,
    /// Not an identifier this server takes.
    #[error("client identifier is not acceptable")]
    ClientId,
    /// Too many checks at once; nothing was decided.
    #[error("too busy to authenticate")]
    Busy,
}

impl AuthError {
    /// What the client is told.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::ClientId => ReasonCode::ClientIdentifierNotValid,
            Self::Busy => ReasonCode::ServerBusy,
        }
    }
}
