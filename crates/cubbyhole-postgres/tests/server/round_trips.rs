//! Counts the round trips of each call on the wire. The tests are single-threaded, so the proxy
//! sees together all messages that the client sends together.

use std::time::Duration;

use cubbyhole_core::{
    EntryStore, EntryStoreExt, ErrorKind, ExecutionContext, Expiry, GetOptions, NamespacePrefix,
    PutOptions, RecursiveScanOptions, ScanOptions, Store, Update,
};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};
use cubbyhole_testkit::round_trips::{self, Prepared};

use crate::proxy::Proxy;
use crate::sql::one;
use crate::support::Schema;

/// The URL options that change how calls are sent.
const MODES: [&str; 4] =
    ["", "&statement_cache=off", "&pooler=transaction", "&pooler=transaction&statement_cache=off"];

/// A store with one connection through the proxy, and a store with direct connections.
struct ProxiedStore {
    schema: Schema,
    proxy: Proxy,
    store: PostgresStore,
    direct: PostgresStore,
}

impl ProxiedStore {
    async fn new(options: &str) -> Self {
        let schema = Schema::new().await;
        schema.grant_operator().await;
        let proxy = Proxy::before(schema.admin_url()).await;
        let url = proxy.url(&schema.url(&format!("&pool_size=1{options}")));
        let config = Config::from_url(&url).unwrap();
        let store = PostgresStore::open(&ctx(), config).await.unwrap();
        let direct = schema.open().await;
        Self { schema, proxy, store, direct }
    }

    async fn put(&self, key: &str) {
        self.direct.put(&ctx(), &ns("acme"), key, bytes("old")).await.unwrap();
    }

    /// Writes the entries that the calls read.
    async fn prepare(&self) -> Prepared {
        for scope in ["gone:a", "gone:b", "cleared"] {
            self.direct.put(&ctx(), &ns(scope), "k", bytes("old")).await.unwrap();
        }
        // A refresh of these entries is due.
        let now = self.direct.current_time(&ctx(), &ns("idle")).await.unwrap();
        let ttl = Duration::from_secs(3600);
        let expires_at = now.checked_add(ttl / 2).unwrap();
        let options = PutOptions::new().with_expiry(Expiry::IdleUntil { ttl, expires_at });
        for scope in ["idle:a", "idle:b", "idle:c"] {
            self.direct
                .put_with_options(&ctx(), &ns(scope), "k", bytes("old"), options)
                .await
                .unwrap();
        }
        self.schema.execute(&self.schema.row("dead", "k", Some(1))).await;
        round_trips::prepare(&self.direct).await
    }

