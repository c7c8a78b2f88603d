//! TLS connections, through a proxy that terminates TLS with test certificates, and to a server
//! with TLS.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use cubbyhole_core::{ErrorKind, ExecutionContext, Result, Store};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, bytes, ctx, ns, until};
use cubbyhole_testkit::listener::Listener;
use cubbyhole_testkit::tls::{Authority, Certified, TlsAcceptor};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::proxy::{address_of, with_address};
use crate::sql::one;
use crate::support::Schema;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];

/// A proxy in front of the server that terminates TLS.
struct TlsProxy {
    listener: Listener,
    counts: Arc<Counts>,
}

/// The numbers of connections.
#[derive(Default)]
struct Counts {
    /// Connections that requested TLS.
    requested: AtomicUsize,
    encrypted: AtomicUsize,
    plain: AtomicUsize,
    encrypted_cancels: AtomicUsize,
}

impl TlsProxy {
    /// Starts a proxy, which offers TLS if there is an acceptor.
    async fn before(schema: &Schema, acceptor: Option<TlsAcceptor>) -> Self {
        let server = address_of(schema.admin_url());
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let listener = Listener::start(move |client| {
            let (server, acceptor, counts) =
                (server.clone(), acceptor.clone(), Arc::clone(&shared));
            async move {
                let server = TcpStream::connect(&server).await.unwrap();
                drop(serve(client, server, acceptor, counts).await);
            }
        })
        .await;
        Self { listener, counts }
    }

    /// Opens a store through the proxy, with `host` as its name.
    async fn open(&self, schema: &Schema, host: &str, options: &str) -> Result<PostgresStore> {
        let address = format!("{host}:{}", self.listener.port());
        let url = with_address(&schema.url(options), &address);
        let store = PostgresStore::open(&ctx(), Config::from_url(&url)?).await?;
        store.put(&ctx(), &ns("acme"), "k", bytes(options)).await?;
        assert_eq!(store.get(&ctx(), &ns("acme"), "k").await?, Some(bytes(options)));
        Ok(store)
    }

    /// The numbers of connections that requested TLS, used TLS, and did not use TLS.
    fn counts(&self) -> (usize, usize, usize) {
        let Counts { requested, encrypted, plain, .. } = &*self.counts;
        (requested.load(SeqCst), encrypted.load(SeqCst), plain.load(SeqCst))
    }
}

async fn serve(
    mut client: TcpStream,
    server: TcpStream,
    acceptor: Option<TlsAcceptor>,
    counts: Arc<Counts>,
) -> std::io::Result<()> {
    let mut first = [0; 8];
    client.read_exact(&mut first).await?;
    if first != SSL_REQUEST {
        counts.plain.fetch_add(1, SeqCst);
        return forward(client, server, first).await;
    }
    counts.requested.fetch_add(1, SeqCst);
    match acceptor {
        Some(acceptor) => {
            client.write_all(b"S").await?;
            let mut client = acceptor.accept(client).await?;
            client.read_exact(&mut first).await?;
            counts.encrypted.fetch_add(1, SeqCst);
            if first == CANCEL_REQUEST {
                counts.encrypted_cancels.fetch_add(1, SeqCst);
            }
            forward(client, server, first).await
        }
        None => {
            client.write_all(b"N").await?;
            client.read_exact(&mut first).await?;
            counts.plain.fetch_add(1, SeqCst);
            forward(client, server, first).await
        }
    }
}

async fn forward(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: TcpStream,
    first: [u8; 8],
) -> std::io::Result<()> {
    server.write_all(&first).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

fn assert_permanently_unavailable(opened: Result<PostgresStore>, reason: &str) {
    let error = opened.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!error.is_retryable(), "{error:?}");
    assert!(error.message().contains(reason), "{error:?}");
    assert!(!format!("{error:?}").contains(PASSWORD), "{error:?}");
}

