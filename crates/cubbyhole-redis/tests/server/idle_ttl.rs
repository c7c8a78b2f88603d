//! Idle TTLs: the two forms of the metadata record, and refreshes that are due or skipped.

use std::time::Duration;

use cubbyhole_core::{
    Bytes, Condition, EntryMeta, EntryStore, ErrorKind, Expiry, GetOptions, OrphanAction,
    PutOptions, RecursiveScanOptions, RepairOptions, ScanItem, ScanOptions, Store, Timestamp,
};
use cubbyhole_redis::{RedisStore, repair_with_options};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, under};
use tokio::task::block_in_place;

use crate::helpers::{
    calls_of, cli, cli_number, config, dump_keys, new_prefix, open, shared_server,
};
use crate::proxy::{ProxiedStore, script_keys};

const HOUR: Duration = Duration::from_secs(3600);

fn refresh() -> GetOptions {
    GetOptions::new().refreshing()
}

/// The lengths of the metadata record without and with an idle TTL.
const FIRST_FORM: u64 = 38;
const IDLE_FORM: u64 = 44;

/// Writes an entry with raw commands. The record has the first form, and the idle TTL behind it if
/// there is one.
fn put_raw(server: &RedisServer, prefix: &str, key: &str, expires: u64, idle: Option<u64>) {
    let stem = format!("{prefix}{{acme}}");
    let record = r"
        local record = string.rep('v', 16) .. struct.pack('>I6I6I6I4', 1, 2, ARGV[2], 3)
        if ARGV[3] ~= '' then
          record = record .. struct.pack('>I6', ARGV[3])
        end
        redis.call('HSET', KEYS[1], ARGV[1], record)";
    let idle = idle.map_or_else(String::new, |idle| idle.to_string());
    let metas = format!("{stem}m");
    cli(server, &["EVAL", record, "1", &metas, key, &expires.to_string(), &idle]);
    cli(server, &["ZADD", &format!("{stem}k"), "0", key]);
    cli(server, &["SET", &format!("{stem}v{key}"), "old"]);
    if expires > 0 {
        cli(server, &["ZADD", &format!("{stem}x"), &expires.to_string(), key]);
        cli(server, &["PEXPIREAT", &format!("{stem}v{key}"), &(expires - 1).to_string()]);
    }
}

fn record_length(server: &RedisServer, prefix: &str, key: &str) -> u64 {
    block_in_place(|| cli_number(server, &["HSTRLEN", &format!("{prefix}{{acme}}m"), key]))
}

/// Asserts that the server expires the value of a live entry one millisecond before the instant in
/// its metadata, and that the index has the same instant.
fn check_expiry(server: &RedisServer, prefix: &str, key: &str, meta: &EntryMeta) {
    let expires_at = meta.expires_at.unwrap().as_millis();
    let stem = format!("{prefix}{{acme}}");
    block_in_place(|| {
        assert_eq!(cli_number(server, &["PEXPIRETIME", &format!("{stem}v{key}")]), expires_at - 1);
        assert_eq!(cli_number(server, &["ZSCORE", &format!("{stem}x"), key]), expires_at);
    });
}

async fn meta(store: &RedisStore, key: &str, options: GetOptions) -> EntryMeta {
    store.get_entry(&ctx(), &ns("acme"), key, options).await.unwrap().unwrap().meta
}

/// An idle TTL of which more than a tenth has passed.
async fn due(store: &RedisStore) -> PutOptions {
    idle_with_left(store, HOUR / 2).await
}

/// An idle TTL of an hour of which this much is left.
async fn idle_with_left(store: &RedisStore, left: Duration) -> PutOptions {
    let now = store.current_time(&ctx(), &ns("acme")).await.unwrap();
    let expires_at = now.checked_add(left).unwrap();
    PutOptions::new().with_expiry(Expiry::IdleUntil { ttl: HOUR, expires_at })
}

async fn put(store: &RedisStore, key: &str, options: PutOptions) {
    store.put_with_options(&ctx(), &ns("acme"), key, bytes("v"), options).await.unwrap();
}

