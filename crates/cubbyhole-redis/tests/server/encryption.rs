//! TLS connections, with certificates that the tests generate.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use cubbyhole_core::{Error, ErrorKind, Result, Store};
use cubbyhole_redis::{Config, RedisStore, diagnose};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{PASSWORD, bytes, ctx, ns, shown, until};
use cubbyhole_testkit::listener::Listener;
use cubbyhole_testkit::tls::{Authority, CertifiedFiles, TempFile, TlsAcceptor};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::block_in_place;

use crate::helpers::{cli, new_prefix, shared_server};

/// Returns the URL option that trusts an authority.
fn trust(authority: &Authority) -> String {
    format!("&tls_ca={}", authority.file().display())
}

/// Returns the URL options that present a client certificate.
fn present(certified: &CertifiedFiles) -> String {
    format!("&tls_cert={}&tls_key={}", certified.certificate.display(), certified.key.display())
}

/// A Redis server with mutual TLS: it requires a certificate from each client.
struct MutualTlsServer {
    port: u16,
    ours: Authority,
    _certificate: CertifiedFiles,
    /// Also listens on a port without TLS, for commands of the test.
    plain: RedisServer,
}

impl MutualTlsServer {
    fn start(more: &[&str]) -> Self {
        let ours = Authority::new("ours");
        let certificate = ours.certify("127.0.0.1").to_files();
        for _ in 0..20 {
            // Another program may take a port before the server starts. The start is then repeated.
            let [port, bus] = [(); 2].map(|()| {
                let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                listener.local_addr().unwrap().port()
            });
            let settings = [
                format!("tls-port {port}"),
                format!("tls-cert-file {}", certificate.certificate.display()),
                format!("tls-key-file {}", certificate.key.display()),
                format!("tls-ca-cert-file {}", ours.file().display()),
                "tls-auth-clients yes".to_owned(),
                format!("cluster-port {bus}"),
            ];
            let lines: Vec<&str> =
                settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
            match RedisServer::start_with(&lines) {
                Ok(plain) => return Self { port, ours, _certificate: certificate, plain },
                Err(log) => assert!(log.contains("bind"), "{log}"),
            }
        }
        panic!("found no free port");
    }

    async fn open(&self, scheme: &str, options: &str) -> Result<RedisStore> {
        let (port, prefix, ca) = (self.port, new_prefix(), trust(&self.ours));
        let url = format!("{scheme}://127.0.0.1:{port}/?prefix={prefix}{ca}{options}");
        open_and_use(&url, "v").await
    }
}

/// Opens a store, and writes and reads an entry.
async fn open_and_use(url: &str, value: &str) -> Result<RedisStore> {
    let store = RedisStore::open(&ctx(), Config::from_url(url)?).await?;
    store.put(&ctx(), &ns("acme"), "k", bytes(value)).await?;
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await?, Some(bytes(value)));
    Ok(store)
}

/// Terminates TLS in front of a server that does not use TLS.
struct TlsProxy {
    listener: Listener,
    handshakes: Arc<AtomicUsize>,
}

impl TlsProxy {
    async fn start(server: &RedisServer, acceptor: TlsAcceptor) -> Self {
        let (server, handshakes) = (server.port(), Arc::<AtomicUsize>::default());
        let counter = Arc::clone(&handshakes);
        let listener = Listener::start(move |client| {
            let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
            async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                counter.fetch_add(1, SeqCst);
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await;
                drop(copy_bidirectional(&mut client, &mut server.unwrap()).await);
            }
        })
        .await;
        Self { listener, handshakes }
    }

    /// Opens a store through the proxy. `host` is one of the proxy's names.
    async fn open(&self, scheme: &str, host: &str, options: &str) -> Result<RedisStore> {
        let (port, prefix) = (self.listener.port(), new_prefix());
        let url =
            format!("{scheme}://:{PASSWORD}@{host}:{port}/?connections=1&prefix={prefix}{options}");
        open_and_use(&url, options).await
    }

    /// Returns the number of completed TLS handshakes.
    fn handshakes(&self) -> usize {
        self.handshakes.load(SeqCst)
    }
}