    /// Makes every call with a new context, and returns the number of round trips of each.
    async fn every_call(
        &self,
        mut context: impl FnMut() -> ExecutionContext,
    ) -> Vec<(&'static str, usize)> {
        let prepared = self.prepare().await;
        let (acme, store) = (ns("acme"), &self.store);
        let all = NamespacePrefix::from(acme.clone());
        let count = || self.proxy.round_trips();
        let mut seen = round_trips::every_call(store, prepared, &mut context, count).await;
        macro_rules! count {
            ($name:literal, $method:ident($($argument:expr),*)) => {{
                let context = context();
                let before = self.proxy.round_trips();
                let answer = store.$method(&context $(, $argument)*).await;
                seen.push(($name, self.proxy.round_trips() - before));
                answer
            }};
        }

        let page = count!("a page", scan(&acme, ScanOptions::new().with_limit(2))).unwrap();
        assert!(page.items.len() == 2 && page.next.is_some());
        let reversed = ScanOptions::new().with_limit(2).reversed();
        let page = count!("a reversed page", scan(&acme, reversed)).unwrap();
        assert!(page.items.len() == 2 && page.next.is_some());
        let recursive = RecursiveScanOptions::new().with_limit(2);
        let page = count!("a recursive page", scan_recursive(&all, recursive)).unwrap();
        assert!(page.items.len() == 2 && page.next.is_some());
        let refresh = GetOptions::new().refreshing();
        let entry = count!("get_entry, refreshing", get_entry(&ns("idle:a"), "k", refresh));
        let refreshed = entry.unwrap().unwrap().meta.expires_at;
        let many =
            count!("get_many, refreshing", get_many(&ns("idle:b"), &["k"], refresh)).unwrap();
        assert!(matches!(&many[0], Ok(Some(entry)) if entry.meta.expires_at >= refreshed));
        let refresh = ScanOptions::new().refreshing();
        let page = count!("a refreshing page", scan(&ns("idle:c"), refresh)).unwrap();
        assert!(page.items[0].meta.expires_at >= refreshed);
        let stats = count!("stat", stat(&acme, &["put", "none"])).unwrap();
        assert!(stats[0].is_some() && stats[1].is_none());
        let cleared = count!("delete_prefix", delete_prefix(&ns("cleared"), "k", 10)).unwrap();
        assert_eq!((cleared.removed, cleared.done), (1, true));
        let keys = count!("list", list(&acme, Some("p"))).unwrap();
        assert_eq!(keys, ["put"]);
        assert_eq!(
            count!("list_namespaces", list_namespaces(&all)).unwrap(),
            std::slice::from_ref(&acme)
        );
        let page = count!("scan_namespaces", scan_namespaces(&all, None, 10)).unwrap();
        assert_eq!(page.items, std::slice::from_ref(&acme));
        let page = count!("scan_tenants", scan_tenants(None, 10)).unwrap();
        assert_eq!(page.items[0], acme.tenant());
        assert!(count!("usage", usage(&all)).unwrap().entries > 0);
        count!("current_time", current_time(&acme)).unwrap();
        let gone = NamespacePrefix::from(ns("gone"));
        assert_eq!(count!("a step of erase", erase(&gone, 10)).unwrap().removed, 2);
        assert_eq!(count!("a step of a sweep", evict_expired()).unwrap(), 1);
        seen
    }
}

