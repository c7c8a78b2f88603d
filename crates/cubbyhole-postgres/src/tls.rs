//! Encrypted connections: what is checked of the server's certificate.

use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Encryption, TlsMode};

/// What makes connections encrypted, as `mode` asks.
pub(crate) fn connector(mode: &TlsMode) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?;
    let root_cert = mode.root_cert.as_deref();
    let config = match mode.encryption {
        Encryption::VerifyFull => {
            builder.with_root_certificates(roots(root_cert)?).with_no_client_auth()
        }
        // As with libpq, certificates that are named are checked also where that was not asked.
        Encryption::VerifyCa | Encryption::Require
            if mode.encryption == Encryption::VerifyCa || root_cert.is_some() =>
        {
            let inner = WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots(root_cert)?),
                Arc::clone(&provider),
            )
            .build()
            .map_err(|error| {
                Error::invalid_argument("the trusted certificates cannot be used")
                    .with_source(error)
            })?;
            let verifier = Arc::new(Lenient { authority: Some(inner), provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Encryption::Disable | Encryption::Prefer | Encryption::Require | Encryption::VerifyCa => {
            let verifier = Arc::new(Lenient { authority: None, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(Error::unavailable(
                "the platform has no trusted certificates; install them (`ca-certificates`), or \
                 name a file with `sslrootcert`",
            )
            .permanent());
        }
        return Ok(roots);
    };
    let unreadable = |error: rustls::pki_types::pem::Error| {
        Error::invalid_argument(format!(
            "`sslrootcert` {} cannot be read as PEM certificates",
            file.display()
        ))
        .with_source(error)
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(|error| {
            Error::invalid_argument("a certificate of `sslrootcert` cannot be used")
                .with_source(error)
        })?;
    }
    if roots.is_empty() {
        let message = format!("`sslrootcert` {} holds no certificate", file.display());
        return Err(Error::invalid_argument(message));
    }
    Ok(roots)
}

/// Checks that an authority signed the certificate, where there is one to check against, and not
/// whose name is on it: `verify-ca`, or `require`, which encrypts and no more.
#[derive(Debug)]
struct Lenient {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is checked last: an error about it means that all else is in order.
        match authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
