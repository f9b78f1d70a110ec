//! A lean MQTT 3.1.1 client: one stream, no tasks, no buffer while idle. rumqttc keeps two channels and two buffers a
//! client, which is right for a device and too much for a hundred thousand of them in one process; its codec is used.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use rumqttc::mqttbytes::{
    QoS,
    v4::{Connect, LastWill, Packet, PingReq, Publish, Subscribe},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Largest packet a server may send us.
const PACKET_MAX: usize = 256 << 10;
/// Longest wait for any answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where and how to connect.
#[derive(Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) address: SocketAddr,
    /// TLS configuration and the name in the server's certificate.
    pub(crate) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connected client.
pub(crate) struct Client {
    stream: Stream,
    inbound: BytesMut,
    next_id: u16,
}

impl Client {
    /// Opens the connection and completes CONNECT.
    pub(crate) async fn connect(
        target: &Target,
        source: SocketAddr,
        id: &str,
        keep_alive: Duration,
    ) -> Result<Self> {
        Self::connect_with_will(target, source, id, keep_alive, None).await
    }

    /// The same with a will.
    pub(crate) async fn connect_with_will(
        target: &Target,
        source: SocketAddr,
        id: &str,
        keep_alive: Duration,
        will: Option<LastWill>,
    ) -> Result<Self> {
        let mut connect = Connect::new(id);
        connect.keep_alive = u16::try_from(keep_alive.as_secs())?;
        connect.clean_session = true;
        connect.last_will = will;
        timeout(PATIENCE, Self::open(target, source, &connect))
            .await
            .context("connect timed out")?
    }

    async fn open(target: &Target, source: SocketAddr, connect: &Connect) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(source)?;
        let tcp = socket.connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let stream = match &target.tls {
            None => Stream::Plain(tcp),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Stream::Tls(Box::new(connector.connect(name.clone(), tcp).await?))
            },
        };
        let mut client = Self {
            stream,
            inbound: BytesMut::new(),
            next_id: 1,
        };
        client.send(|out| connect.write(out)).await?;
        match client.next().await? {
            Packet::ConnAck(ack)
                if ack.code == rumqttc::mqttbytes::v4::ConnectReturnCode::Success =>
            {
                Ok(client)
            },
            other => bail!("connection refused: {other:?}"),
        }
    }

    /// Sends a PUBLISH and returns its packet id; QoS 0 has 0.
    pub(crate) async fn publish(&mut self, topic: &str, qos: QoS, payload: &[u8]) -> Result<u16> {
        let mut publish = Publish::new(topic, qos, payload);
        if qos != QoS::AtMostOnce {
            publish.pkid = self.take_id();
        }
        let id = publish.pkid;
        self.send(|out| publish.write(out)).await?;
        Ok(id)
    }

    /// Sends a PUBLISH with QoS 1 and waits for its acknowledgement; other packets are passed over.
    pub(crate) async fn publish_acknowledged(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let id = self.publish(topic, QoS::AtLeastOnce, payload).await?;
        loop {
            match timeout(PATIENCE, self.next())
                .await
                .context("no PUBACK")??
            {
                Packet::PubAck(ack) if ack.pkid == id => return Ok(()),
                _ => {},
            }
        }
    }

    /// Subscribes and waits for the acknowledgement.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        subscribe.pkid = self.take_id();
        self.send(|out| subscribe.write(out)).await?;
        loop {
            if let Packet::SubAck(_) = timeout(PATIENCE, self.next())
                .await
                .context("no SUBACK")??
            {
                return Ok(());
            }
        }
    }

    /// Sends a PINGREQ.
    pub(crate) async fn ping(&mut self) -> Result<()> {
        self.send(|out| PingReq.write(out)).await
    }

    /// Acknowledges a QoS 1 message.
    pub(crate) async fn acknowledge(&mut self, id: u16) -> Result<()> {
        self.send(|out| rumqttc::mqttbytes::v4::PubAck::new(id).write(out))
            .await
    }

    /// The next packet from the server. Safe to cancel between packets.
    pub(crate) async fn next(&mut self) -> Result<Packet> {
        loop {
            match Packet::read(&mut self.inbound, PACKET_MAX) {
                Ok(packet) => {
                    if self.inbound.is_empty() {
                        self.inbound = BytesMut::new();
                    }
                    return Ok(packet);
                },
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {},
                Err(e) => bail!("packet from the server: {e}"),
            }
            self.fill().await?;
        }
    }

    /// Waits for bytes on the stack, so that an idle client holds none on the heap.
    async fn fill(&mut self) -> Result<()> {
        if let Stream::Plain(tcp) = &self.stream {
            tcp.readable().await?;
            let mut scratch = [0_u8; 4096];
            return match tcp.try_read(&mut scratch) {
                Ok(0) => bail!("connection closed by the server"),
                Ok(n) => {
                    self.inbound
                        .extend_from_slice(scratch.get(..n).unwrap_or_default());
                    Ok(())
                },
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
        match self.stream.io().read_buf(&mut self.inbound).await? {
            0 => bail!("connection closed by the server"),
            _ => Ok(()),
        }
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<usize, rumqttc::mqttbytes::Error>,
    ) -> Result<()> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|e| anyhow::anyhow!("packet: {e}"))?;
        self.stream.io().write_all(&out).await?;
        Ok(())
    }

    fn take_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Stream {
    fn io(&mut self) -> &mut dyn Io {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.as_mut(),
        }
    }
}
