//! Client certificates, on a server that requires them, and revoked server certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cubbyhole_core::{ErrorKind, Result, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, ctx, ns, until};
use cubbyhole_testkit::tls::{Authority, SERIAL};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, KeyIdMethod, KeyPair,
    RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tokio::task::block_in_place;

use crate::encryption::server_with_tls;
use crate::support::Schema;

struct TlsServer {
    _server: PostgresServer,
    schema: Schema,
    authority: Authority,
    files: tempfile::TempDir,
}

impl TlsServer {
    /// A server whose `pg_hba.conf` accepts the application's role only with TLS and `rule`.
    async fn new(rule: &str) -> Self {
        let rules =
            |login: &str| format!("hostssl all {login} all {rule}\nhost all {login} all reject\n");
        Self::with_rules(rules).await
    }

    /// A server with rules in `pg_hba.conf` for the application's role. They must reject TLS
    /// connections without a client certificate.
    async fn with_rules(own_rules: impl Fn(&str) -> String) -> Self {
        let authority = Authority::new("the one");
        let (server, schema) = server_with_tls(&authority).await;
        let hba = block_in_place(|| server.psql("SHOW hba_file")).unwrap();
        let rules = fs::read_to_string(&hba).unwrap();
        let login = format!("{}_login", schema.name);
        fs::write(&hba, format!("{}{rules}", own_rules(&login))).unwrap();
        schema.execute("SELECT pg_reload_conf()").await;
        let files = tempfile::TempDir::new().unwrap();
        let tls = Self { _server: server, schema, authority, files };
        // The server has loaded the new rules when it rejects the connection.
        let without_certificate = tls.url("");
        until("the new rules", async || open(&without_certificate).await.is_err()).await;
        tls
    }

    fn url(&self, options: &str) -> String {
        let root = self.authority.file().display();
        let url = self.schema.url(&format!("&sslmode=verify-full&sslrootcert={root}{options}"));
        url.replace("127.0.0.1", "localhost")
    }

    /// Issues a certificate for the role `name`, with its key.
    fn certify(&self, name: &str) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, self.authority.issuer()).unwrap().pem(), key)
    }

    /// Writes both files and returns the URL options for them.
    fn options(&self, name: &str, certificate: &str, key: &str) -> String {
        let certificate = self.write(&format!("{name}.crt"), certificate);
        let key = self.write(&format!("{name}.key"), key);
        format!("&sslcert={}&sslkey={}", certificate.display(), key.display())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.files.path().join(name);
        fs::write(&file, text).unwrap();
        set_mode(&file, 0o600);
        file
    }
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

async fn open(url: &str) -> Result<()> {
    let store = PostgresStore::open(&ctx(), Config::from_url(url)?).await?;
    store.get(&ctx(), &ns("acme"), "k").await.map(drop)
}