fn keys_of(items: &[ScanItem<Bytes>]) -> Vec<&str> {
    items.iter().map(|item| item.key.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_the_first_form_are_read_refreshed_and_listed() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    put(&store, "c", PutOptions::new()).await;
    let now = store.current_time(&context, &acme).await.unwrap();
    let expires_at = now.checked_add(HOUR).unwrap();
    block_in_place(|| {
        put_raw(server, &prefix, "a", 0, None);
        put_raw(server, &prefix, "b", expires_at.as_millis(), None);
    });

    for options in [GetOptions::new(), refresh()] {
        let found = [meta(&store, "a", options).await, meta(&store, "b", options).await];
        for (meta, expires_at) in found.iter().zip([None, Some(expires_at)]) {
            assert_eq!(meta.version.to_bytes(), [b'v'; 16]);
            assert_eq!((meta.created_at.as_millis(), meta.updated_at.as_millis()), (1, 2));
            assert_eq!((meta.expires_at, meta.idle_ttl), (expires_at, None));
        }
    }
    let stats = store.stat(&context, &acme, &["a", "b"]).await.unwrap();
    assert!(stats.iter().all(|stat| stat.unwrap().value_bytes == Some(3)), "{stats:?}");
    for options in [ScanOptions::new(), ScanOptions::new().refreshing()] {
        for options in [options.clone(), options.clone().keys_only()] {
            let page = store.scan(&context, &acme, options.clone()).await.unwrap();
            assert_eq!(keys_of(&page.items), ["a", "b", "c"]);
            assert_eq!(page.items[1].meta.expires_at, Some(expires_at));
            let page = store.scan(&context, &acme, options.reversed()).await.unwrap();
            assert_eq!(keys_of(&page.items), ["c", "b", "a"]);
        }
    }
    let options = RecursiveScanOptions::new();
    let page = store.scan_recursive(&context, &under("acme"), options).await.unwrap();
    assert_eq!(page.items.len(), 3);

    // An extension keeps the form.
    let extend = GetOptions::new().with_extended_ttl(2 * HOUR).refreshing();
    let many = store.get_many(&context, &acme, &["b", "a", "none", "b"], extend).await.unwrap();
    let many: Vec<_> = many.into_iter().map(|entry| entry.unwrap().map(|e| e.meta)).collect();
    let extended = many[0].unwrap();
    assert!(extended.expires_at.unwrap() >= now.checked_add(2 * HOUR).unwrap());
    assert_eq!((many[1].unwrap().expires_at, many[2], many[3]), (None, None, many[0]));
    check_expiry(server, &prefix, "b", &extended);
    for key in ["a", "b", "c"] {
        assert_eq!(record_length(server, &prefix, key), FIRST_FORM, "{key}");
    }

    // Only an idle TTL changes it.
    for (expiry, length, idle_ttl) in [
        (Expiry::Idle(HOUR), IDLE_FORM, Some(HOUR)),
        (Expiry::After(HOUR), FIRST_FORM, None),
        (Expiry::Idle(Duration::from_nanos(1)), IDLE_FORM, None),
        (Expiry::Never, FIRST_FORM, None),
    ] {
        block_in_place(|| put_raw(server, &prefix, "b", expires_at.as_millis(), None));
        assert!(store.touch(&context, &acme, "b", expiry, Condition::IfPresent).await.unwrap());
        assert_eq!(record_length(server, &prefix, "b"), length, "{expiry:?}");
        if expiry == Expiry::Idle(HOUR) || idle_ttl.is_none() && length == FIRST_FORM {
            assert_eq!(meta(&store, "b", GetOptions::new()).await.idle_ttl, idle_ttl);
        }
    }
    put(&store, "b", PutOptions::new().with_idle_ttl(HOUR)).await;
    assert_eq!(record_length(server, &prefix, "b"), IDLE_FORM);
    put(&store, "b", PutOptions::new()).await;
    assert_eq!(record_length(server, &prefix, "b"), FIRST_FORM, "a put clears the idle TTL");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_ttl_behind_a_record_without_expiry_is_ignored() {
    // A build that does not know idle TTLs leaves this when it removes the expiry of an entry.
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    put(&store, "other", PutOptions::new()).await;
    block_in_place(|| put_raw(server, &prefix, "k", 0, Some(1000)));
    let found = meta(&store, "k", refresh()).await;
    assert_eq!((found.expires_at, found.idle_ttl), (None, None));
    let extend = refresh().with_extended_ttl(HOUR);
    assert_eq!(meta(&store, "k", extend).await.expires_at, None);
    let page = store.scan(&ctx(), &ns("acme"), ScanOptions::new().refreshing()).await.unwrap();
    assert_eq!(keys_of(&page.items), ["k", "other"]);
    assert!(store.delete_entry(&ctx(), &ns("acme"), "k", Condition::IfPresent).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_restores_entries_of_both_forms_with_their_idle_ttl() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    put(&store, "other", PutOptions::new()).await;
    let expires = store.current_time(&context, &acme).await.unwrap().as_millis() + 3_600_000;
    let (keys, expiries) = (format!("{prefix}{{acme}}k"), format!("{prefix}{{acme}}x"));
    for action in [OrphanAction::List, OrphanAction::Register, OrphanAction::Remove] {
        block_in_place(|| {
            put_raw(server, &prefix, "first", expires, None);
            put_raw(server, &prefix, "idle", expires, Some(7_200_000));
            put_raw(server, &prefix, "unlisted", expires, Some(7_200_000));
            cli(server, &["ZADD", &expiries, "5", "first", "5", "idle"]);
            cli(server, &["ZREM", &expiries, "unlisted"]);
            cli(server, &["ZREM", &keys, "unlisted"]);
        });
        let options = RepairOptions::new().with_orphans(action);
        let repair = repair_with_options(&context, config(server.url(), &prefix), &options);
        let report = repair.await.unwrap();
        assert!(report.failure.is_none() && report.orphans.values == 0, "{report:?}");
        assert_eq!(
            store.list(&context, &acme, None).await.unwrap(),
            ["first", "idle", "other", "unlisted"]
        );
        for (key, idle_ttl) in
            [("first", None), ("idle", Some(2 * HOUR)), ("unlisted", Some(2 * HOUR))]
        {
            let meta = meta(&store, key, GetOptions::new()).await;
            assert_eq!(meta.idle_ttl, idle_ttl, "{key}");
            assert_eq!(meta.version.to_bytes(), [b'v'; 16], "{key}");
            check_expiry(server, &prefix, key, &meta);
        }
    }
    // Idle entries with a stale expiry survive a sweep, which corrects it.
    block_in_place(|| cli(server, &["ZADD", &expiries, "5", "idle"]));
    assert_eq!(store.evict_expired(&context).await.unwrap(), 0);
    check_expiry(server, &prefix, "idle", &meta(&store, "idle", GetOptions::new()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_that_is_due_moves_metadata_index_and_value_together() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    let all = ["a", "b", "c"];
    for how in 0..4 {
        for key in all {
            put(&store, key, due(&store).await).await;
        }
        let before = store.stat(&context, &acme, &all).await.unwrap();
        let now = store.current_time(&context, &acme).await.unwrap();
        let found: Vec<EntryMeta> = match how {
            0 => {
                let mut found = Vec::new();
                for key in all {
                    found.push(meta(&store, key, refresh()).await);
                }
                found
            }
            1 => {
                let asked = ["a", "b", "none", "a", "c"];
                let many = store.get_many(&context, &acme, &asked, refresh()).await.unwrap();
                let mut many: Vec<_> =
                    many.into_iter().filter_map(|e| e.unwrap().map(|e| e.meta)).collect();
                assert_eq!(many.remove(2), many[0], "the key that occurs twice");
                many
            }
            _ => {
                let mut options = ScanOptions::new().refreshing();
                if how == 2 {
                    options = options.keys_only();
                }
                let page = store.scan(&context, &acme, options).await.unwrap();
                page.items.into_iter().map(|item| item.meta).collect()
            }
        };
        assert_eq!(found.len(), 3, "{how}");
        for ((key, meta), before) in all.iter().zip(&found).zip(before) {
            let before = before.unwrap().meta;
            assert!(meta.expires_at.unwrap() >= now.checked_add(HOUR).unwrap(), "{how}");
            let unchanged = EntryMeta { expires_at: before.expires_at, ..*meta };
            assert_eq!(unchanged, before, "{how}: only the expiry changes");
            check_expiry(server, &prefix, key, meta);
        }
        let after = store.stat(&context, &acme, &all).await.unwrap();
        let after: Vec<EntryMeta> = after.into_iter().map(|stat| stat.unwrap().meta).collect();
        assert_eq!(after, found, "{how}: the returned metadata is the stored one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshing_page_refreshes_only_the_entries_that_it_returns() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    for reversed in [false, true] {
        for values in [false, true] {
            for key in ["a", "b", "c"] {
                put(&store, key, due(&store).await).await;
            }
            let mut options = ScanOptions::new().refreshing().with_limit(2);
            if reversed {
                options = options.reversed();
            }
            if !values {
                options = options.keys_only();
            }
            let page = store.scan(&context, &acme, options).await.unwrap();
            assert_eq!(page.next.as_deref(), Some("b"));
            let stats = store.stat(&context, &acme, &["a", "b", "c"]).await.unwrap();
            let now = store.current_time(&context, &acme).await.unwrap();
            let is_due = stats.into_iter().map(|stat| stat.unwrap().meta.refreshed(now).is_some());
            let expected = if reversed { [true, false, false] } else { [false, false, true] };
            assert_eq!(is_due.collect::<Vec<_>>(), expected, "{reversed} {values}");
        }
    }
}

/// The number of changes that the server counts, and the calls of the commands that write.
fn changes(server: &RedisServer) -> (String, Vec<u64>) {
    block_in_place(|| {
        let info = cli(server, &["INFO", "persistence"]);
        let dirty = info.lines().find(|line| line.starts_with("rdb_changes_since_last_save:"));
        let writes = ["hset", "zadd", "zrem", "pexpireat", "set", "wait"];
        (
            dirty.unwrap().trim().to_owned(),
            writes.iter().map(|command| calls_of(server, command)).collect(),
        )
    })
}

/// Makes every refreshing read.
async fn refresh_everything(store: &RedisStore) -> cubbyhole_core::Result<()> {
    let (context, acme) = (ctx(), ns("acme"));
    store.get_entry(&context, &acme, "idle", refresh()).await?;
    for entry in store.get_many(&context, &acme, &["idle", "ttl", "k", "none"], refresh()).await? {
        entry?;
    }
    let page = ScanOptions::new().refreshing();
    store.scan(&context, &acme, page.clone()).await?;
    store.scan(&context, &acme, page.clone().reversed()).await?;
    store.scan(&context, &acme, page.keys_only()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_refresh_writes_nothing_and_waits_for_no_replica() {
    let server = block_in_place(RedisServer::start).unwrap();
    let store = open(server.url(), "p:").await;
    // There is no replica, so a write on this store fails after the wait.
    let waiting = config(server.url(), "p:").with_wait_for_replicas(1);
    let waiting = waiting.with_wait_timeout(Duration::from_millis(20));
    let waiting = RedisStore::open(&ctx(), waiting).await.unwrap();
    put(&store, "k", PutOptions::new()).await;
    put(&store, "ttl", PutOptions::new().with_ttl(HOUR)).await;
    // Less than a tenth of the hour has passed.
    put(&store, "idle", idle_with_left(&store, HOUR * 19 / 20).await).await;
    let before = (changes(&server), block_in_place(|| dump_keys(&server, "p:")));
    refresh_everything(&store).await.unwrap();
    refresh_everything(&waiting).await.unwrap();
    let slide = GetOptions::new().with_extended_ttl(HOUR / 2);
    meta(&store, "ttl", slide).await;
    let after = (changes(&server), block_in_place(|| dump_keys(&server, "p:")));
    assert_eq!(before, after);

    for number in 0..4 {
        put(&store, "idle", due(&store).await).await;
        let (context, acme) = (ctx(), ns("acme"));
        let page = ScanOptions::new().refreshing();
        let error = match number {
            0 => waiting.get_entry(&context, &acme, "idle", refresh()).await.map(drop),
            1 => waiting.get_many(&context, &acme, &["k", "idle"], refresh()).await.map(drop),
            2 => waiting.scan(&context, &acme, page).await.map(drop),
            _ => waiting.scan(&context, &acme, page.keys_only()).await.map(drop),
        };
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{number}: a write must wait");
        assert!(error.may_have_been_applied(), "{number}: {error:?}");
        let left = meta(&store, "idle", GetOptions::new()).await.expires_at.unwrap();
        let now = store.current_time(&context, &acme).await.unwrap();
        assert!(left.saturating_since(now) > HOUR * 9 / 10, "{number}: not refreshed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_ends_at_the_last_instant_of_the_year_9999() {
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let now = store.current_time(&ctx(), &ns("acme")).await.unwrap();
    let ttl = Duration::from_millis(Timestamp::MAX.as_millis() - 1);
    let expires_at = now.checked_add(HOUR).unwrap();
    let long = PutOptions::new().with_expiry(Expiry::IdleUntil { ttl, expires_at });
    put(&store, "k", long).await;
    let found = meta(&store, "k", refresh()).await;
    assert_eq!((found.expires_at, found.idle_ttl), (Some(Timestamp::MAX), Some(ttl)));
    check_expiry(server, &prefix, "k", &found);

    let refused = PutOptions::new().with_idle_ttl(ttl);
    let put = store.put_with_options(&ctx(), &ns("acme"), "k", bytes("v"), refused).await;
    let touch = store.touch(&ctx(), &ns("acme"), "k", Expiry::Idle(ttl), Condition::IfAbsent).await;
    for error in [put.unwrap_err(), touch.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("idle TTL"), "{error}");
    }
}

#[tokio::test]
async fn entry_deleted_between_page_and_refresh_is_not_on_the_page() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let (context, acme) = (ctx(), ns("acme"));
    for values in [false, true] {
        for key in ["a", "b", "c"] {
            put(&direct, key, due(&direct).await).await;
        }
        let mut options = ScanOptions::new().refreshing();
        if !values {
            options = options.keys_only();
        }
        proxy.hold_first(|command| script_keys(command).iter().any(|key| key.ends_with("vb")));
        let (page, ()) = tokio::join!(store.scan(&context, &acme, options), async {
            proxy.until_held().await;
            direct.delete(&ctx(), &acme, "b").await.unwrap();
            proxy.release();
        });
        let page = page.unwrap();
        assert_eq!((keys_of(&page.items), page.next), (vec!["a", "c"], None), "{values}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshing_read_of_large_values_refreshes_all_of_them() {
    const COUNT: usize = 20;
    let (server, prefix) = (block_in_place(shared_server), new_prefix());
    let store = open(server.url(), &prefix).await;
    let (context, acme) = (ctx(), ns("acme"));
    let keys: Vec<String> = (0..COUNT).map(|number| format!("k{number:02}")).collect();
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let put_all = async || {
        let options = due(&store).await;
        for key in &keys {
            // 20 MiB in total, more than one script reads.
            let value = Bytes::from(vec![b'v'; 1024 * 1024]);
            store.put_with_options(&context, &acme, key, value, options).await.unwrap();
        }
    };
    let check_all = async |metas: Vec<EntryMeta>| {
        assert_eq!(metas.len(), COUNT);
        for (key, meta) in keys.iter().zip(metas) {
            check_expiry(server, &prefix, key, &meta);
            let now = store.current_time(&context, &acme).await.unwrap();
            assert!(meta.expires_at.unwrap().saturating_since(now) > HOUR * 9 / 10, "{key}");
        }
    };
    put_all().await;
    let many = store.get_many(&context, &acme, &asked, refresh()).await.unwrap();
    check_all(many.into_iter().map(|entry| entry.unwrap().unwrap().meta).collect()).await;
    put_all().await;
    let page = store.scan(&context, &acme, ScanOptions::new().refreshing()).await.unwrap();
    check_all(page.items.into_iter().map(|item| item.meta).collect()).await;
}
