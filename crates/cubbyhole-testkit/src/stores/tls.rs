//! A certificate authority for tests, its certificates, and a TLS acceptor.

use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
pub use tokio_rustls::TlsAcceptor;

/// The serial number of the certificates that [`Authority::certify`] signs.
pub const SERIAL: u64 = 77;

/// A temporary file that is removed with its guard.
#[derive(Debug)]
pub struct TempFile(PathBuf);

impl TempFile {
    /// Writes a new file.
    #[must_use]
    pub fn write(text: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, SeqCst);
        let name = format!("cubbyhole-test-{}-{number}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Deref for TempFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// A certificate authority, with its own certificate in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: TempFile,
}

impl Authority {
    /// Generates an authority with that common name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = TempFile::write(&params.self_signed(&key).unwrap().pem());
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Returns the file with the authority's certificate, in PEM.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the key and name that sign certificates.
    #[must_use]
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// Signs a certificate for a host name, or for a client of that name.
    #[must_use]
    pub fn certify(&self, name: &str) -> Certified {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.serial_number = Some(SERIAL.into());
        Certified { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// Returns the server side of TLS, with a certificate for `name`.
    #[must_use]
    pub fn acceptor(&self, name: &str) -> TlsAcceptor {
        self.certify(name).acceptor()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("file", &self.file.0).finish_non_exhaustive()
    }
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Certified {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key.
    pub key: KeyPair,
}

impl Certified {
    /// Signs a certificate with those parameters with its own key.
    #[must_use]
    pub fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    /// Returns the server side of TLS with this certificate.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![self.certificate.der().clone()],
                PrivateKeyDer::try_from(self.key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Writes both to files, in PEM.
    #[must_use]
    pub fn to_files(&self) -> CertifiedFiles {
        CertifiedFiles {
            certificate: TempFile::write(&self.certificate.pem()),
            key: TempFile::write(&self.key.serialize_pem()),
        }
    }
}

/// A certificate and its key in files, which are removed with this guard.
#[derive(Debug)]
pub struct CertifiedFiles {
    /// The certificate.
    pub certificate: TempFile,
    /// Its private key.
    pub key: TempFile,
}
