//! The doors: MQTT listeners, our API, the AWS data plane.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use umbel_actors::ports::Clock;
use umbel_http::{
    Access, Identify, Router, aws_router,
    port::Backend,
    router,
    serve::{Role, Server, TlsSwitch},
};
use umbel_mqtt::{
    broker::Broker,
    edge::Edge,
    gate::Door,
    limits::Limits,
    listener::{ListenerConfig, Listeners, Wire},
    transport::{tls::Inside, websocket::Origins},
};

use super::{
    Endpoints, StartError,
    files::{self, Room},
    offers::Offers,
};
use crate::{
    config::{self, Config, ListenerKind, NodeRole},
    identity::{Doorkeeper, listener_id},
};

/// Time an HTTP request in flight may take once the node drains.
const HTTP_GRACE: Duration = Duration::from_secs(5);

/// Every open door.
pub(super) struct Edges {
    mqtt: Listeners<Door>,
    http: Vec<Server>,
    endpoints: Endpoints,
    offers: Offers,
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
        let (mut http, mut offers) = (Vec::new(), Offers::default());
        let limits = umbel_http::Limits::default();
        let room = files::make_room(Room {
            mqtt: config.mqtt.max_connections,
            http: limits.connections_max,
        });
        let limits = umbel_http::Limits {
            connections_max: room.http,
            ..limits
        };
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
            let tls = offers.aws(tls)?;
            let server = serve(aws.bind, router, Role::Aws, Some(tls), &limits).await?;
            endpoints.aws = Some(server.local_addr());
            http.push(server);
        }
        let limits = Limits {
            connections_max: room.mqtt,
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
            .map(|listener| listener_config(listener, config.tls.as_ref(), &mut offers))
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
            offers,
        })
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What the doors offer, to be renewed.
    pub(super) fn offers(&self) -> &Offers {
        &self.offers
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
    tls: Option<TlsSwitch>,
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

fn listener_config(
    listener: &config::Listener,
    tls: Option<&config::Tls>,
    offers: &mut Offers,
) -> Result<ListenerConfig, StartError> {
    let mut offer = |inside| offers.mqtt(listener.identity, inside, tls);
    let origins = || Origins::new(listener.origins.clone());
    let wire = match listener.kind {
        ListenerKind::Tcp => Wire::Tcp,
        ListenerKind::Ws => Wire::Ws(origins()),
        ListenerKind::Tls => Wire::Tls(offer(Inside::Mqtt)?),
        ListenerKind::Wss => Wire::Wss(offer(Inside::WebSocket)?, origins()),
    };
    Ok(ListenerConfig {
        id: listener_id(listener),
        bind: listener.bind,
        wire,
        proxy_protocol: listener.proxy_protocol,
    })
}
