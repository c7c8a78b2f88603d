//! Refreshing reads: when they write, which rows they lock, and their results under concurrency.

use std::time::Duration;

use cubbyhole_core::{
    EntryMeta, EntryStore, ErrorKind, ExecutionContext, GetOptions, PutOptions, ScanItem,
    ScanOptions, Store,
};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{bytes, ctx, ns};
use tokio_postgres::Client;

use crate::sql::{one, rows};
use crate::support::Schema;

const TTL: Duration = Duration::from_millis(1000);
/// Less than a tenth of [`TTL`].
const BEFORE_DUE: Duration = Duration::from_millis(99);

/// A store with a stopped clock and the entries `a`, `b`, `c` and `d`, whose idle TTL is [`TTL`].
struct Idle {
    schema: Schema,
    store: PostgresStore,
    admin: Client,
}

impl Idle {
    async fn new() -> Self {
        let schema = Schema::new().await;
        schema.stop_clock().await;
        let (store, admin) = (schema.open().await, schema.admin().await);
        for key in ["a", "b", "c", "d"] {
            let options = PutOptions::new().with_idle_ttl(TTL);
            store.put_with_options(&ctx(), &ns("a"), key, bytes(key), options).await.unwrap();
        }
        Self { schema, store, admin }
    }

    /// The physical identity of each row: it changes with every write and every lock.
    async fn physical(&self) -> String {
        let sql = format!(
            "SELECT string_agg(concat_ws(' ', key, ctid, xmin, xmax), ', ' ORDER BY key)
                FROM {}.entries",
            self.schema.name
        );
        one(&self.admin, &sql).await
    }

    /// Every refreshing read of all entries. Returns the metadata that each returns.
    async fn every_read(&self) -> Vec<Vec<EntryMeta>> {
        let (context, name) = (ctx(), ns("a"));
        let read = GetOptions::new().refreshing();
        let mut single = Vec::new();
        for key in ["a", "b", "c", "d"] {
            let entry = self.store.get_entry(&context, &name, key, read).await.unwrap().unwrap();
            assert_eq!(entry.value, bytes(key));
            single.push(entry.meta);
        }
        let keys = ["d", "a", "none", "c", "b", "a"];
        let many = self.store.get_many(&context, &name, &keys, read).await.unwrap();
        assert_eq!(many.len(), keys.len());
        let many = many.into_iter().filter_map(|entry| entry.unwrap()).map(|entry| entry.meta);
        let mut all = vec![single, many.collect()];
        for scan in
            [ScanOptions::new(), ScanOptions::new().reversed(), ScanOptions::new().keys_only()]
        {
            let page = self.store.scan(&context, &name, scan.refreshing()).await.unwrap();
            assert_eq!(page.items.len(), 4);
            all.push(page.items.iter().map(|item| item.meta).collect());
        }
        all
    }

    async fn metas(&self) -> Vec<EntryMeta> {
        let stats = self.store.stat(&ctx(), &ns("a"), &["a", "b", "c", "d"]).await.unwrap();
        stats.into_iter().map(|stat| stat.unwrap().meta).collect()
    }

    /// The keys whose expiry differs from `before`.
    async fn refreshed(&self, before: &[EntryMeta]) -> String {
        let after = self.metas().await;
        let changed = before.iter().zip(&after).zip(["a", "b", "c", "d"]);
        changed
            .filter(|((old, new), _)| old.expires_at != new.expires_at)
            .map(|(_, key)| key)
            .collect()
    }

    /// Locks a row until the connection is dropped.
    async fn lock(&self, key: &str) -> Client {
        let holder = self.schema.admin().await;
        let sql = format!(
            "BEGIN; SELECT FROM {}.entries WHERE key = '{key}' FOR UPDATE",
            self.schema.name
        );
        holder.batch_execute(&sql).await.unwrap();
        holder
    }
}

fn keys(items: &[ScanItem<cubbyhole_core::Bytes>]) -> String {
    items.iter().map(|item| item.key.as_str()).collect()
}

