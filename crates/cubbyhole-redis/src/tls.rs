//! TLS: verification of the server's certificate, and the client certificate.

use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, Result};
use cubbyhole_tls::{certificates, trusted_roots};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::TlsConnector;

use crate::config::Config;

/// Returns a connector that verifies the server's certificate: a trusted authority must have signed
/// it, and it must name the host.
pub(crate) fn connector(config: &Config) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_root_certificates(trusted_roots("tls_ca", config.root_cert.as_deref())?);
    let client = match (&config.client_cert, &config.client_key) {
        (Some(certificate), Some(key)) => client
            .with_client_auth_cert(certificates("tls_cert", certificate)?, private_key(key)?)
            .map_err(|error| unusable_pair(certificate, key, error))?,
        _ => client.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(client)))
}

fn unusable_pair(certificate: &Path, key: &Path, error: rustls::Error) -> Error {
    let (certificate, key) = (certificate.display(), key.display());
    let message = match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("`tls_key` {key} does not belong to the certificate `tls_cert` {certificate}")
        }
        _ => format!("`tls_cert` {certificate} and `tls_key` {key} cannot be used"),
    };
    Error::invalid_argument(message).with_source(error)
}

/// Reads the private key. The error of the PEM parser is dropped, because it may quote the file.
fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::Io(error) => {
            let message = format!("`tls_key` {} cannot be read", file.display());
            Error::invalid_argument(message).with_source(error)
        }
        _ => Error::invalid_argument(format!(
            "`tls_key` {} has no readable private key: use PEM (PKCS #8, PKCS #1 or SEC 1) without \
             a passphrase",
            file.display()
        )),
    })
}
