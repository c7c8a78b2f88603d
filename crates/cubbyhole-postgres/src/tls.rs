//! TLS: verification of the server's certificate, and the client certificate.

mod client;

use std::sync::Arc;

use cubbyhole_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::conninfo::{Encryption, TlsMode};

/// The ALPN protocol name. Servers since version 17 require it with `sslnegotiation=direct`.
const ALPN: &[u8] = b"postgresql";

/// Builds the TLS connector for `mode`. Reads no file unless `is_used`, that is, unless a
/// connection may be encrypted.
pub(crate) fn connector(mode: &TlsMode, is_used: bool) -> Result<MakeRustlsConnect> {
    client_config(mode, is_used).map(MakeRustlsConnect::new)
}

fn client_config(mode: &TlsMode, is_used: bool) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&mode.versions)
        .map_err(|error| Error::internal("cannot set up TLS").with_source(error))?;
    let is_used = is_used && mode.encryption != Encryption::Disable;
    let verifies = is_used
        && match mode.encryption {
            Encryption::VerifyFull | Encryption::VerifyCa => true,
            // As in libpq, a root certificate turns `require` into `verify-ca`.
            Encryption::Require => mode.root_cert.is_some(),
            Encryption::Disable | Encryption::Prefer => false,
        };
    let authority = if verifies { Some(authority_verifier(mode, &provider)?) } else { None };
    let verifier: Arc<dyn ServerCertVerifier> = match authority {
        Some(authority) if mode.encryption == Encryption::VerifyFull => authority,
        authority => Arc::new(RelaxedVerifier { authority, provider: Arc::clone(&provider) }),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match mode.client.as_ref().filter(|_| is_used) {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let key_file = client::key_file(files)?;
            let chain = cubbyhole_tls::certificates("sslcert", &files.certificate)?;
            let key = client::key(key_file)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                Error::invalid_argument(format!(
                    "the client certificate {} does not match its private key (`sslkey`)",
                    files.certificate.display()
                ))
                .with_source(error)
            })?
        }
    };
    config.enable_sni = mode.sends_name;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Verifies certificates against the trusted authorities and the revocation list.
fn authority_verifier(
    mode: &TlsMode,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>> {
    let roots = cubbyhole_tls::trusted_roots("sslrootcert", mode.root_cert.as_deref())?;
    let mut builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(file) = &mode.revoked {
        let unreadable = |error: pem::Error| {
            let file = file.display();
            Error::invalid_argument(format!("cannot read `sslcrl` {file} as PEM"))
                .with_source(error)
        };
        let revoked = CertificateRevocationListDer::pem_file_iter(file).map_err(unreadable)?;
        builder = builder.with_crls(revoked.collect::<Result<Vec<_>, _>>().map_err(unreadable)?);
    }
    builder.build().map_err(|error| {
        Error::invalid_argument("cannot use the trusted certificates or the revocation list")
            .with_source(error)
    })
}

/// Verifies less than `verify-full`. With an authority (`verify-ca`) it verifies the signature and
/// not the name. Without one (`require`) it accepts every certificate.
#[derive(Debug)]
struct RelaxedVerifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for RelaxedVerifier {
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
        // The name is verified last, so this error means that everything else is valid.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn client_offers_the_postgresql_alpn_protocol() {
        let config = Config::from_url_alone("postgres://h").unwrap();
        let config = client_config(&config.tls, true).unwrap();
        assert_eq!(config.alpn_protocols, [b"postgresql"]);
    }
}