#[tokio::test]
async fn require_and_prefer_encrypt_and_accept_any_certificate() {
    let schema = Schema::new().await;
    let authority = Authority::new("the one");
    let front = TlsProxy::before(&schema, Some(authority.acceptor("db.example"))).await;
    for options in ["&sslmode=require", "&sslmode=prefer", ""] {
        let (_, encrypted, _) = front.counts();
        front.open(&schema, "127.0.0.1", options).await.unwrap();
        assert_eq!(front.counts(), (encrypted + 1, encrypted + 1, 0), "{options:?}");
    }
}

#[tokio::test]
async fn sslmode_disable_never_requests_tls() {
    let schema = Schema::new().await;
    let authority = Authority::new("the one");
    let front = TlsProxy::before(&schema, Some(authority.acceptor("localhost"))).await;
    front.open(&schema, "127.0.0.1", "&sslmode=disable").await.unwrap();
    assert_eq!(front.counts(), (0, 0, 1));
}

#[tokio::test]
async fn only_prefer_connects_to_a_server_without_tls() {
    let schema = Schema::new().await;
    let authority = Authority::new("the one");
    let front = TlsProxy::before(&schema, None).await;
    front.open(&schema, "127.0.0.1", "&sslmode=prefer").await.unwrap();
    assert_eq!(front.counts(), (1, 0, 1));
    let roots = format!("&sslrootcert={}", authority.file().display());
    for mode in ["require", "verify-ca", "verify-full"] {
        let options = format!("&sslmode={mode}{roots}");
        assert_permanently_unavailable(
            front.open(&schema, "127.0.0.1", &options).await,
            "offers no TLS",
        );
    }
    assert_eq!(front.counts().2, 1);
}

#[tokio::test]
async fn verify_ca_checks_the_authority_and_verify_full_also_the_name() {
    let schema = Schema::new().await;
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let trusted = format!("&sslrootcert={}", ours.file().display());
    let certificate = "certificate is not accepted";

    let right = TlsProxy::before(&schema, Some(ours.acceptor("localhost"))).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        right.open(&schema, "localhost", &format!("&sslmode={mode}{trusted}")).await.unwrap();
    }
    // The certificate must match the name in the URL, not the address that it resolves to.
    let full = format!("&sslmode=verify-full{trusted}");
    assert_permanently_unavailable(right.open(&schema, "127.0.0.1", &full).await, certificate);
    let numeric = TlsProxy::before(&schema, Some(ours.acceptor("127.0.0.1"))).await;
    numeric.open(&schema, "127.0.0.1", &full).await.unwrap();

    let misnamed = TlsProxy::before(&schema, Some(ours.acceptor("db.example"))).await;
    for mode in ["require", "verify-ca"] {
        misnamed.open(&schema, "localhost", &format!("&sslmode={mode}{trusted}")).await.unwrap();
    }
    assert_permanently_unavailable(misnamed.open(&schema, "localhost", &full).await, certificate);

    let foreign = TlsProxy::before(&schema, Some(others.acceptor("localhost"))).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let options = format!("&sslmode={mode}{trusted}");
        assert_permanently_unavailable(
            foreign.open(&schema, "localhost", &options).await,
            certificate,
        );
    }
    // The platform does not trust the authority either.
    for mode in ["verify-ca", "verify-full"] {
        let opened = foreign.open(&schema, "localhost", &format!("&sslmode={mode}")).await;
        assert!(!opened.unwrap_err().is_retryable());
    }
    assert_eq!(foreign.counts().1, 0, "data was sent to an untrusted server");
}

/// The rules for self-signed certificates in docs/backends/postgres.md.
#[tokio::test]
async fn self_signed_certificate_must_name_the_host_and_not_be_a_ca() {
    let schema = Schema::new().await;
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("server.crt");
    let options = format!("&sslmode=verify-full&sslrootcert={}", file.display());
    let authority = IsCa::Ca(BasicConstraints::Unconstrained);
    for (names, is_ca, is_accepted) in [
        (vec!["localhost".to_owned()], IsCa::ExplicitNoCa, true),
        (vec!["localhost".to_owned()], authority, false),
        (Vec::new(), IsCa::ExplicitNoCa, false),
    ] {
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.is_ca = is_ca;
        let own = Certified::self_signed(&params);
        fs::write(&file, own.certificate.pem()).unwrap();
        let front = TlsProxy::before(&schema, Some(own.acceptor())).await;
        let opened = front.open(&schema, "localhost", &options).await;
        if is_accepted {
            opened.unwrap();
        } else {
            assert_permanently_unavailable(
                opened,
                "see docs/backends/postgres.md for the requirements",
            );
        }
    }
}

