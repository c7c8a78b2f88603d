//! Encrypted connections: a proxy that ends the encryption before the server, with certificates of
//! the test's own.

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

use crate::by_hand::{cli, new_prefix, shared};

/// The option that trusts an authority.
fn trust(authority: &Authority) -> String {
    format!("&tls_ca={}", authority.file().display())
}

/// The options that present a client certificate.
fn present(certified: &CertifiedFiles) -> String {
    format!("&tls_cert={}&tls_key={}", certified.certificate.display(), certified.key.display())
}

/// A Redis that speaks TLS by itself and asks each client for a certificate.
struct Mutual {
    port: u16,
    ours: Authority,
    _own: CertifiedFiles,
    /// On its plain port it answers the test.
    plain: RedisServer,
}

impl Mutual {
    fn start(more: &[&str]) -> Self {
        let ours = Authority::new("ours");
        let own = ours.certify("127.0.0.1").to_files();
        for _ in 0..20 {
            // Free a moment ago; whoever takes it in between makes it start anew.
            let [port, bus] = [(); 2].map(|()| {
                let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                listener.local_addr().unwrap().port()
            });
            let settings = [
                format!("tls-port {port}"),
                format!("tls-cert-file {}", own.certificate.display()),
                format!("tls-key-file {}", own.key.display()),
                format!("tls-ca-cert-file {}", ours.file().display()),
                "tls-auth-clients yes".to_owned(),
                format!("cluster-port {bus}"),
            ];
            let lines: Vec<&str> =
                settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
            match RedisServer::start_with(&lines) {
                Ok(plain) => return Self { port, ours, _own: own, plain },
                Err(log) => assert!(log.contains("bind"), "{log}"),
            }
        }
        panic!("no port is free");
    }

    async fn open(&self, scheme: &str, options: &str) -> Result<RedisStore> {
        let (port, prefix, ca) = (self.port, new_prefix(), trust(&self.ours));
        let url = format!("{scheme}://127.0.0.1:{port}/?prefix={prefix}{ca}{options}");
        let store = RedisStore::open(&ctx(), Config::from_url(&url)?).await?;
        store.put(&ctx(), &ns("acme"), "k", bytes("v")).await?;
        assert_eq!(store.get(&ctx(), &ns("acme"), "k").await?, Some(bytes("v")));
        Ok(store)
    }
}

/// Stands before a server, which itself does not see the encryption.
struct Front {
    listener: Listener,
    encrypted: Arc<AtomicUsize>,
}

impl Front {
    async fn before(server: &RedisServer, acceptor: TlsAcceptor) -> Self {
        let (server, encrypted) = (server.port(), Arc::<AtomicUsize>::default());
        let seen = Arc::clone(&encrypted);
        let listener = Listener::start(move |client| {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                seen.fetch_add(1, SeqCst);
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await;
                drop(copy_bidirectional(&mut client, &mut server.unwrap()).await);
            }
        })
        .await;
        Self { listener, encrypted }
    }

    /// Connects to it by a name of its address.
    async fn open(&self, scheme: &str, host: &str, options: &str) -> Result<RedisStore> {
        let (port, prefix) = (self.listener.port(), new_prefix());
        let url =
            format!("{scheme}://:{PASSWORD}@{host}:{port}/?connections=1&prefix={prefix}{options}");
        let store = RedisStore::open(&ctx(), Config::from_url(&url)?).await?;
        store.put(&ctx(), &ns("acme"), "k", bytes(options)).await?;
        assert_eq!(store.get(&ctx(), &ns("acme"), "k").await?, Some(bytes(options)));
        Ok(store)
    }

    fn encrypted(&self) -> usize {
        self.encrypted.load(SeqCst)
    }
}

/// A server that asks for the password, so that it is on the wire.
fn server() -> RedisServer {
    RedisServer::start_with(&[&format!("requirepass {PASSWORD}")]).unwrap()
}

fn refused(opened: Result<RedisStore>, why: &str) -> Error {
    let error = opened.err().unwrap();
    let text = shown(&error);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
    assert!(text.contains(why), "{why:?} is not in {text}");
    assert!(!text.contains(PASSWORD), "{text}");
    error
}

#[tokio::test]
async fn an_encrypted_connection_is_made_to_whom_a_trusted_authority_has_named() {
    let (server, ours) = (server(), Authority::new("ours"));
    let right = Front::before(&server, ours.acceptor("localhost")).await;
    let store = right.open("rediss", "localhost", &trust(&ours)).await.unwrap();
    assert_eq!(right.encrypted(), 1);
    let numeric = Front::before(&server, ours.acceptor("127.0.0.1")).await;
    numeric.open("rediss", "127.0.0.1", &trust(&ours)).await.unwrap();

    // A new connection is encrypted as the first was.
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    let command = format!("AUTH {PASSWORD}\r\n{}\r\n", kill.join(" "));
    let mut by_hand = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut by_hand, command.as_bytes()).await.unwrap();
    until("another connection", async || {
        store.get(&ctx(), &ns("acme"), "k").await.is_ok() && right.encrypted() == 2
    })
    .await;
}

