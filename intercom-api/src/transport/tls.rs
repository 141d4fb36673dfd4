//! The certificate of `tls.cert` and `tls.key`, and its exchange on SIGHUP: connections made before keep what they have, new
//! handshakes use the new one, and files that do not fit leave the old one in force.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a shell: read by the tasks of connections

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// The server's side of every TLS handshake.
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads both files; the error names the one that is wrong.
    pub fn load(cert: &Path, key: &Path) -> Result<Tls, String> {
        Ok(Tls { cert: cert.to_owned(), key: key.to_owned(), current: RwLock::new(read(cert, key)?) })
    }

    /// Reads them again.
    pub fn reload(&self) -> Result<(), String> {
        let fresh = read(&self.cert, &self.key)?;
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let wrong = |path: &Path, what: String| format!("{}: {what}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(cert, format!("no certificate can be read: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(cert, "holds no certificate".into()));
    }
    // The error of a key file never shows its contents.
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, format!("no key can be read: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(cert, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong(cert, format!("certificate and key do not fit: {error}")))?;
    Ok(Arc::new(config))
}
