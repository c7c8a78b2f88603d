//! Stores behind a real PgBouncer.

use cubbyhole_core::{ErrorKind, ExecutionContext, Store, Verdict};
use cubbyhole_postgres::{Config, PostgresStore, diagnose};
use cubbyhole_testkit::PgBouncer;
use cubbyhole_testkit::helpers::{PASSWORD, bytes, ctx, ns};
use tokio::task::block_in_place;
use tokio_postgres::Client;

use crate::proxy::{Proxy, address_of, with_address};
use crate::sql::one;
use crate::support::{Schema, connect};

struct Pooled {
    schema: Schema,
    pooler: PgBouncer,
}

impl Pooled {
    async fn new(settings: &[&str]) -> Self {
        let schema = Schema::new().await;
        let login = format!("{}_login", schema.name);
        let server = address_of(schema.admin_url());
        let pooler =
            block_in_place(|| PgBouncer::start(&server, &[(&login, PASSWORD)], settings)).unwrap();
        Self { schema, pooler }
    }

    fn config(&self, options: &str) -> Config {
        let url = with_address(&self.schema.url(options), &self.pooler.address());
        Config::from_url(&url).unwrap()
    }

    /// Connects another application through the same pooler.
    async fn client(&self) -> Client {
        let url = with_address(&self.schema.url(""), &self.pooler.address());
        connect(url.split_once('?').unwrap().0).await
    }

    /// Returns the verdict and the text of the check `pooler`.
    async fn found(&self, options: &str) -> (Verdict, String) {
        let diagnosis = diagnose(&ctx(), &self.config(options)).await.unwrap();
        let check = diagnosis.checks.iter().find(|check| check.name == "pooler").unwrap();
        (check.verdict, format!("{} {}", check.finding, check.advice.clone().unwrap_or_default()))
    }
}

/// Checks that both `open` and `diagnose` detect transaction pooling.
async fn assert_detected(pooled: &Pooled) {
    let error = PostgresStore::open(&ctx(), pooled.config("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    assert!(error.message().contains("add `pooler=transaction`"), "{error}");
    let (verdict, text) = pooled.found("").await;
    assert_eq!(verdict, Verdict::Problem, "{text}");
    assert!(text.contains("add `pooler=transaction`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_pooling_needs_the_option_and_leaks_no_setting() {
    let pooled = Pooled::new(&["pool_mode = transaction"]).await;
    assert_detected(&pooled).await;

    let options = "&pooler=transaction&statement_cache=off";
    let store = PostgresStore::open(&ctx(), pooled.config(options)).await.unwrap();
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    assert_eq!(store.get(&ctx(), &ns("acme"), "k").await.unwrap(), Some(bytes("v")));
    let (verdict, text) = pooled.found(options).await;
    assert_eq!((verdict, text.contains("is set")), (Verdict::Ok, true), "{text}");
    // No server connection keeps the timeout of this store.
    for _ in 0..4 {
        let client = pooled.client().await;
        assert_eq!(one::<String>(&client, "SHOW statement_timeout").await, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_pooling_is_detected_with_idle_connections() {
    for order in ["0", "1"] {
        let order = format!("server_round_robin = {order}");
        let pooled = Pooled::new(&["pool_mode = transaction", &order]).await;
        // Overlapping transactions make the pooler open several server connections.
        for idle in 1..=4 {
            let mut clients = Vec::new();
            for _ in 0..idle {
                let client = pooled.client().await;
                client.batch_execute("BEGIN").await.unwrap();
                clients.push(client);
            }
            for client in &clients {
                client.batch_execute("COMMIT").await.unwrap();
            }
            assert_detected(&pooled).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_pooling_is_accepted() {
    let pooled = Pooled::new(&["pool_mode = session"]).await;
    let store = PostgresStore::open(&ctx(), pooled.config("")).await.unwrap();
    store.put(&ctx(), &ns("acme"), "k", bytes("v")).await.unwrap();
    let (verdict, text) = pooled.found("").await;
    assert_eq!((verdict, text.contains("session")), (Verdict::Ok, true), "{text}");
    drop(store);
    // Without a second server connection, opening waits only until the detection times out.
    let one = Pooled::new(&["pool_mode = session", "default_pool_size = 1"]).await;
    let options = "&pool_size=1";
    let store = PostgresStore::open(&ctx(), one.config(options)).await.unwrap();
    let get = store.get(&ExecutionContext::new(), &ns("acme"), "k").await;
    assert_eq!(get.unwrap(), None);
}

/// A transparent proxy is not a pooler, so opening a store takes no further round trip.
#[tokio::test]
async fn pooler_detection_adds_no_round_trip_without_a_pooler() {
    let schema = Schema::new().await;
    let proxy = Proxy::before(schema.admin_url()).await;
    let config = Config::from_url(&proxy.url(&schema.url(""))).unwrap();
    let store = PostgresStore::open(&ctx(), config.clone()).await.unwrap();
    assert_eq!((proxy.connections(), store.connections().0), (1, 1));
    let round_trips = proxy.round_trips();
    let unchecked = config.with_pooler(cubbyhole_postgres::Pooler::Transaction);
    PostgresStore::open(&ctx(), unchecked).await.unwrap();
    assert_eq!(proxy.round_trips() - round_trips, round_trips);
    let diagnosis = diagnose(&ctx(), &schema.config()).await.unwrap();
    let check = diagnosis.checks.iter().find(|check| check.name == "pooler").unwrap();
    assert!(check.finding.starts_with("none"), "{check:?}");
}
