//! What the doors with TLS offer, and offering something else without closing them.
//!
//! All doors change, or none: what cannot be used is found out before the first one is touched.

use std::sync::Arc;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use rustls::{RootCertStore, ServerConfig};
use umbel_http::serve::{self, TlsSwitch};
use umbel_mqtt::transport::tls::{ClientCertificates, Inside, TlsHandle, server_config};

use super::StartError;
use crate::config::{self, Config, Identity};

/// Times the certificates were read again, by `outcome`: done, failed.
const RELOADS: &str = "umbel_tls_reloads_total";
/// 1 while the last attempt to read them again has failed, and the ones before are offered.
const RELOAD_FAILED: &str = "umbel_tls_reload_failed";

pub(super) fn describe() {
    describe_counter!(
        RELOADS,
        "Times the certificates of the listeners were read again, by outcome (done, failed)"
    );
    describe_gauge!(
        RELOAD_FAILED,
        "1 while listeners offer older certificates, because those in the files cannot be used"
    );
    // Somebody who watches them wants to see the first one rise from 0.
    for outcome in ["done", "failed"] {
        counter!(RELOADS, "outcome" => outcome).increment(0);
    }
    gauge!(RELOAD_FAILED).set(0.0);
}

/// Every door with TLS. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Offers(Vec<Offer>);

#[derive(Clone)]
enum Offer {
    Mqtt {
        handle: TlsHandle,
        identity: Identity,
        inside: Inside,
    },
    Aws(TlsSwitch),
}

impl Offers {
    /// What a TLS listener offers; it is replaced with the others from now on.
    pub(super) fn mqtt(
        &mut self,
        identity: Identity,
        inside: Inside,
        tls: Option<&config::Tls>,
    ) -> Result<TlsHandle, StartError> {
        let handle = TlsHandle::new(mqtt(identity, inside, tls)?);
        self.0.push(Offer::Mqtt {
            handle: handle.clone(),
            identity,
            inside,
        });
        Ok(handle)
    }

    /// What the AWS data plane offers; it is replaced with the others from now on.
    pub(super) fn aws(&mut self, tls: &config::Tls) -> Result<TlsSwitch, StartError> {
        let switch = TlsSwitch::new(aws(Some(tls))?);
        self.0.push(Offer::Aws(switch.clone()));
        Ok(switch)
    }

    /// Reads the files again and offers what is in them from the next handshake on. After an error everything is offered
    /// that was before. Blocks.
    pub(crate) fn renew(&self, config: &Config) -> Result<(), StartError> {
        let tls = config.tls.as_ref();
        let read = |offer: &Offer| match offer {
            Offer::Mqtt {
                identity, inside, ..
            } => mqtt(*identity, *inside, tls),
            Offer::Aws(_) => aws(tls),
        };
        let fresh: Vec<_> = self.0.iter().map(read).collect::<Result<_, _>>()?;
        for (offer, config) in self.0.iter().zip(fresh) {
            match offer {
                Offer::Mqtt { handle, .. } => handle.replace(config),
                Offer::Aws(switch) => switch.replace(config),
            }
        }
        Ok(())
    }
}

/// Counts an attempt to read the certificates again.
pub(crate) fn reloaded(done: bool) {
    let outcome = if done { "done" } else { "failed" };
    counter!(RELOADS, "outcome" => outcome).increment(1);
    gauge!(RELOAD_FAILED).set(f64::from(u8::from(!done)));
}

fn given(tls: Option<&config::Tls>) -> Result<&config::Tls, StartError> {
    tls.ok_or_else(|| StartError::Tls("no [tls] section".to_owned()))
}

fn aws(tls: Option<&config::Tls>) -> Result<Arc<ServerConfig>, StartError> {
    let (chain, key, authorities) = certificates(given(tls)?)?;
    serve::tls(chain, key, authorities).map_err(|error| StartError::Tls(error.to_string()))
}

/// A client certificate is required where it is the identity.
fn mqtt(
    identity: Identity,
    inside: Inside,
    tls: Option<&config::Tls>,
) -> Result<Arc<ServerConfig>, StartError> {
    let (chain, key, authorities) = certificates(given(tls)?)?;
    let clients = match identity {
        Identity::Certificate | Identity::SharedCertificate => {
            ClientCertificates::Required(Arc::new(authorities))
        },
        Identity::ClientId | Identity::Password | Identity::Anonymous => ClientCertificates::None,
    };
    server_config(chain, key, clients, inside).map_err(|error| {
        let cause = std::error::Error::source(&error);
        StartError::Tls(match cause {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
    })
}

type Certificates = (
    Vec<rustls::pki_types::CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
    RootCertStore,
);

/// The server's chain and key, and who may sign clients.
fn certificates(tls: &config::Tls) -> Result<Certificates, StartError> {
    let mut authorities = RootCertStore::empty();
    for certificate in umbel_pki::load_certificates(&tls.ca)? {
        authorities
            .add(certificate)
            .map_err(|e| StartError::Tls(e.to_string()))?;
    }
    Ok((
        umbel_pki::load_certificates(&tls.certificate)?,
        umbel_pki::load_key(&tls.key)?,
        authorities,
    ))
}
