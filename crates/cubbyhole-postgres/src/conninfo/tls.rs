//! libpq's TLS parameters, with the files in `~/.postgresql` as defaults.

use std::path::PathBuf;

use cubbyhole_core::{Error, Result};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::environment::Environment;
use super::parameters::Parameters;

/// Encryption, verification of the server's certificate, and the client certificate.
#[derive(Debug, Clone)]
pub(crate) struct TlsMode {
    pub(crate) encryption: Encryption,
    /// The file of trusted certificates. `None` selects the platform's certificates.
    pub(crate) root_cert: Option<PathBuf>,
    /// The file of revoked certificates.
    pub(crate) revoked: Option<PathBuf>,
    pub(crate) client: Option<ClientFiles>,
    /// Whether to send the server's name unencrypted (SNI).
    pub(crate) sends_name: bool,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

/// The files of the client certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    pub(crate) certificate: PathBuf,
    /// Using the certificate without a key is an error.
    pub(crate) key: Option<PathBuf>,
}

/// libpq's `sslmode`. `allow` is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl TlsMode {
    pub(crate) fn new(parameters: &Parameters, environment: &Environment) -> Result<Self> {
        let advice = "write `disable`, `prefer`, `require`, `verify-ca` or `verify-full`";
        let encryption = parameters.parsed("sslmode", advice, encryption)?;
        let (root_cert, from_platform) = match parameters.text("sslrootcert")? {
            Some(("system", _)) => (None, true),
            Some((file, _)) => (Some(PathBuf::from(file)), false),
            None => (environment.file_of_user("root.crt"), false),
        };
        let encryption = match encryption {
            None if from_platform => Encryption::VerifyFull,
            None => Encryption::Prefer,
            // Anyone can get a certificate from a public authority, so only the name identifies the
            // server.
            Some(weaker) if from_platform && weaker != Encryption::VerifyFull => {
                return Err(Error::invalid_argument(
                    "`sslrootcert=system` requires `sslmode=verify-full`: anyone can get a certificate \
                     from a public authority, so the name must be verified",
                ));
            }
            Some(encryption) => encryption,
        };
        if let Some(("direct", origin)) = parameters.text("sslnegotiation")?
            && matches!(encryption, Encryption::Disable | Encryption::Prefer)
        {
            let advice = "`direct` requires `sslmode=require`, `verify-ca` or `verify-full`";
            return Err(origin.invalid("sslnegotiation", advice));
        }
        let on_off = |name| parameters.parsed(name, "write `1` or `0`", zero_or_one);
        Ok(Self {
            encryption,
            root_cert,
            revoked: file(parameters, environment, "sslcrl", "root.crl")?,
            client: client(parameters, environment)?,
            sends_name: on_off("sslsni")?.unwrap_or(true),
            versions: versions(parameters)?,
        })
    }
}

/// The file that the parameter `name` sets, or the user's default file if it exists.
fn file(
    parameters: &Parameters,
    environment: &Environment,
    name: &str,
    default: &str,
) -> Result<Option<PathBuf>> {
    Ok(match parameters.text(name)? {
        Some((file, _)) => Some(PathBuf::from(file)),
        None => environment.file_of_user(default),
    })
}

fn client(parameters: &Parameters, environment: &Environment) -> Result<Option<ClientFiles>> {
    let advice = "write `allow` or `disable`; `require` is not supported";
    let mode = parameters.parsed("sslcertmode", advice, |mode| match mode {
        "allow" => Some(true),
        "disable" => Some(false),
        _ => None,
    })?;
    if mode == Some(false) {
        return Ok(None);
    }
    let certificate = file(parameters, environment, "sslcert", "postgresql.crt")?;
    let key = file(parameters, environment, "sslkey", "postgresql.key")?;
    Ok(certificate.map(|certificate| ClientFiles { certificate, key }))
}

fn versions(parameters: &Parameters) -> Result<Vec<&'static SupportedProtocolVersion>> {
    const OLD: [&str; 2] = ["TLSv1", "TLSv1.1"];
    let advice = "write `TLSv1.2` or `TLSv1.3`";
    let min = parameters.parsed("ssl_min_protocol_version", advice, |version| match version {
        // The minimum here is TLS 1.2, so these versions have no effect.
        _ if OLD.contains(&version) => Some(2),
        _ => minor_version(version),
    })?;
    let max = parameters.parsed("ssl_max_protocol_version", advice, minor_version)?;
    let (min, max) = (min.unwrap_or(2), max.unwrap_or(3));
    let versions = [(2, &TLS12), (3, &TLS13)].into_iter();
    let versions: Vec<_> = versions
        .filter(|(minor, _)| (min..=max).contains(minor))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        return Err(Error::invalid_argument(
            "`ssl_min_protocol_version` is above `ssl_max_protocol_version`",
        ));
    }
    Ok(versions)
}

fn minor_version(version: &str) -> Option<u8> {
    match version {
        "TLSv1.2" => Some(2),
        "TLSv1.3" => Some(3),
        _ => None,
    }
}

fn encryption(value: &str) -> Option<Encryption> {
    Some(match value {
        "disable" => Encryption::Disable,
        "prefer" => Encryption::Prefer,
        "require" => Encryption::Require,
        "verify-ca" => Encryption::VerifyCa,
        "verify-full" => Encryption::VerifyFull,
        _ => return None,
    })
}

fn zero_or_one(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}
