//! Who a client is, as the edge asks it of the node.

use std::{future::Future, pin::Pin, sync::Arc};

use rustls::pki_types::CertificateDer;
use umbel_core::{
    device::Kind,
    ids::{ClientId, DeviceId},
    policy::Compiled,
};

use crate::{peer::ListenerId, reason::ReasonCode};

/// What [`Authenticator::identify`] promises.
pub type Identifying<'a> = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>>;

/// Decides who a client is. The node knows certificates, users and policies; the edge does not.
pub trait Authenticator: Send + Sync + 'static {
    /// Judges what a client showed. `client_id` is never empty: an assigned one is judged like any other.
    fn identify<'a>(
        &'a self,
        listener: &'a ListenerId,
        certificates: Option<&'a [CertificateDer<'static>]>,
        username: Option<&'a str>,
        password: Option<&'a [u8]>,
        client_id: &'a str,
    ) -> Identifying<'a>;
}

/// A client whose identity was established.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it connects as.
    pub kind: Kind,
    /// The device it speaks for.
    pub device: Option<DeviceId>,
    /// Who it proved to be: certificate id or user name.
    pub principal: String,
    /// What it may do.
    pub policy: Arc<Compiled>,
    /// The client it is.
    pub client: ClientId,
}

/// A client that is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthError {
    /// What CONNACK says.
    pub reason: ReasonCode,
}
