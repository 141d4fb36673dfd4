//! What a request brings ([`Credentials`]) and what a client answers ([`Challenge`]).

use super::params::{Params, quoted};
use super::{Algorithm, Unusable};
use std::fmt;

/// The value of an Authorization or Proxy-Authorization header. `Display` writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub realm: String,
    pub nonce: String,
    /// Byte for byte as sent, escapes included.
    pub uri: String,
    pub(super) response: String,
    pub(super) algorithm: Option<String>,
    pub(super) qop: Option<String>,
    pub(super) nc: Option<String>,
    pub(super) cnonce: Option<String>,
    pub(super) opaque: Option<String>,
}

impl Credentials {
    /// Reads a header value. `None` if it is not Digest, lacks a mandatory parameter, repeats one, or is over 4096 bytes:
    /// the request then counts as one without credentials.
    pub fn parse(value: &str) -> Option<Credentials> {
        let params = Params::parse(value)?;
        Some(Credentials {
            username: params.text("username")?,
            realm: params.text("realm")?,
            nonce: params.text("nonce")?,
            uri: params.raw("uri")?.to_owned(),
            response: params.text("response")?,
            algorithm: params.text("algorithm"),
            qop: params.text("qop"),
            nc: params.text("nc"),
            cnonce: params.text("cnonce"),
            opaque: params.text("opaque"),
        })
    }

    /// Absent means MD5 (RFC 7616 §3.4); `None` is one we do not know.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        match &self.algorithm {
            Some(name) => Algorithm::parse(name),
            None => Some(Algorithm::Md5),
        }
    }

    /// The nonce count of an answer with qop, `None` for one without.
    pub(super) fn nc(&self) -> Result<Option<u32>, Unusable> {
        let Some(qop) = &self.qop else {
            return Ok(None);
        };
        if !qop.eq_ignore_ascii_case("auth") {
            return Err(Unusable::Qop);
        }
        let nc = self.nc.as_deref().filter(|nc| nc.len() == 8);
        let nc = nc.filter(|nc| nc.bytes().all(|b| b.is_ascii_hexdigit()));
        let nc = nc.and_then(|nc| u32::from_str_radix(nc, 16).ok());
        match (nc, &self.cnonce) {
            (Some(nc), Some(_)) => Ok(Some(nc)),
            _ => Err(Unusable::Incomplete),
        }
    }

    /// The response that `password` gives (RFC 7616 §3.4.1; without qop RFC 2069 §2.1.2).
    pub(super) fn expect(&self, algorithm: Algorithm, method: &str, password: &str) -> String {
        let ha1 = algorithm.hash(&[&self.username, &self.realm, password]);
        let ha2 = algorithm.hash(&[method, &self.uri]);
        match &self.qop {
            Some(qop) => {
                let nc = self.nc.as_deref().unwrap_or_default();
                let cnonce = self.cnonce.as_deref().unwrap_or_default();
                algorithm.hash(&[&ha1, &self.nonce, nc, cnonce, qop, &ha2])
            }
            None => algorithm.hash(&[&ha1, &self.nonce, &ha2]),
        }
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (username, realm, nonce) = (quoted(&self.username), quoted(&self.realm), quoted(&self.nonce));
        write!(f, "Digest username={username}, realm={realm}, nonce={nonce}")?;
        write!(f, ", uri=\"{}\", response=\"{}\"", self.uri, self.response)?;
        if let Some(algorithm) = &self.algorithm {
            write!(f, ", algorithm={algorithm}")?;
        }
        if let (Some(qop), Some(nc), Some(cnonce)) = (&self.qop, &self.nc, &self.cnonce) {
            write!(f, ", qop={qop}, nc={nc}, cnonce={}", quoted(cnonce))?;
        }
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", quoted(opaque))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .field("uri", &self.uri)
            .field("algorithm", &self.algorithm)
            .field("qop", &self.qop)
            .finish_non_exhaustive()
    }
}

/// A challenge as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub algorithm: Algorithm,
    /// The server knows `qop=auth`; else the answer goes without qop.
    pub auth: bool,
    /// The password was not the problem: answer the new nonce.
    pub stale: bool,
    pub(super) opaque: Option<String>,
}

impl Challenge {
    /// Reads the value of a WWW-Authenticate or Proxy-Authenticate header. `None` if it is not Digest, is malformed, or asks
    /// for an algorithm or a qop that we do not know; another header of the response may do (RFC 8760 §2.3).
    pub fn parse(value: &str) -> Option<Challenge> {
        let params = Params::parse(value)?;
        let qop = params.text("qop");
        let mut qops = qop.iter().flat_map(|list| list.split(','));
        let auth = qops.any(|qop| qop.trim_ascii().eq_ignore_ascii_case("auth"));
        if qop.is_some() && !auth {
            return None;
        }
        Some(Challenge {
            realm: params.text("realm")?,
            nonce: params.text("nonce")?,
            algorithm: match params.text("algorithm") {
                Some(name) => Algorithm::parse(&name)?,
                None => Algorithm::Md5,
            },
            auth,
            stale: params.text("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            opaque: params.text("opaque"),
        })
    }

    /// The value of the Authorization or Proxy-Authorization header that answers it. `uri` is written as digest-uri; `nc`
    /// counts the answers to this nonce from 1; `cnonce` is the caller's randomness.
    pub fn answer(&self, method: &str, uri: &str, username: &str, password: &str, cnonce: &str, nc: u32) -> String {
        let mut credentials = Credentials {
            username: username.to_owned(),
            realm: self.realm.clone(),
            nonce: self.nonce.clone(),
            uri: uri.to_owned(),
            response: String::new(),
            algorithm: Some(self.algorithm.name().to_owned()),
            qop: self.auth.then(|| "auth".to_owned()),
            nc: self.auth.then(|| format!("{nc:08x}")),
            cnonce: self.auth.then(|| cnonce.to_owned()),
            opaque: self.opaque.clone(),
        };
        credentials.response = credentials.expect(self.algorithm, method, password);
        credentials.to_string()
    }
}
