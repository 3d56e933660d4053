//! TLS with a certificate chain and a key in PEM.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Access, ConfigError};

/// What secures connections; none when no files are named.
///
/// # Errors
/// Names the file that cannot be read, or does not go with the other.
pub(crate) fn acceptor(access: &Access) -> Result<Option<TlsAcceptor>, ConfigError> {
    let (Some(certificate), Some(key)) = (&access.tls_certificate, &access.tls_key) else { return Ok(None) };
    let wrong = |path: &Path, problem: String| ConfigError::new(path.display().to_string(), problem);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, format!("is no certificate chain in PEM: {error}")))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, format!("is no private key in PEM: {error}")))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|error| wrong(certificate, format!("cannot be used with {}: {error}", key.display())))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
