//! Certificates for the network backends of Cubbyhole.
//!
//! Each function takes the name of the URL option that names the file, as `sslrootcert` or `tls_ca`.
//! Error messages name the option and the file.

use std::path::Path;

use cubbyhole_core::{Error, Result};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// Reads the certificates of a PEM file.
///
/// # Errors
/// `InvalidArgument` if the file cannot be read, is not PEM or contains no certificate.
///
/// ```
/// use std::path::Path;
///
/// let missing = cubbyhole_tls::certificates("tls_cert", Path::new("missing.pem"));
/// assert!(missing.unwrap_err().to_string().contains("`tls_cert` missing.pem"));
/// ```
pub fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error: pem::Error| {
        let message = format!("cannot read `{option}` {} as PEM certificates", file.display());
        Error::invalid_argument(message).with_source(error)
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        let message = format!("`{option}` {} contains no PEM certificate", file.display());
        return Err(Error::invalid_argument(message));
    }
    Ok(certificates)
}

/// Reads the trusted authorities from a PEM file, or from the platform without a file.
///
/// # Errors
/// - `InvalidArgument` if the file cannot be read or contains no usable certificate.
/// - `Unavailable` if there is no file and the platform has no trusted certificate.
///
/// ```
/// # fn main() -> cubbyhole_core::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let file = folder.path().join("ca.pem");
/// # std::fs::write(&file, "no certificate").unwrap();
/// let error = cubbyhole_tls::trusted_roots("tls_ca", Some(&file)).unwrap_err();
/// assert!(error.to_string().contains("contains no PEM certificate"));
/// # Ok(())
/// # }
/// ```
pub fn trusted_roots(option: &str, file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let message = format!(
                "the platform has no trusted certificates; install `ca-certificates`, or name a \
                 file with `{option}`"
            );
            return Err(Error::unavailable(message).permanent());
        }
        return Ok(roots);
    };
    for certificate in certificates(option, file)? {
        roots.add(certificate).map_err(|error| {
            let message = format!("cannot use a certificate in `{option}` {}", file.display());
            Error::invalid_argument(message).with_source(error)
        })?;
    }
    Ok(roots)
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