#[tokio::test]
async fn refresh_before_a_tenth_of_the_ttl_neither_writes_nor_waits() {
    let idle = Idle::new().await;
    let before = idle.metas().await;
    idle.schema.advance(BEFORE_DUE).await;
    let physical = idle.physical().await;
    for metas in idle.every_read().await {
        assert!(metas.iter().all(|meta| meta.expires_at == before[0].expires_at));
    }
    assert_eq!(idle.physical().await, physical);
    // Another session holds every row: a call that waits for one exceeds its deadline.
    let holder = idle.schema.admin().await;
    let lock = format!("BEGIN; SELECT FROM {}.entries FOR UPDATE", idle.schema.name);
    holder.batch_execute(&lock).await.unwrap();
    idle.every_read().await;
    drop(holder);
    // The same in a transaction that rejects every lock and write.
    let login = idle.schema.login().await;
    login.batch_execute("BEGIN READ ONLY").await.unwrap();
    for (call, expected) in CALLS {
        let sql = format!("SELECT FROM {call}").replace('@', &idle.schema.name);
        assert_eq!(rows(&login, &sql).await, expected, "{call}");
    }
    let assigned = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
    assert!(!one::<bool>(&login, assigned).await);
    login.batch_execute("COMMIT; BEGIN").await.unwrap();
    for (call, expected) in CALLS {
        let sql = format!("SELECT FROM {call}").replace('@', &idle.schema.name);
        assert_eq!(rows(&login, &sql).await, expected, "{call}");
        // A row lock would need a transaction id.
        assert!(!one::<bool>(&login, assigned).await, "{call}");
    }
    login.batch_execute("COMMIT").await.unwrap();
    // The check can fail: a millisecond later a refresh is due.
    idle.schema.advance(Duration::from_millis(1)).await;
    for (call, _) in CALLS {
        login.batch_execute("BEGIN").await.unwrap();
        let sql = format!("SELECT FROM {call}").replace('@', &idle.schema.name);
        rows(&login, &sql).await;
        assert!(one::<bool>(&login, assigned).await, "{call}");
        login.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// Refreshing calls with the number of entries that they return.
const CALLS: [(&str, u64); 5] = [
    ("@.get_entry('a', 'a', 'a', NULL, true)", 1),
    ("@.get_many('a', 'a', '{a,b,none}', NULL, true)", 2),
    ("@.scan_refreshing('a', 'a', '', NULL, 10, 1000, true, false)", 4),
    ("@.scan_refreshing('a', 'a', '', NULL, 10, 1000, true, true)", 4),
    ("@.scan_refreshing('a', 'a', '', NULL, 10, 1000, false, false)", 4),
];

#[tokio::test]
async fn refresh_after_a_tenth_of_the_ttl_changes_only_the_expiry() {
    let idle = Idle::new().await;
    let before = idle.metas().await;
    for (round, call) in (1..).zip(["get_entry", "get_many", "scan", "reversed", "keys only"]) {
        idle.schema.advance(TTL / 10).await;
        let (context, name, read) = (ctx(), ns("a"), GetOptions::new().refreshing());
        let scan = ScanOptions::new().refreshing();
        let metas: Vec<EntryMeta> = match call {
            "get_entry" => {
                let entry =
                    idle.store.get_entry(&context, &name, "b", read).await.unwrap().unwrap();
                vec![entry.meta]
            }
            "get_many" => {
                let many = idle.store.get_many(&context, &name, &["b", "b"], read).await.unwrap();
                many.into_iter().map(|entry| entry.unwrap().unwrap().meta).collect()
            }
            _ => {
                let scan = scan.with_prefix("b");
                let scan = if call == "reversed" { scan.reversed() } else { scan };
                let scan = if call == "keys only" { scan.keys_only() } else { scan };
                let page = idle.store.scan(&context, &name, scan).await.unwrap();
                page.items.iter().map(|item| item.meta).collect()
            }
        };
        let expected = EntryMeta {
            expires_at: before[1].expires_at.map(|at| at.checked_add(TTL / 10 * round).unwrap()),
            ..before[1]
        };
        assert!(
            !metas.is_empty() && metas.iter().all(|meta| *meta == expected),
            "{call}: {metas:?}"
        );
        assert_eq!(idle.metas().await[1], expected, "{call}");
        assert_eq!(idle.refreshed(&before).await, "b", "{call}");
    }
}

#[tokio::test]
async fn page_refreshes_exactly_the_entries_that_it_returns() {
    let idle = Idle::new().await;
    for (scan, expected) in [
        (ScanOptions::new().with_limit(2), "ab"),
        (ScanOptions::new().with_limit(2).reversed(), "dc"),
        (ScanOptions::new().with_limit(1).with_after("b"), "c"),
        (ScanOptions::new().with_limit(2).with_after("c").reversed(), "ba"),
    ] {
        idle.schema.advance(TTL / 10).await;
        let before = idle.metas().await;
        let page = idle.store.scan(&ctx(), &ns("a"), scan.refreshing()).await.unwrap();
        assert_eq!(keys(&page.items), expected);
        let mut sorted: Vec<char> = expected.chars().collect();
        sorted.sort_unstable();
        assert_eq!(idle.refreshed(&before).await, sorted.iter().collect::<String>());
        let all = GetOptions::new().refreshing();
        idle.store.get_many(&ctx(), &ns("a"), &["a", "b", "c", "d"], all).await.unwrap();
    }
    // The limit of the bytes ends the page: the entry that exceeds it is not refreshed.
    idle.schema.advance(TTL / 10).await;
    let before = idle.metas().await;
    let login = idle.schema.login().await;
    let sql = "SELECT FROM @.scan_refreshing('a', 'a', '', NULL, 10, 4, true, false)
        WHERE NOT is_extra";
    assert_eq!(rows(&login, &sql.replace('@', &idle.schema.name)).await, 2);
    assert_eq!(idle.refreshed(&before).await, "ab");
}

#[tokio::test]
async fn entry_that_expires_while_a_refresh_waits_stays_absent() {
    let idle = Idle::new().await;
    idle.schema.advance(TTL / 2).await;
    let before = idle.metas().await;
    let holder = idle.lock("b").await;
    let (context, name, read) = (ctx(), ns("a"), GetOptions::new().refreshing());
    let one_entry = idle.store.get_entry(&context, &name, "b", read);
    let many = idle.store.get_many(&context, &name, &["b", "none"], read);
    let page = idle.store.scan(&context, &name, ScanOptions::new().with_prefix("b").refreshing());
    let release = async {
        idle.schema.until_waiting(&idle.admin, 3).await;
        idle.schema.advance(TTL / 2).await;
        holder.batch_execute("ROLLBACK").await.unwrap();
    };
    let (one_entry, many, page, ()) = tokio::join!(one_entry, many, page, release);
    assert_eq!(one_entry.unwrap(), None);
    assert!(many.unwrap().into_iter().all(|entry| entry.unwrap().is_none()));
    assert!(page.unwrap().items.is_empty());
    let stored = format!("SELECT expires_at FROM {}.entries WHERE key = 'b'", idle.schema.name);
    let expires_at = before[1].expires_at.unwrap().as_millis();
    assert_eq!(u64::try_from(one::<i64>(&idle.admin, &stored).await).unwrap(), expires_at);
}

#[tokio::test]
async fn page_that_changes_while_it_waits_is_refreshed_as_it_is_returned() {
    let idle = Idle::new().await;
    idle.schema.advance(TTL / 2).await;
    let before = idle.metas().await;
    let holder = idle.lock("b").await;
    let (context, name) = (ctx(), ns("a"));
    let scan = ScanOptions::new().with_limit(2).refreshing();
    let page = idle.store.scan(&context, &name, scan);
    let replace = async {
        idle.schema.until_waiting(&idle.admin, 1).await;
        let sql = format!("DELETE FROM {}.entries WHERE key = 'b'; COMMIT", idle.schema.name);
        holder.batch_execute(&sql).await.unwrap();
    };
    let (page, ()) = tokio::join!(page, replace);
    let page = page.unwrap();
    assert_eq!((keys(&page.items).as_str(), page.next.as_deref()), ("ac", Some("c")));
    let expiries = idle.store.stat(&context, &name, &["a", "c", "d"]).await.unwrap();
    let expiries: Vec<_> = expiries.into_iter().map(|stat| stat.unwrap().meta.expires_at).collect();
    let expected = before[0].expires_at.map(|at| at.checked_add(TTL / 2).unwrap());
    assert_eq!(expiries, [expected, expected, before[3].expires_at]);
    assert!(page.items.iter().all(|item| item.meta.expires_at == expected));
}

#[tokio::test]
async fn concurrent_refreshes_in_both_directions_all_succeed() {
    let idle = Idle::new().await;
    let name = ns("a");
    for _ in 0..20 {
        idle.schema.advance(TTL / 5).await;
        let scan = ScanOptions::new().refreshing();
        let (forward, backward, many, _) = tokio::join!(
            async { idle.store.scan(&ctx(), &name, scan.clone()).await },
            async { idle.store.scan(&ctx(), &name, scan.clone().reversed()).await },
            async {
                let read = GetOptions::new().refreshing();
                idle.store.get_many(&ctx(), &name, &["d", "c", "b", "a"], read).await
            },
            async { idle.store.put(&ctx(), &name, "e", bytes("e")).await.unwrap() },
        );
        let expires_at = idle.metas().await[0].expires_at;
        for page in [forward.unwrap(), backward.unwrap()] {
            let idle = page.items.iter().filter(|item| item.meta.idle_ttl.is_some());
            assert_eq!(idle.map(|item| assert_eq!(item.meta.expires_at, expires_at)).count(), 4);
        }
        let many = many.unwrap().into_iter().map(|entry| entry.unwrap().unwrap().meta.expires_at);
        assert!(many.into_iter().all(|at| at == expires_at));
    }
}

#[tokio::test]
async fn refresh_that_is_given_up_has_an_unknown_outcome() {
    let idle = Idle::new().await;
    idle.schema.advance(TTL / 2).await;
    let holder = idle.lock("b").await;
    let late = || ExecutionContext::new().with_timeout(Duration::from_millis(200));
    let (name, read) = (ns("a"), GetOptions::new().refreshing());
    let one_entry = idle.store.get_entry(&late(), &name, "b", read).await.unwrap_err();
    let many = idle.store.get_many(&late(), &name, &["b"], read).await.unwrap_err();
    let scan = ScanOptions::new().refreshing();
    let page = idle.store.scan(&late(), &name, scan).await.unwrap_err();
    for error in [one_entry, many, page] {
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
        assert!(error.may_have_been_applied(), "{error:?}");
    }
    // Reads that do not refresh do not wait.
    idle.store.get_entry(&late(), &name, "b", GetOptions::new()).await.unwrap();
    drop(holder);
}