/// Starts a server that requires the password, so clients send it.
fn server_with_password() -> RedisServer {
    RedisServer::start_with(&[&format!("requirepass {PASSWORD}")]).unwrap()
}

/// Asserts that opening failed as unavailable, with that text and without the password.
fn check_refused(opened: Result<RedisStore>, says: &str) {
    let error = opened.err().unwrap();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
    assert!(text.contains(says), "{says:?} is not in {text}");
    assert!(!text.contains(PASSWORD), "{text}");
}

/// Asserts that opening failed as an invalid argument.
fn check_invalid(opened: Result<RedisStore>) -> Error {
    let error = opened.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    error
}

#[tokio::test]
async fn tls_connects_to_a_host_with_a_trusted_certificate() {
    let (server, ours) = (server_with_password(), Authority::new("ours"));
    let proxy = TlsProxy::start(&server, ours.acceptor("localhost")).await;
    let store = proxy.open("rediss", "localhost", &trust(&ours)).await.unwrap();
    assert_eq!(proxy.handshakes(), 1);
    let numeric = TlsProxy::start(&server, ours.acceptor("127.0.0.1")).await;
    numeric.open("rediss", "127.0.0.1", &trust(&ours)).await.unwrap();

    // A later connection of the store uses TLS too.
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    let command = format!("AUTH {PASSWORD}\r\n{}\r\n", kill.join(" "));
    let mut admin = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut admin, command.as_bytes()).await.unwrap();
    until("a new connection", async || {
        store.get(&ctx(), &ns("acme"), "k").await.is_ok() && proxy.handshakes() == 2
    })
    .await;
}

#[tokio::test]
async fn untrusted_certificate_is_refused_before_any_command() {
    let server = server_with_password();
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let foreign = TlsProxy::start(&server, others.acceptor("localhost")).await;
    check_refused(foreign.open("rediss", "localhost", &trust(&ours)).await, "certificate");
    // The platform does not trust the authority either.
    let opened = foreign.open("rediss", "localhost", "").await;
    assert!(!shown(&opened.err().unwrap()).contains(PASSWORD));

    // The certificate must match the name in the URL. The address behind the name does not count.
    let by_name = TlsProxy::start(&server, ours.acceptor("localhost")).await;
    check_refused(by_name.open("rediss", "127.0.0.1", &trust(&ours)).await, "certificate");
    let misnamed = TlsProxy::start(&server, ours.acceptor("cache.example")).await;
    check_refused(misnamed.open("rediss", "localhost", &trust(&ours)).await, "certificate");
    let handshakes = [&foreign, &by_name, &misnamed].map(TlsProxy::handshakes);
    assert_eq!(handshakes, [0; 3], "a handshake with an untrusted server succeeded");
}

#[tokio::test]
async fn tls_mismatch_between_url_and_server_is_a_clear_error() {
    let ours = Authority::new("ours");
    let proxy = TlsProxy::start(shared_server(), ours.acceptor("localhost")).await;
    check_refused(proxy.open("redis", "localhost", "").await, "does not reply like a Redis server");
    assert_eq!(proxy.handshakes(), 0);

    let port = shared_server().port();
    let url = format!("rediss://:{PASSWORD}@127.0.0.1:{port}/?{}", &trust(&ours)[1..]);
    let config = Config::from_url(&url).unwrap();
    check_refused(RedisStore::open(&ctx(), config).await, "cannot be reached");
    assert_eq!(cli(shared_server(), &["PING"]), "PONG");
}

