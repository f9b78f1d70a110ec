//! One request, one answer.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
pub(crate) use hyper::Method;
use hyper::{
    Request, Uri,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

use super::failure::Failure;

/// Longer than the server takes at most.
const PATIENCE: Duration = Duration::from_secs(35);
/// A page of a thousand large devices has a few MiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// An answer; the body is null if it is not JSON.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// A client of one server.
pub(crate) struct Client {
    server: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(server: &str) -> Result<Self, Failure> {
        // HOST:PORT is what people type at night.
        let scheme = if server.contains("://") {
            ""
        } else {
            "http://"
        };
        let server = format!("{scheme}{}", server.trim_end_matches('/'));
        let uri: Uri = server
            .parse()
            .map_err(|error| Failure::Usage(format!("--server {server}: {error}")))?;
        if uri.scheme_str() != Some("http") || uri.path().len() > 1 {
            let detail = "must be http://HOST:PORT; reach a remote node through a tunnel";
            return Err(Failure::Usage(format!("--server {server}: {detail}")));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        Ok(Self {
            server,
            pool: Pool::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Reads; anything but a success is a failure.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<Value, Failure> {
        self.send(Method::GET, path, query, None, None).await
    }

    /// Asks; anything but a success is a failure.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&'static str, String)],
        body: Option<Value>,
        if_version: Option<u64>,
    ) -> Result<Value, Failure> {
        let reply = self.ask(method, path, query, body, if_version).await?;
        if (200..300).contains(&reply.status) {
            Ok(reply.body)
        } else {
            Err(Failure::of_answer(reply.status, &reply.body))
        }
    }

    /// Asks and gives back whatever is answered.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&'static str, String)],
        body: Option<Value>,
        if_version: Option<u64>,
    ) -> Result<Reply, Failure> {
        let content_type = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let mut request = Request::builder().method(method).uri(self.uri(path, query));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(version) = if_version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        match timeout(PATIENCE, self.exchange(request)).await {
            Ok(reply) => reply,
            Err(_elapsed) => Err(self.no_answer("no answer in time")),
        }
    }

    /// Reads an answer that may be long, piece by piece, however long it takes.
    pub(crate) async fn stream(&self, path: &[&str]) -> Result<Incoming, Failure> {
        let request = Request::get(self.uri(path, &[]))
            .body(Full::default())
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let answer = timeout(PATIENCE, self.pool.request(request)).await;
        let response = answer
            .map_err(|_elapsed| self.no_answer("no answer in time"))?
            .map_err(|error| self.no_answer(causes(&error)))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response.into_body());
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| self.no_answer(error.to_string()))?
            .to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Err(Failure::of_answer(status, &body))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, Failure> {
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|error| self.no_answer(causes(&error)))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| self.no_answer(error.to_string()))?
            .to_bytes();
        Ok(Reply {
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    fn uri(&self, path: &[&str], query: &[(&'static str, String)]) -> String {
        let mut uri = self.server.clone();
        for segment in path {
            uri.push('/');
            escape(segment, &mut uri);
        }
        for (index, (name, value)) in query.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            escape(value, &mut uri);
        }
        uri
    }

    fn no_answer(&self, detail: impl Into<String>) -> Failure {
        Failure::NoAnswer {
            server: self.server.clone(),
            detail: detail.into(),
        }
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters, so that no name can leave its segment.
fn escape(text: &str, out: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(DIGITS.get(usize::from(byte >> 4)));
            out.extend(DIGITS.get(usize::from(byte & 15)));
        }
    }
}

/// The innermost cause says what people can act on: "connection refused", not "client error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        let client = Client::new("http://localhost:1/").expect("valid");
        let uri = client.uri(&["clients", "a/../b?x=ü"], &[("tag", "a=b&c".to_owned())]);
        assert_eq!(
            uri,
            "http://localhost:1/clients/a%2F..%2Fb%3Fx%3D%C3%BC?tag=a%3Db%26c"
        );
    }

    #[test]
    fn a_server_is_a_plain_http_origin() {
        for bad in [
            "https://localhost",
            "localhost:8080/api",
            "http://localhost/api",
            "http://",
        ] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
        let short = Client::new("localhost:8080").expect("an address is enough");
        assert_eq!(short.uri(&["livez"], &[]), "http://localhost:8080/livez");
    }
}
