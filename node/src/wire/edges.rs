//! The doors: MQTT listeners, our API, the AWS data plane.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::RootCertStore;
use tokio::{net::TcpListener, sync::watch};
use umbel_actors::ports::Clock;
use umbel_http::{
    Access, Identify, Router, aws_router,
    port::Backend,
    router,
    serve::{self, Role, Server},
};
use umbel_mqtt::{
    broker::Broker,
    edge::Edge,
    gate::Door,
    limits::Limits,
    listener::{ListenerConfig, Listeners, Wire},
    transport::{
        tls::{ClientCertificates, Inside, TlsHandle, server_config},
        websocket::Origins,
    },
};

use super::{Endpoints, StartError};
use crate::{
    config::{self, Config, Identity, ListenerKind, NodeRole},
    identity::{Doorkeeper, listener_id},
};

/// Time an HTTP request in flight may take once the node drains.
const HTTP_GRACE: Duration = Duration::from_secs(5);

/// Every open door.
pub(super) struct Edges {
    mqtt: Listeners<Door>,
    http: Vec<Server>,
    endpoints: Endpoints,
}

/// What the doors lead to.
pub(super) struct Inner {
    pub(super) doorkeeper: Arc<Doorkeeper>,
    pub(super) broker: Arc<Broker>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Edges {
    /// Opens HTTP first, so that health can be asked while devices storm in.
    pub(super) async fn start(config: &Config, inner: Inner) -> Result<Self, StartError> {
        let mut http = Vec::new();
        let limits = umbel_http::Limits::default();
        let mut endpoints = Endpoints::default();
        if let Some(api) = config.http {
            let limits = umbel_http::Limits {
                local_names_only: !api.open_to_network,
                ..limits.clone()
            };
            let router = router(Arc::clone(&inner.backend), &limits, inner.stopping);
            let server = serve(api.bind, router, Role::Api, None, &limits).await?;
            endpoints.http = Some(server.local_addr());
            http.push(server);
        }
        if let (Some(aws), Some(tls)) = (&config.aws, &config.tls) {
            let access = Access::Certificates(Arc::clone(&inner.doorkeeper) as Arc<dyn Identify>);
            let router = aws_router(Arc::clone(&inner.backend), access, &limits);
            let (chain, key, authorities) = certificates(tls)?;
            let tls =
                serve::tls(chain, key, authorities).map_err(|e| StartError::Tls(e.to_string()))?;
            let server = serve(aws.bind, router, Role::Aws, Some(tls), &limits).await?;
            endpoints.aws = Some(server.local_addr());
            http.push(server);
        }
        let limits = Limits {
            connections_max: config.mqtt.max_connections,
            packet_bytes_max: config.mqtt.max_packet_size,
            ..Limits::default()
        };
        let door = Door::new(inner.broker, inner.doorkeeper);
        let edge = Edge::new(Arc::new(door), inner.clock, limits);
        let is_gateway = config.cluster.roles.contains(&NodeRole::Gateway);
        let wanted = config
            .listeners
            .iter()
            .filter(|_| is_gateway)
            .map(|listener| listener_config(listener, config.tls.as_ref()))
            .collect::<Result<_, _>>()?;
        let mqtt = Listeners::start(wanted, &edge)?;
        endpoints.listeners = mqtt
            .addresses()
            .iter()
            .map(|(id, address)| (id.as_str().to_owned(), *address))
            .collect();
        Ok(Self {
            mqtt,
            http,
            endpoints,
        })
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Where other nodes reach this one, for those who ask for endpoints.
    pub(super) fn reached_at(&mut self, addresses: Option<(SocketAddr, SocketAddr)>) {
        (self.endpoints.link, self.endpoints.gossip) = addresses.unzip();
    }

    /// Sends everybody away, spread over `window`, and waits for those who linger.
    pub(super) async fn drain(self, window: Duration, patience: Duration) {
        self.mqtt
            .drain(window, patience.saturating_sub(window))
            .await;
        for server in self.http {
            server.shutdown(HTTP_GRACE).await;
        }
    }
}

async fn serve(
    bind: SocketAddr,
    router: Router,
    role: Role,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: &umbel_http::Limits,
) -> Result<Server, StartError> {
    let at = |source| StartError::Bind {
        address: bind,
        source,
    };
    let listener = TcpListener::bind(bind).await.map_err(at)?;
    let name = match role {
        Role::Api => "http",
        Role::Aws => "aws",
    };
    let server = Server::start(listener, router, role, tls, limits).map_err(at)?;
    tracing::info!(listener = name, address = %server.local_addr(), "listening");
    Ok(server)
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

fn listener_config(
    listener: &config::Listener,
    tls: Option<&config::Tls>,
) -> Result<ListenerConfig, StartError> {
    let origins = || Origins::new(listener.origins.clone());
    let wire = match listener.kind {
        ListenerKind::Tcp => Wire::Tcp,
        ListenerKind::Ws => Wire::Ws(origins()),
        ListenerKind::Tls => Wire::Tls(offer(listener, tls, Inside::Mqtt)?),
        ListenerKind::Wss => Wire::Wss(offer(listener, tls, Inside::WebSocket)?, origins()),
    };
    Ok(ListenerConfig {
        id: listener_id(listener),
        bind: listener.bind,
        wire,
        proxy_protocol: listener.proxy_protocol,
    })
}

/// What a TLS listener offers; a client certificate is required where it is the identity.
fn offer(
    listener: &config::Listener,
    tls: Option<&config::Tls>,
    inside: Inside,
) -> Result<TlsHandle, StartError> {
    let tls = tls.ok_or_else(|| StartError::Tls("no [tls] section".to_owned()))?;
    let (chain, key, authorities) = certificates(tls)?;
    let clients = match listener.identity {
        Identity::Certificate | Identity::SharedCertificate => {
            ClientCertificates::Required(Arc::new(authorities))
        },
        Identity::ClientId | Identity::Password | Identity::Anonymous => ClientCertificates::None,
    };
    let config = server_config(chain, key, clients, inside)
        .map_err(|e| StartError::Tls(format!("{e}: {:?}", std::error::Error::source(&e))))?;
    Ok(TlsHandle::new(config))
}
