//! Encrypted connections: what is checked of the server's certificate.

use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::RedisConfig;

/// Makes connections encrypted. An authority that is trusted must have signed the certificate, and
/// it must name the host.
pub(crate) fn connector(config: &RedisConfig) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots(config.root_cert.as_deref())?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(client)))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(Error::unavailable(
                "the platform has no trusted certificates; install them (`ca-certificates`), or \
                 name a file with `tls_ca`",
            )
            .permanent());
        }
        return Ok(roots);
    };
    let unreadable = |error: rustls::pki_types::pem::Error| {
        let message = format!("`tls_ca` {} cannot be read as PEM certificates", file.display());
        Error::invalid_argument(message).with_source(error)
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(|error| {
            Error::invalid_argument("a certificate of `tls_ca` cannot be used").with_source(error)
        })?;
    }
    if roots.is_empty() {
        let message = format!("`tls_ca` {} holds no certificate", file.display());
        return Err(Error::invalid_argument(message));
    }
    Ok(roots)
}