/// A client certificate replaces the password.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_authenticates_the_role_that_it_names() {
    let tls = TlsServer::new("cert").await;
    let login = format!("{}_login", tls.schema.name);
    let (certificate, key) = tls.certify(&login);
    let right = tls.options("right", &certificate, &key.serialize_pem());
    let without_password = tls.url(&right).replace(&format!(":{PASSWORD}"), "");
    open(&without_password).await.unwrap();

    let (certificate, key) = tls.certify("another_role");
    let other = tls.options("other", &certificate, &key.serialize_pem());
    let error = open(&tls.url(&other)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let unsent = tls.url(&format!("{right}&sslcertmode=disable"));
    let error = open(&unsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

/// A client certificate in addition to the password, with keys in each PEM format.
#[tokio::test(flavor = "multi_thread")]
async fn private_keys_are_read_in_each_format_and_rejected_if_unsafe() {
    let tls = TlsServer::new("scram-sha-256 clientcert=verify-full").await;
    let login = format!("{}_login", tls.schema.name);
    let (certificate, key) = tls.certify(&login);
    let pkcs8 = tls.options("pkcs8", &certificate, &key.serialize_pem());
    open(&tls.url(&pkcs8)).await.unwrap();
    // The same key in SEC1.
    let sec1 = tls.files.path().join("sec1.pem");
    let pkcs8_file = tls.files.path().join("pkcs8.key");
    openssl(&["ec", "-in", text(&pkcs8_file), "-out", text(&sec1)]);
    let sec1 = fs::read_to_string(sec1).unwrap();
    assert!(sec1.contains("BEGIN EC PRIVATE KEY"));
    open(&tls.url(&tls.options("sec1", &certificate, &sec1))).await.unwrap();

    let file = tls.files.path().join("pkcs8.key");
    set_mode(&file, 0o644);
    let error = open(&tls.url(&pkcs8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    assert!(error.message().contains("chmod"), "{error}");
    set_mode(&file, 0o600);
    let encrypted = tls.files.path().join("encrypted.pem");
    let pass = format!("pass:{PASSWORD}");
    let (from, to) = (text(&file), text(&encrypted));
    openssl(&["pkey", "-aes256", "-in", from, "-out", to, "-passout", &pass]);
    let encrypted = fs::read_to_string(encrypted).unwrap();
    let options = tls.options("encrypted", &certificate, &encrypted);
    let error = open(&tls.url(&options)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.message().contains("is encrypted"), "{error}");
    let (_, another) = tls.certify(&login);
    for (name, certificate, key, expected) in [
        ("mixed", &certificate, another.serialize_pem(), "does not match its private key"),
        ("empty", &String::new(), key.serialize_pem(), "no PEM certificate"),
        ("no-key", &certificate, certificate.clone(), "no PEM private key"),
    ] {
        let options = tls.options(name, certificate, &key);
        let error = open(&tls.url(&options)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
        assert!(error.message().contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("PRIVATE KEY"), "{error:?}");
    }
    let missing = tls.url("&sslcert=/no/such.crt&sslkey=/no/such.key");
    let error = open(&missing).await.unwrap_err();
    assert!(error.message().contains("/no/such.crt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_an_unknown_authority_is_rejected() {
    let mut tls = TlsServer::new("scram-sha-256 clientcert=verify-ca").await;
    let login = format!("{}_login", tls.schema.name);
    let unknown = Authority::new("another one");
    let known = std::mem::replace(&mut tls.authority, unknown);
    let (certificate, key) = tls.certify(&login);
    tls.authority = known;
    let options = tls.options("unknown", &certificate, &key.serialize_pem());
    // With TLS 1.2, the server rejects the certificate during the handshake.
    let url = tls.url(&format!("{options}&ssl_max_protocol_version=TLSv1.2"));
    let error = open(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(!error.is_retryable() && error.message().contains("sslcert"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_prefer_falls_back_to_no_tls() {
    let rules = |login: &str| {
        format!("hostnossl all {login} all scram-sha-256\nhost all {login} all reject\n")
    };
    let tls = TlsServer::with_rules(rules).await;
    open(&tls.schema.url("&sslmode=prefer")).await.unwrap();
    let required = tls.schema.url("&sslmode=require");
    let error = open(&required).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");

    // The handshake fails, because client and server have no TLS version in common.
    tls.schema.execute("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.3'").await;
    tls.schema.execute("SELECT pg_reload_conf()").await;
    let old = format!("{required}&ssl_max_protocol_version=TLSv1.2");
    until("the new version", async || {
        open(&old).await.unwrap_err().message().contains("rejects the TLS connection")
    })
    .await;
    open(&old.replace("sslmode=require", "sslmode=prefer")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_server_certificate_is_rejected() {
    let tls = TlsServer::new("scram-sha-256 clientcert=verify-ca").await;
    let login = format!("{}_login", tls.schema.name);
    let (certificate, key) = tls.certify(&login);
    let options = tls.options("client", &certificate, &key.serialize_pem());
    let list = |revoked: Vec<RevokedCertParams>| {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(tls.authority.issuer()).unwrap().pem().unwrap()
    };
    let file = tls.write("none.crl", &list(Vec::new()));
    open(&tls.url(&format!("{options}&sslcrl={}", file.display()))).await.unwrap();
    let revoked = RevokedCertParams {
        serial_number: SERIAL.into(),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let file = tls.write("server.crl", &list(vec![revoked]));
    let error = open(&tls.url(&format!("{options}&sslcrl={}", file.display()))).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(error.message().contains("certificate is not accepted"), "{error}");
}

fn text(file: &Path) -> &str {
    file.to_str().unwrap()
}

fn openssl(arguments: &[&str]) {
    let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