#[tokio::test]
async fn unusable_ca_file_is_invalid_argument() {
    let authority = Authority::new("ours");
    let proxy = TlsProxy::start(shared_server(), authority.acceptor("localhost")).await;
    let missing = format!("{}-missing", trust(&authority));
    check_invalid(proxy.open("rediss", "localhost", &missing).await);
    for content in ["", "no certificate"] {
        let other = Authority::new("other");
        fs::write(other.file(), content).unwrap();
        check_invalid(proxy.open("rediss", "localhost", &trust(&other)).await);
    }
    check_invalid(proxy.open("redis", "localhost", &trust(&authority)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_receives_the_client_certificate_of_the_url() {
    let server = block_in_place(|| MutualTlsServer::start(&[]));
    let client = server.ours.certify("client").to_files();
    server.open("rediss", &present(&client)).await.unwrap();
    let config = Config::from_url(&format!("rediss://127.0.0.1:{}", server.port)).unwrap();
    let config = config
        .with_tls_ca(server.ours.file())
        .with_tls_client_certificate(&*client.certificate, &*client.key);
    let store = RedisStore::open(&ctx(), config.clone()).await.unwrap();
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    let found = diagnose(&ctx(), &config).await.unwrap();
    assert!(found.checks.iter().any(|check| check.name == "encryption"), "{found:?}");

    // The error names the cause: no client certificate, or one of another authority.
    let others = Authority::new("others");
    let foreign = others.certify("client").to_files();
    for (options, says) in [(String::new(), "`tls_key`"), (present(&foreign), "`tls_cert`")] {
        let error = server.open("rediss", &options).await.err().unwrap();
        let text = shown(&error);
        // The server closes the connection, so its alert may be lost.
        let has_alert = error.kind() == ErrorKind::PermissionDenied;
        assert!(has_alert || error.message().contains("another client certificate"), "{text}");
        assert!(!has_alert || (error.message().contains(says) && !error.is_retryable()), "{text}");
    }
    assert_eq!(cli(&server.plain, &["PING"]), "PONG");
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_nodes_receive_the_client_certificate() {
    let lines = ["cluster-enabled yes", "tls-cluster yes", "cluster-announce-ip 127.0.0.1"];
    let server = block_in_place(|| MutualTlsServer::start(&lines));
    block_in_place(|| cli(&server.plain, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]));
    let is_up = async || {
        block_in_place(|| cli(&server.plain, &["CLUSTER", "INFO"])).contains("cluster_state:ok")
    };
    until("the cluster to be up", is_up).await;
    let client = server.ours.certify("client").to_files();
    server.open("rediss+cluster", &present(&client)).await.unwrap();
}

#[tokio::test]
async fn unusable_client_certificate_file_is_named() {
    let ours = Authority::new("ours");
    let (one, other) = (ours.certify("one").to_files(), ours.certify("other").to_files());
    let empty = TempFile::write("-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END NOTHING-----\n");
    let open = async |certificate: &Path, key: &Path| {
        let config = Config::from_url("rediss://127.0.0.1:1").unwrap();
        let config = config.with_tls_ca(ours.file()).with_tls_client_certificate(certificate, key);
        check_invalid(RedisStore::open(&ctx(), config).await)
    };
    let missing = Path::new("/no/such/file.pem");
    for (certificate, key, named, says) in [
        (missing, &*one.key, missing, "`tls_cert`"),
        (&one.certificate, missing, missing, "`tls_key`"),
        (&one.key, &one.key, &one.key, "contains no PEM certificate"),
        (&one.certificate, &one.certificate, &one.certificate, "has no readable private key"),
        (&one.certificate, &empty, &empty, "has no readable private key"),
        (&one.certificate, &other.key, &other.key, "does not belong to the certificate"),
    ] {
        let error = open(certificate, key).await;
        let (text, message) = (shown(&error), error.message());
        assert!(message.contains(says) && message.contains(named.to_str().unwrap()), "{text}");
        for file in [&one.key, &other.key, &empty] {
            let key = fs::read_to_string(&**file).unwrap();
            let secret = key.lines().nth(1).unwrap();
            assert!(!text.contains(secret), "{text}");
        }
    }
    // A client certificate without TLS is refused.
    let config = Config::from_url("redis://127.0.0.1:1").unwrap();
    let config = config.with_tls_client_certificate(&*one.certificate, &*one.key);
    check_invalid(RedisStore::open(&ctx(), config).await);
}
