//! Who a client is: each listener's rule, applied to what the client shows.

mod password;

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    device::Kind,
    ids::{ClientId, DeviceId},
    policy::{Context, Policy},
};
use umbel_http::{Caller, Identify};
use umbel_mqtt::{
    authenticate::{AuthError, Authenticator, Credentials, Identity},
    peer::ListenerId,
};
use umbel_pki::Bearer;

pub use password::{PasswordError, Passwords, hash};

use crate::config::{self, Config};

/// Policy variable that holds the common name of the client's certificate.
const COMMON_NAME: &str = "iot:Certificate.Subject.CommonName";

/// How a listener tells who connects.
struct Rule {
    identity: config::Identity,
    /// Common names of certificates that many devices share.
    shared: Vec<String>,
}

/// Identifies clients by the rules of the listeners they come in by.
pub struct Doorkeeper {
    rules: BTreeMap<String, Rule>,
    passwords: Passwords,
    device: Policy,
    open: Policy,
}

impl Doorkeeper {
    /// From the configuration.
    pub fn new(config: &Config) -> Result<Self, argon2::password_hash::Error> {
        Ok(Self {
            rules: config
                .listeners
                .iter()
                .map(|l| {
                    let shared = l.certificates.clone();
                    let identity = l.identity;
                    (l.name.clone(), Rule { identity, shared })
                })
                .collect(),
            passwords: Passwords::new(&config.users)?,
            device: config.policies.device.clone(),
            open: Policy::open(),
        })
    }

    /// Who bears this certificate, as the AWS data plane asks: a device named by the subject.
    pub fn bearer(chain: &[CertificateDer<'_>]) -> Option<(DeviceId, Bearer)> {
        let bearer = Bearer::of(chain.first()?).ok()?;
        let device = DeviceId::parse(&bearer.common_name).ok()?;
        Some((device, bearer))
    }

    /// The policy of a device that proved itself with a certificate.
    pub fn device_context(device: &DeviceId, bearer: &Bearer) -> Context {
        let mut context = Context::new(ClientId::from(device.clone()));
        context.thing = Some(device.clone());
        context
            .variables
            .insert(COMMON_NAME.to_owned(), bearer.common_name.clone());
        context
    }

    async fn judge(&self, shown: Credentials<'_>) -> Result<Identity, AuthError> {
        let client = ClientId::parse(shown.client_id).map_err(|_bad| AuthError::ClientId)?;
        let rule = self
            .rules
            .get(shown.listener.as_str())
            .ok_or(AuthError::NotAuthorized)?;
        match rule.identity {
            config::Identity::Certificate => self.by_certificate(client, shown.certificates),
            config::Identity::SharedCertificate => {
                self.by_fleet(client, shown.certificates, &rule.shared)
            },
            config::Identity::ClientId => self.by_claim(client),
            config::Identity::Password => self.by_password(client, shown).await,
            config::Identity::Anonymous => Ok(self.by_nothing(client)),
        }
    }

    /// The certificate's common name is the device and must be the client id. Anything else the client claims,
    /// such as the `?SDK=…` user name of the AWS SDKs, counts for nothing.
    fn by_certificate(
        &self,
        client: ClientId,
        chain: Option<&[CertificateDer<'static>]>,
    ) -> Result<Identity, AuthError> {
        let (device, bearer) = chain
            .and_then(Self::bearer)
            .ok_or(AuthError::NotAuthorized)?;
        if client.as_str() != device.as_str() {
            return Ok(Self::without_rights(client, bearer));
        }
        let policy = self.device.compile(&Self::device_context(&device, &bearer));
        let principal = bearer.certificate_id;
        Ok(Identity {
            kind: Kind::Device,
            device: Some(device),
            principal,
            policy,
            client,
        })
    }

    /// Known by its certificate and allowed nothing: the broker refuses it and tells watchers who it was.
    fn without_rights(client: ClientId, bearer: Bearer) -> Identity {
        Identity {
            kind: Kind::App,
            device: None,
            principal: bearer.certificate_id,
            policy: Policy::deny_all().compile(&Context::new(client.clone())),
            client,
        }
    }

    /// Many devices share one certificate; the client id is the device. Another certificate of the same authority is
    /// one device's: it does not speak for all.
    fn by_fleet(
        &self,
        client: ClientId,
        chain: Option<&[CertificateDer<'static>]>,
        shared: &[String],
    ) -> Result<Identity, AuthError> {
        let leaf = chain
            .and_then(<[_]>::first)
            .ok_or(AuthError::NotAuthorized)?;
        let bearer = Bearer::of(leaf).map_err(|_bad| AuthError::NotAuthorized)?;
        if !shared.contains(&bearer.common_name) {
            return Ok(Self::without_rights(client, bearer));
        }
        let device = client.as_device().ok_or(AuthError::ClientId)?;
        let policy = self.device.compile(&Self::device_context(&device, &bearer));
        let principal = bearer.certificate_id;
        Ok(Identity {
            kind: Kind::Device,
            device: Some(device),
            principal,
            policy,
            client,
        })
    }

    fn by_claim(&self, client: ClientId) -> Result<Identity, AuthError> {
        let device = client.as_device().ok_or(AuthError::ClientId)?;
        let mut context = Context::new(client.clone());
        context.thing = Some(device.clone());
        let policy = self.device.compile(&context);
        let principal = client.as_str().to_owned();
        Ok(Identity {
            kind: Kind::Device,
            device: Some(device),
            principal,
            policy,
            client,
        })
    }

    async fn by_password(
        &self,
        client: ClientId,
        shown: Credentials<'_>,
    ) -> Result<Identity, AuthError> {
        let (Some(user), Some(password)) = (shown.username, shown.password) else {
            return Err(AuthError::BadCredentials);
        };
        let policy = match self.passwords.check(user, password.to_vec()).await {
            Ok(policy) => policy.compile(&Context::new(client.clone())),
            Err(PasswordError::Wrong) => return Err(AuthError::BadCredentials),
            Err(PasswordError::Busy) => return Err(AuthError::Busy),
        };
        let principal = user.to_owned();
        Ok(Identity {
            kind: Kind::App,
            device: None,
            principal,
            policy,
            client,
        })
    }

    /// An id that can be a device's is taken for one, so that `mosquitto_pub -i camera-1` is seen in the registry;
    /// ids the server assigned cannot.
    fn by_nothing(&self, client: ClientId) -> Identity {
        let device = client.as_device();
        let mut context = Context::new(client.clone());
        context.thing.clone_from(&device);
        let kind = if device.is_some() {
            Kind::Device
        } else {
            Kind::App
        };
        let policy = self.open.compile(&context);
        Identity {
            kind,
            device,
            principal: "anonymous".to_owned(),
            policy,
            client,
        }
    }
}

impl Authenticator for Doorkeeper {
    fn identify<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(self.judge(credentials))
    }
}

impl Identify for Doorkeeper {
    fn identify<'a>(
        &'a self,
        certificates: &'a [CertificateDer<'static>],
    ) -> BoxFuture<'a, Option<Caller>> {
        let caller = Self::bearer(certificates).map(|(device, bearer)| Caller {
            policy: self.device.compile(&Self::device_context(&device, &bearer)),
            principal: bearer.certificate_id,
        });
        Box::pin(std::future::ready(caller))
    }
}

/// The name under which a listener is known to the edges.
pub fn listener_id(listener: &config::Listener) -> ListenerId {
    ListenerId::new(&listener.name)
}