#[tokio::test]
async fn cancel_request_is_encrypted() {
    let schema = Schema::new().await;
    let authority = Authority::new("the one");
    let front = TlsProxy::before(&schema, Some(authority.acceptor("localhost"))).await;
    let options =
        format!("&pool_size=1&sslmode=verify-full&sslrootcert={}", authority.file().display());
    let store = front.open(&schema, "localhost", &options).await.unwrap();
    let (admin, holder) = (schema.admin().await, schema.admin().await);
    let lock = format!("BEGIN; SELECT FROM {}.entries FOR UPDATE", schema.name);
    holder.batch_execute(&lock).await.unwrap();
    let context = ExecutionContext::new();
    let (waits, caller) = (store.clone(), context.clone());
    let put = tokio::spawn(async move { waits.put(&caller, &ns("acme"), "k", bytes("new")).await });
    schema.until_waiting(&admin, 1).await;
    context.cancel();
    assert_eq!(put.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    schema.until_waiting(&admin, 0).await;
    until("the return of the connection", async || store.connections().1 == 0).await;
    // The same connection serves further calls, so its cancel request has ended.
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes(&options)));
    assert_eq!(front.counts(), (2, 2, 0));
    assert_eq!(front.counts.encrypted_cancels.load(SeqCst), 1);
    holder.batch_execute("ROLLBACK").await.unwrap();
}

/// A server with TLS, and with a certificate of the authority for `localhost`.
pub(crate) async fn server_with_tls(authority: &Authority) -> (PostgresServer, Schema) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    let server = tokio::task::block_in_place(PostgresServer::start).unwrap();
    let schema = Schema::on(server.url()).await;
    let Certified { certificate, key } = authority.certify("localhost");
    let folder = server.socket_folder();
    let owner = fs::metadata(folder).unwrap();
    let authority = fs::read_to_string(authority.file()).unwrap();
    let files = [
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
        ("root.crt", authority),
    ];
    for (name, text) in files {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let folder = folder.display();
    for sql in [
        format!("ALTER SYSTEM SET ssl_cert_file = '{folder}/server.crt'"),
        format!("ALTER SYSTEM SET ssl_key_file = '{folder}/server.key'"),
        format!("ALTER SYSTEM SET ssl_ca_file = '{folder}/root.crt'"),
        "ALTER SYSTEM SET ssl = on".to_owned(),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        schema.execute(&sql).await;
    }
    let admin = schema.admin().await;
    until("encryption", async || one::<String>(&admin, "SHOW ssl").await == "on").await;
    (server, schema)
}

/// Channel binding: the authentication proves that no proxy terminates TLS.
#[tokio::test(flavor = "multi_thread")]
async fn channel_binding_detects_a_tls_terminating_proxy() {
    let authority = Authority::new("the one");
    let (server, schema) = server_with_tls(&authority).await;
    let admin = schema.admin().await;
    let url = with_address(&schema.url(""), &format!("localhost:{}", server.port()));
    let strict = format!(
        "{url}&sslmode=verify-full&sslrootcert={}&channel_binding=require",
        authority.file().display()
    );
    let config = Config::from_url(&strict).unwrap();
    let store = PostgresStore::open(&ctx(), config).await.unwrap();
    let encrypted = format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE ssl AND usename = '{}_login'",
        schema.name
    );
    assert_eq!(one::<i64>(&admin, &encrypted).await, 1);
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();

    // A proxy that terminates TLS cannot present the server's channel binding.
    let front = TlsProxy::before(&schema, Some(authority.acceptor("localhost"))).await;
    let through_proxy = with_address(&strict, &format!("localhost:{}", front.listener.port()));
    let config = Config::from_url(&through_proxy).unwrap();
    let error = PostgresStore::open(&ctx(), config).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(!format!("{error:?}").contains(PASSWORD), "{error:?}");
}
