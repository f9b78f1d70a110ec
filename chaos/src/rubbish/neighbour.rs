//! A client that minds its own business beside the rubbish: it must not notice anything.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use super::packets::{Version, connect, framed};

const NAME: &str = "neighbour";
const TOPIC: &[u8] = b"neighbour/loop";
/// How long a message to itself may take on a machine that is busy with rubbish.
const ECHO_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// A connected client, subscribed to itself.
pub(super) struct Neighbour(TcpStream);

impl Neighbour {
    pub(super) async fn connect(broker: SocketAddr) -> Result<Self> {
        let mut this = Self(TcpStream::connect(broker).await?);
        this.0.set_nodelay(true)?;
        this.0.write_all(&connect(Version::V4, NAME)).await?;
        ensure!(this.packet().await? == [0x20, 2, 0, 0], "CONNACK");
        let mut subscribe = vec![0, 1];
        subscribe.extend(text(TOPIC));
        subscribe.push(0);
        this.0.write_all(&framed(0x82, &subscribe)).await?;
        ensure!(this.packet().await? == [0x90, 3, 0, 1, 0], "SUBACK");
        Ok(this)
    }

    /// Sends itself numbered messages until it is told to stop, and says how many came back.
    pub(super) async fn live(mut self, stop: watch::Receiver<bool>) -> Result<u64> {
        let mut number = 0_u64;
        while !*stop.borrow() {
            let body = [text(TOPIC), number.to_be_bytes().to_vec()].concat();
            let publish = framed(0x30, &body);
            self.0.write_all(&publish).await?;
            let echo = timeout(ECHO_PATIENCE, self.packet())
                .await
                .with_context(|| format!("message {number} did not come back"))??;
            ensure!(
                echo == publish,
                "instead of message {number} came {echo:x?}"
            );
            number += 1;
            sleep(PAUSE).await;
        }
        Ok(number)
    }

    /// The next packet; ours are shorter than 128 bytes.
    async fn packet(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).await?;
        let [_, length] = head;
        let mut body = vec![0; usize::from(length)];
        self.0.read_exact(&mut body).await?;
        Ok([head.to_vec(), body].concat())
    }
}

fn text(text: &[u8]) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(text.len()).unwrap_or_default()];
    field.extend(text);
    field
}
