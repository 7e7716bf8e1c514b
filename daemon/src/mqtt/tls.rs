//! TLS by rustls with ring: who may vouch for the broker, and who we are.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Where Debian and its relatives keep the system's certificate authorities.
const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read or holds nothing of use.
    #[error("{key} {path} is not usable: {reason}")]
    File {
        /// Which setting.
        key: &'static str,
        /// Its file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not go together, or are of an unknown kind.
    #[error("the client certificate and key are not usable: {0}")]
    Client(#[source] rustls::Error),
}

/// A client configuration: TLS 1.2 and 1.3, the broker checked against `ca_file` (empty: the system's), with a client
/// certificate if `client_cert` is not empty.
///
/// # Errors
/// [`TlsError`] if a file is missing, unreadable or holds nothing of use.
pub fn client_config(
    ca_file: &Path,
    client_cert: &Path,
    client_key: &Path,
) -> Result<Arc<ClientConfig>, TlsError> {
    let ca_file = if ca_file.as_os_str().is_empty() { Path::new(SYSTEM_CA_FILE) } else { ca_file };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates("ca_file", ca_file)?);
    if added == 0 {
        return Err(file_error("ca_file", ca_file, "it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Client)?
        .with_root_certificates(roots);
    if client_cert.as_os_str().is_empty() {
        return Ok(Arc::new(builder.with_no_client_auth()));
    }
    let chain = certificates("client_cert", client_cert)?;
    if chain.is_empty() {
        return Err(file_error("client_cert", client_cert, "it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(client_key)
        .map_err(|error| file_error("client_key", client_key, error))?;
    builder.with_client_auth_cert(chain, key).map(Arc::new).map_err(TlsError::Client)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(key, path, error))
}

fn file_error(key: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File { key, path: path.display().to_string(), reason: reason.to_string() }
}
