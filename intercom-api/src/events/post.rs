//! One POST to a receiver: HTTP/1.1, over TLS if its URL says so, redirects not followed. One connection is kept as long as it
//! works.

#![allow(clippy::disallowed_methods)] // a shell: sockets and deadlines

use axum::http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::{Request, Uri};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use sha2::Sha256;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// From the first packet to the end of the answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Longest URL.
pub const MAX_URL: usize = 512;
/// What a receiver answers beyond the status is read so far, for the connection to go on.
const MAX_ANSWER: usize = 64 * 1024;

/// A receiver's URL, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
    /// `host` or `host:port`, as the URL has it.
    authority: String,
    path: String,
}

impl Address {
    /// An error: what is wrong with it. A URL is shown to people, so it holds no password.
    pub fn parse(url: &str) -> Result<Address, &'static str> {
        if url.chars().count() > MAX_URL {
            return Err("url is longer than 512 characters");
        }
        let uri: Uri = url.parse().map_err(|_| "url is not a URL")?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("url does not begin with http:// or https://"),
        };
        let authority = uri.authority().ok_or("url has no host")?;
        if authority.as_str().contains('@') {
            return Err("url holds a user or password");
        }
        let odd_port = authority.as_str().len() > authority.host().len() && authority.port_u16().is_none();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || odd_port {
            return Err("url has no host, or an odd port");
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Address { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

/// `sha256=` and HMAC-SHA256 in hex over the moment, a dot and the body.
pub fn signature(secret: &str, timestamp_ms: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap_or_else(|_| unreachable!());
    mac.update(timestamp_ms.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let mut text = String::from("sha256=");
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A receiver, and the connection to it.
pub struct Post {
    address: Address,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Post {
    pub fn new(address: Address) -> Post {
        Post { address, open: None }
    }

    /// The status; an error says in few words why there is none.
    pub async fn send(&mut self, headers: &[(&'static str, String)], body: &str) -> Result<u16, String> {
        let result = tokio::time::timeout(PATIENCE, self.try_send(headers, body)).await;
        let result = result.unwrap_or_else(|_| Err("no answer within 5 s".to_owned()));
        if result.is_err() {
            self.open = None;
        }
        result
    }

    async fn try_send(&mut self, headers: &[(&'static str, String)], body: &str) -> Result<u16, String> {
        let kept = self.open.take();
        if let Some(mut kept) = kept
            && kept.ready().await.is_ok()
            && let Ok(status) = self.exchange(kept, headers, body).await
        {
            return Ok(status);
        }
        // The receiver has closed it meanwhile, or there was none.
        let fresh = self.connect().await?;
        self.exchange(fresh, headers, body).await
    }

    async fn exchange(
        &mut self,
        mut connection: SendRequest<Full<Bytes>>,
        headers: &[(&'static str, String)],
        body: &str,
    ) -> Result<u16, String> {
        let mut request = Request::post(&self.address.path)
            .header(HOST, &self.address.authority)
            .header(USER_AGENT, concat!("Doorline/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|_| "an odd URL".to_owned())?;
        let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        if Limited::new(answer.into_body(), MAX_ANSWER).collect().await.is_ok() {
            self.open = Some(connection);
        }
        Ok(status)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let Address { tls, host, port, .. } = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| error.kind().to_string())?;
        let _ = stream.set_nodelay(true);
        if !tls {
            return serve(stream).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| "no name for TLS".to_owned())?;
        let stream = TlsConnector::from(trusting()).connect(name, stream).await.map_err(|error| error.to_string())?;
        serve(stream).await
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // Its end is told to whoever sends on it.
        let _ = connection.await;
    });
    Ok(sender)
}

/// Trusts whom this machine trusts (its certificate store, also a company's own authority). Read once, when the first needs it.
pub fn trusting() -> Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let make = || {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(
                "this machine has no certificates to trust (package ca-certificates): https receivers are not reached"
            );
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        // The provider has both versions.
        let builder = builder.unwrap_or_else(|_| unreachable!());
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    CONFIG.get_or_init(make).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_without_passwords() {
        let good = Address::parse("https://hooks.example.com/a?b=c").unwrap();
        assert_eq!((good.tls, good.host.as_str(), good.port, good.path.as_str()), (true, "hooks.example.com", 443, "/a?b=c"));
        let six = Address::parse("http://[::1]:8000").unwrap();
        assert_eq!((six.tls, six.host.as_str(), six.port, six.path.as_str()), (false, "::1", 8000, "/"));
        let long = format!("http://a/{}", "x".repeat(MAX_URL));
        for bad in ["", "/path", "ftp://a/", "http://", "http://u:p@a/", "http://u@a/", "http://a:99999/", "http://a b/", &long] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    /// The vector of the README; `printf '%s' '1700000000000.{"id":"1"}' | openssl dgst -sha256 -hmac secret` says the same.
    #[test]
    fn a_body_is_signed_so_that_anybody_can_check_it() {
        assert_eq!(
            signature("secret", 1_700_000_000_000, r#"{"id":"1"}"#),
            "sha256=c1effdcf6986703e8ee1e898e44d372c4dd456b29af173ad82eb3a401a27acac"
        );
    }
}
