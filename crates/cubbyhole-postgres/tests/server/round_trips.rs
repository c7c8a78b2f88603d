//! One round trip for each call, counted on the wire, with row security on. Everything runs on one
//! thread: what the client sends together the proxy then sees together.

use std::time::Duration;

use cubbyhole_core::{
    EntryStore, EntryStoreExt, ErrorKind, ExecutionContext, NamespacePrefix, ScanOptions, Store,
    Update,
};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};
use cubbyhole_testkit::round_trips::{self, Prepared};

use crate::by_hand::one;
use crate::proxy::Proxy;
use crate::support::Schema;

/// Each way that the URL can ask for.
const WAYS: [&str; 4] =
    ["", "&statement_cache=off", "&pooler=transaction", "&pooler=transaction&statement_cache=off"];

/// A store whose one connection leads through the proxy, and one beside it.
struct Wired {
    schema: Schema,
    proxy: Proxy,
    store: PostgresStore,
    direct: PostgresStore,
}

impl Wired {
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

    /// Writes what the calls find.
    async fn prepare(&self) -> Prepared {
        for scope in ["gone:a", "gone:b"] {
            self.direct.put(&ctx(), &ns(scope), "k", bytes("old")).await.unwrap();
        }
        self.schema.execute(&self.schema.row("dead", "k", Some(1))).await;
        round_trips::prepare(&self.direct).await
    }

    /// Makes every call, each with a context of its own, and tells how many round trips each took.
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

/// What took more or less than one round trip.
fn not_one(seen: &[(&'static str, usize)]) -> Vec<(&'static str, usize)> {
    assert_eq!(seen.len(), 24);
    seen.iter().copied().filter(|(_, round_trips)| *round_trips != 1).collect()
}

#[tokio::test]
async fn every_call_is_one_round_trip_the_first_of_its_kind_on_a_connection_too() {
    for way in WAYS {
        let wired = Wired::new(way).await;
        for pass in ["first", "second"] {
            let seen = wired.every_call(ExecutionContext::new).await;
            assert_eq!(not_one(&seen), [], "{pass} pass with {way:?}");
        }
        assert_eq!(wired.proxy.connections(), 1);
    }
}

#[tokio::test]
async fn a_deadline_reaches_the_server_within_the_same_round_trip() {
    for way in WAYS {
        let wired = Wired::new(way).await;
        for pass in ["first", "second"] {
            let mut seconds = 60;
            // Each is so much longer than the one before that the server's limit is set anew.
            let longer = || {
                seconds += seconds / 3;
                ExecutionContext::new().with_timeout(Duration::from_secs(seconds))
            };
            let seen = wired.every_call(longer).await;
            assert_eq!(not_one(&seen), [], "{pass} pass with {way:?}");
        }
        let mut has_deadline = false;
        let now_and_then = || {
            has_deadline = !has_deadline;
            if has_deadline { ctx() } else { ExecutionContext::new() }
        };
        let seen = wired.every_call(now_and_then).await;
        assert_eq!(not_one(&seen), [], "every second call has a deadline, with {way:?}");
        assert_eq!((wired.proxy.connections(), wired.proxy.cancels()), (1, 0));
    }
}

#[tokio::test]
async fn a_far_server_takes_no_more_round_trips() {
    let wired = Wired::new("").await;
    wired.proxy.delay(Duration::from_millis(2));
    for context in [ExecutionContext::new, ctx] {
        assert_eq!(not_one(&wired.every_call(context).await), []);
    }
}

#[tokio::test]
async fn an_update_is_a_read_and_a_write_and_a_long_sweep_a_round_trip_a_step() {
    let wired = Wired::new("").await;
    wired.put("k").await;
    let before = wired.proxy.round_trips();
    let (context, acme) = (ctx(), ns("acme"));
    let update = wired.store.update(&context, &acme, "k", |entry| {
        assert!(entry.is_some());
        Ok(Update::Put(bytes("new")))
    });
    update.await.unwrap();
    assert_eq!(wired.proxy.round_trips() - before, 2);

    let dead = format!(
        "INSERT INTO {}.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
         SELECT 'acme', 'dead ' || n, 'acme', gen_random_uuid(), 0, 0, 1, ''
         FROM generate_series(1, 2500) n",
        wired.schema.name
    );
    wired.schema.execute(&dead).await;
    let before = wired.proxy.round_trips();
    assert_eq!(wired.store.evict_expired(&ctx()).await.unwrap(), 2500);
    assert_eq!(wired.proxy.round_trips() - before, 3);
}

/// What holds a row of the tenant `acme`, until it is dropped or rolled back.
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
async fn the_server_ends_a_late_statement_by_itself_where_no_request_to_cancel_arrives() {
    for way in WAYS {
        let wired = Wired::new(way).await;
        wired.put("held").await;
        let admin = wired.schema.admin().await;
        let holder = hold(&wired.schema, "held").await;
        // Long enough for the statement to be seen as it waits.
        let late = ExecutionContext::new().with_timeout(Duration::from_secs(4));
        let (store, name) = (wired.store.clone(), ns("acme"));
        wired.proxy.refuse(true);
        let put = tokio::spawn(async move { store.put(&late, &name, "held", bytes("new")).await });
        wired.schema.until_waiting(&admin, 1).await;
        let error = put.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{way:?}");
        // The row is still held: nothing but the server's own limit ends the statement.
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE usename = '{}_login' AND (state <> 'idle' OR wait_event_type = 'Lock')",
            wired.schema.name
        );
        until("the end of the statement", async || one::<i64>(&admin, &waiting).await == 0).await;
        assert_eq!(wired.proxy.cancels(), 0);
        holder.batch_execute("ROLLBACK").await.unwrap();
        let value = wired.direct.get(&ctx(), &ns("acme"), "held").await.unwrap();
        assert_eq!(value, Some(bytes("old")));

        wired.proxy.refuse(false);
        wired.store.put(&ctx(), &ns("acme"), "held", bytes("new")).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_is_not_cut_by_the_deadline_of_one_before_it() {
    for way in WAYS {
        let wired = Wired::new(way).await;
        let acme = ns("acme");
        wired.put("held").await;
        let admin = wired.schema.admin().await;
        let short = || ExecutionContext::new().with_timeout(Duration::from_millis(300));
        // One that is done in time, where the machine is quick enough, and one that is not.
        let _ = wired.store.get(&short(), &acme, "held").await;
        let holder = hold(&wired.schema, "held").await;
        let late = wired.store.put(&short(), &acme, "held", bytes("late")).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);

        for context in [ExecutionContext::new(), ctx()] {
            let (store, name) = (wired.store.clone(), acme.clone());
            let put =
                tokio::spawn(async move { store.put(&context, &name, "held", bytes("new")).await });
            let waited = format!(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE usename = '{}_login' AND wait_event_type = 'Lock'
                    AND clock_timestamp() > query_start + interval '1 second'",
                wired.schema.name
            );
            let outlasts = async || put.is_finished() || one::<i64>(&admin, &waited).await == 1;
            until("a statement that outlasts the limit", outlasts).await;
            holder.batch_execute("ROLLBACK").await.unwrap();
            put.await.unwrap().unwrap();
            let name = &wired.schema.name;
            let again = format!("BEGIN; LOCK TABLE {name}.entries IN EXCLUSIVE MODE");
            holder.batch_execute(&again).await.unwrap();
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
    }
}