#[tokio::test]
async fn whom_nobody_trusted_has_named_is_refused_before_anything_is_said() {
    let server = server();
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let foreign = Front::before(&server, others.acceptor("localhost")).await;
    refused(foreign.open("rediss", "localhost", &trust(&ours)).await, "certificate");
    // Nor is it among those that the platform trusts.
    let opened = foreign.open("rediss", "localhost", "").await;
    assert!(!shown(&opened.err().unwrap()).contains(PASSWORD));

    // The name in the URL counts, not what it leads to.
    let right = Front::before(&server, ours.acceptor("localhost")).await;
    refused(right.open("rediss", "127.0.0.1", &trust(&ours)).await, "certificate");
    let misnamed = Front::before(&server, ours.acceptor("cache.example")).await;
    refused(misnamed.open("rediss", "localhost", &trust(&ours)).await, "certificate");
    let seen = [&foreign, &right, &misnamed].map(Front::encrypted);
    assert_eq!(seen, [0; 3], "something was said to a server that is not trusted");
}

#[tokio::test]
async fn plain_to_encrypted_and_encrypted_to_plain_are_clear_errors() {
    let ours = Authority::new("ours");
    let front = Front::before(shared(), ours.acceptor("localhost")).await;
    refused(front.open("redis", "localhost", "").await, "does not reply like a Redis server");
    assert_eq!(front.encrypted(), 0);

    let port = shared().port();
    let url = format!("rediss://:{PASSWORD}@127.0.0.1:{port}/?{}", &trust(&ours)[1..]);
    let config = Config::from_url(&url).unwrap();
    refused(RedisStore::open(&ctx(), config).await, "cannot be reached");
    assert_eq!(cli(shared(), &["PING"]), "PONG");
}

#[tokio::test]
async fn a_file_of_authorities_that_cannot_be_used_is_the_callers_mistake() {
    let authority = Authority::new("ours");
    let front = Front::before(shared(), authority.acceptor("localhost")).await;
    let missing = format!("{}-missing", trust(&authority));
    let error = front.open("rediss", "localhost", &missing).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    for content in ["", "no certificate"] {
        let other = Authority::new("other");
        fs::write(other.file(), content).unwrap();
        let error = front.open("rediss", "localhost", &trust(&other)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    }
    let error = front.open("redis", "localhost", &trust(&authority)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_client_certificates_gets_the_one_of_the_url() {
    let server = block_in_place(|| Mutual::start(&[]));
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

    // Without one, and with one of another authority, it says why in what it was refused.
    let others = Authority::new("others");
    let foreign = others.certify("client").to_files();
    for (options, says) in [(String::new(), "`tls_key`"), (present(&foreign), "`tls_cert`")] {
        let error = server.open("rediss", &options).await.err().unwrap();
        let text = shown(&error);
        // What the server says may be lost, for it ends the connection.
        let heard = error.kind() == ErrorKind::PermissionDenied;
        assert!(heard || error.message().contains("another client certificate"), "{text}");
        assert!(!heard || (error.message().contains(says) && !error.is_retryable()), "{text}");
    }
    assert_eq!(cli(&server.plain, &["PING"]), "PONG");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_cluster_that_ask_for_client_certificates_get_it_too() {
    let lines = ["cluster-enabled yes", "tls-cluster yes", "cluster-announce-ip 127.0.0.1"];
    let server = block_in_place(|| Mutual::start(&lines));
    block_in_place(|| cli(&server.plain, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]));
    let is_up = async || {
        block_in_place(|| cli(&server.plain, &["CLUSTER", "INFO"])).contains("cluster_state:ok")
    };
    until("the cluster", is_up).await;
    let client = server.ours.certify("client").to_files();
    server.open("rediss+cluster", &present(&client)).await.unwrap();
}

#[tokio::test]
async fn files_of_a_client_certificate_that_cannot_be_used_are_named() {
    let ours = Authority::new("ours");
    let (one, other) = (ours.certify("one").to_files(), ours.certify("other").to_files());
    let empty = TempFile::write("-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END NOTHING-----\n");
    let open = async |certificate: &Path, key: &Path| {
        let config = Config::from_url("rediss://127.0.0.1:1").unwrap();
        let config = config.with_tls_ca(ours.file()).with_tls_client_certificate(certificate, key);
        RedisStore::open(&ctx(), config).await.err().unwrap()
    };
    let missing = Path::new("/no/such/file.pem");
    for (certificate, key, named, says) in [
        (missing, &*one.key, missing, "`tls_cert`"),
        (&one.certificate, missing, missing, "`tls_key`"),
        (&one.key, &one.key, &one.key, "has no certificate"),
        (&one.certificate, &one.certificate, &one.certificate, "has no readable private key"),
        (&one.certificate, &empty, &empty, "has no readable private key"),
        (&one.certificate, &other.key, &other.key, "does not belong to the certificate"),
    ] {
        let error = open(certificate, key).await;
        let text = shown(&error);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        let message = error.message();
        assert!(message.contains(says) && message.contains(named.to_str().unwrap()), "{text}");
        for file in [&one.key, &other.key, &empty] {
            let key = fs::read_to_string(&**file).unwrap();
            let secret = key.lines().nth(1).unwrap();
            assert!(!text.contains(secret), "{text}");
        }
    }
    // It is of no use without encryption.
    let config = Config::from_url("redis://127.0.0.1:1").unwrap();
    let config = config.with_tls_client_certificate(&*one.certificate, &*one.key);
    let error = RedisStore::open(&ctx(), config).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
}
