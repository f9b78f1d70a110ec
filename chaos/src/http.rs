//! As much HTTP as a question to our API needs.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The JSON answer of a GET.
pub(crate) async fn get(server: SocketAddr, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&text(server, path).await?)?)
}

/// The answer of a GET; HTTP/1.0, so that the answer ends with the connection.
pub(crate) async fn text(server: SocketAddr, path: &str) -> Result<String> {
    timeout(PATIENCE, fetch(server, path))
        .await
        .context("no HTTP answer")?
}

/// Status and JSON of any request; the answer is empty where there is none.
pub(crate) async fn ask(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(u16, Value)> {
    let mut stream = TcpStream::connect(server).await?;
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {server}\r\n");
    for (name, value) in headers {
        request = format!("{request}{name}: {value}\r\n");
    }
    let request = format!("{request}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8(answer)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("no end of the HTTP head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_default();
    Ok((status.context("no HTTP status")?, body))
}

async fn fetch(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8(answer)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("no end of the HTTP head")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
