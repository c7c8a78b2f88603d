//! TLS: verification of the server's certificate, and the client certificate.

use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, Result};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::Config;

/// Returns a connector that verifies the server's certificate: a trusted authority must have signed
/// it, and it must name the host.
pub(crate) fn connector(config: &Config) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots(config.root_cert.as_deref())?);
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

/// Reads at least one certificate from the file of an option.
fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error: pem::Error| {
        let message = format!("`{option}` {} cannot be read as PEM certificates", file.display());
        Error::invalid_argument(message).with_source(error)
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        let message = format!("`{option}` {} has no certificate", file.display());
        return Err(Error::invalid_argument(message));
    }
    Ok(certificates)
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

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(Error::unavailable(
                "the platform has no trusted certificates; install `ca-certificates`, or name a \
                 file with `tls_ca`",
            )
            .permanent());
        }
        return Ok(roots);
    };
    for certificate in certificates("tls_ca", file)? {
        roots.add(certificate).map_err(|error| {
            let message = format!("a certificate of `tls_ca` {} cannot be used", file.display());
            Error::invalid_argument(message).with_source(error)
        })?;
    }
    Ok(roots)
}