/// The calls that took more or less than one round trip.
fn not_one(seen: &[(&'static str, usize)]) -> Vec<(&'static str, usize)> {
    assert_eq!(seen.len(), 31);
    seen.iter().copied().filter(|(_, round_trips)| *round_trips != 1).collect()
}

#[tokio::test]
async fn every_call_is_one_round_trip_even_the_first() {
    for mode in MODES {
        let proxied = ProxiedStore::new(mode).await;
        for pass in ["first", "second"] {
            let seen = proxied.every_call(ExecutionContext::new).await;
            assert_eq!(not_one(&seen), [], "{pass} pass with {mode:?}");
        }
        assert_eq!(proxied.proxy.connections(), 1);
    }
}

#[tokio::test]
async fn deadline_adds_no_round_trip() {
    for mode in MODES {
        let proxied = ProxiedStore::new(mode).await;
        for pass in ["first", "second"] {
            let mut seconds = 60;
            // Each deadline is so much longer that the store sets a new `statement_timeout`.
            let longer = || {
                seconds += seconds / 3;
                ExecutionContext::new().with_timeout(Duration::from_secs(seconds))
            };
            let seen = proxied.every_call(longer).await;
            assert_eq!(not_one(&seen), [], "{pass} pass with {mode:?}");
        }
        let mut has_deadline = false;
        let alternating = || {
            has_deadline = !has_deadline;
            if has_deadline { ctx() } else { ExecutionContext::new() }
        };
        let seen = proxied.every_call(alternating).await;
        assert_eq!(not_one(&seen), [], "every second call has a deadline, with {mode:?}");
        assert_eq!((proxied.proxy.connections(), proxied.proxy.cancels()), (1, 0));
    }
}

#[tokio::test]
async fn network_latency_adds_no_round_trip() {
    let proxied = ProxiedStore::new("").await;
    proxied.proxy.delay(Duration::from_millis(2));
    for context in [ExecutionContext::new, ctx] {
        assert_eq!(not_one(&proxied.every_call(context).await), []);
    }
}

#[tokio::test]
async fn update_takes_two_round_trips_and_sweep_one_per_step() {
    let proxied = ProxiedStore::new("").await;
    proxied.put("k").await;
    let before = proxied.proxy.round_trips();
    let (context, acme) = (ctx(), ns("acme"));
    let update = proxied.store.update(&context, &acme, "k", |entry| {
        assert!(entry.is_some());
        Ok(Update::Put(bytes("new")))
    });
    update.await.unwrap();
    assert_eq!(proxied.proxy.round_trips() - before, 2);

    let dead = format!(
        "INSERT INTO {}.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
         SELECT 'acme', 'dead ' || n, 'acme', gen_random_uuid(), 0, 0, 1, ''
         FROM generate_series(1, 2500) n",
        proxied.schema.name
    );
    proxied.schema.execute(&dead).await;
    let before = proxied.proxy.round_trips();
    assert_eq!(proxied.store.evict_expired(&ctx()).await.unwrap(), 2500);
    assert_eq!(proxied.proxy.round_trips() - before, 3);
}

/// Locks a row of the tenant `acme` until the connection is dropped or rolled back.
async fn hold(schema: &Schema, key: &str) -> tokio_postgres::Client {
    let holder = schema.admin().await;
    let name = &schema.name;
    let lock = format!(
        "BEGIN; SELECT FROM {name}.entries WHERE namespace = 'acme' AND key = '{key}' FOR UPDATE"
    );
    holder.batch_execute(&lock).await.unwrap();
    holder
}

#[tokio::test]
async fn statement_timeout_ends_statement_without_cancel_request() {
    for mode in MODES {
        let proxied = ProxiedStore::new(mode).await;
        proxied.put("held").await;
        let admin = proxied.schema.admin().await;
        let holder = hold(&proxied.schema, "held").await;
        // Long enough for the test to see the statement wait.
        let late = ExecutionContext::new().with_timeout(Duration::from_secs(4));
        let (store, name) = (proxied.store.clone(), ns("acme"));
        proxied.proxy.refuse(true);
        let put = tokio::spawn(async move { store.put(&late, &name, "held", bytes("new")).await });
        proxied.schema.until_waiting(&admin, 1).await;
        let error = put.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{mode:?}");
        // The row is still locked, so only `statement_timeout` ends the statement.
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE usename = '{}_login' AND (state <> 'idle' OR wait_event_type = 'Lock')",
            proxied.schema.name
        );
        until("the end of the statement", async || one::<i64>(&admin, &waiting).await == 0).await;
        assert_eq!(proxied.proxy.cancels(), 0);
        holder.batch_execute("ROLLBACK").await.unwrap();
        let value = proxied.direct.get(&ctx(), &ns("acme"), "held").await.unwrap();
        assert_eq!(value, Some(bytes("old")));

        proxied.proxy.refuse(false);
        proxied.store.put(&ctx(), &ns("acme"), "held", bytes("new")).await.unwrap();
    }
}

#[tokio::test]
async fn deadline_of_one_call_does_not_affect_the_next() {
    for mode in MODES {
        let proxied = ProxiedStore::new(mode).await;
        let acme = ns("acme");
        proxied.put("held").await;
        let admin = proxied.schema.admin().await;
        let short = || ExecutionContext::new().with_timeout(Duration::from_millis(300));
        // One call that usually completes before its deadline, and one that does not.
        let _ = proxied.store.get(&short(), &acme, "held").await;
        let holder = hold(&proxied.schema, "held").await;
        let late = proxied.store.put(&short(), &acme, "held", bytes("late")).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);

        for context in [ExecutionContext::new(), ctx()] {
            let (store, name) = (proxied.store.clone(), acme.clone());
            let put =
                tokio::spawn(async move { store.put(&context, &name, "held", bytes("new")).await });
            let waited = format!(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE usename = '{}_login' AND wait_event_type = 'Lock'
                    AND clock_timestamp() > query_start + interval '1 second'",
                proxied.schema.name
            );
            let outlasts = async || put.is_finished() || one::<i64>(&admin, &waited).await == 1;
            until("a statement longer than the previous timeout", outlasts).await;
            holder.batch_execute("ROLLBACK").await.unwrap();
            put.await.unwrap().unwrap();
            let name = &proxied.schema.name;
            let again = format!("BEGIN; LOCK TABLE {name}.entries IN EXCLUSIVE MODE");
            holder.batch_execute(&again).await.unwrap();
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
    }
}
