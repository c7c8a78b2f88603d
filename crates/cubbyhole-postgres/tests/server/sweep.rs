//! Expiry and sweeps with concurrent access to the same rows.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, Expiry, GetOptions, PutOptions, Result, Store, Version,
};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{bytes, ctx, ns};
use futures_util::future::{join, join_all};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::sql::one;
use crate::support::Schema;

const TEN: Duration = Duration::from_secs(10);

fn ten() -> PutOptions {
    PutOptions::new().with_ttl(TEN)
}

/// A schema with a stopped clock, and a store.
async fn stopped() -> (Schema, PostgresStore) {
    let schema = Schema::new().await;
    schema.stop_clock().await;
    let store = schema.open().await;
    (schema, store)
}

/// Adds rows that expired long ago.
async fn expired_rows(schema: &Schema, tenant: &str, count: u32) {
    let sql = format!(
        "INSERT INTO {}.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
         SELECT '{tenant}:x', lpad(n::text, 6, '0'), '{tenant}', gen_random_uuid(), 0, 0, n, ''
            FROM generate_series(1, {count}) n",
        schema.name
    );
    schema.execute(&sql).await;
}

async fn count(schema: &Schema) -> i64 {
    one(&schema.admin().await, &format!("SELECT count(*) FROM {}.entries", schema.name)).await
}

#[tokio::test]
async fn sweep_removes_only_expired_entries_of_all_tenants() {
    let ((schema, store), ctx) = (stopped().await, ctx());
    let admin = schema.admin().await;
    for tenant in ["a", "b", "c:d"] {
        let name = ns(tenant);
        store.put(&ctx, &name, "stays", bytes("v")).await.unwrap();
        let twenty = PutOptions::new().with_ttl(2 * TEN);
        store.put_with_options(&ctx, &name, "stays too", bytes("v"), twenty).await.unwrap();
        let least = PutOptions::new().with_ttl(TEN + Duration::from_millis(1));
        store.put_with_options(&ctx, &name, "just stays", bytes("v"), least).await.unwrap();
    }
    let before = schema.digest(&admin, None).await;
    for tenant in ["a", "b", "c:d"] {
        store.put_with_options(&ctx, &ns(tenant), "goes", bytes("v"), ten()).await.unwrap();
    }
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 0);
    schema.advance(TEN).await;
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 3);
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 0);
    assert_eq!(schema.digest(&admin, None).await, before);
}

#[tokio::test]
async fn sweep_step_removes_at_most_1000_entries() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    expired_rows(&schema, "a", 2_500).await;
    store.put(&ctx, &ns("a:x"), "live", bytes("v")).await.unwrap();
    let login = schema.login().await;
    let step = format!("SELECT {}.evict(2147483647)", schema.name);
    assert_eq!(one::<i64>(&login, &step).await, 1_000);
    assert_eq!(count(&schema).await, 1_501);
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 1_500);
    assert_eq!(count(&schema).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sweeps_skip_locked_rows() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    expired_rows(&schema, "a", 2_000).await;
    expired_rows(&schema, "b", 1_500).await;
    let holder = schema.admin().await;
    let hold =
        format!("BEGIN; SELECT FROM {}.entries WHERE key < '000011' FOR UPDATE", schema.name);
    holder.batch_execute(&hold).await.unwrap();
    let swept = join_all((0..4).map(|_| store.evict_expired(&ctx))).await;
    let swept: Vec<usize> = swept.into_iter().map(Result::unwrap).collect();
    // The sweeps did not wait for locked rows, and counted no row twice.
    assert_eq!(swept.iter().sum::<usize>(), 3_480, "{swept:?}");
    assert_eq!(count(&schema).await, 20);
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 20);
}

#[tokio::test]
async fn entry_being_extended_survives_the_sweep() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    expired_rows(&schema, "a", 2).await;
    let holder = schema.admin().await;
    let extend =
        format!("BEGIN; UPDATE {}.entries SET expires_at = NULL WHERE key = '000001'", schema.name);
    holder.batch_execute(&extend).await.unwrap();
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 1);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 0);
    assert_eq!(store.list(&ctx, &ns("a:x"), None).await.unwrap(), ["000001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entry_overwritten_during_sweeps_survives() {
    let ((schema, store), ctx) = (stopped().await, ctx());
    let name = ns("a");
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    for round in 0..20 {
        for key in &keys {
            store.put_with_options(&ctx, &name, key, bytes("old"), ten()).await.unwrap();
        }
        schema.advance(TEN).await;
        let sweeps = join_all((0..3).map(|_| store.evict_expired(&ctx)));
        let puts = join_all(keys.iter().map(|key| store.put(&ctx, &name, key, bytes("new"))));
        let (swept, put) = join(sweeps, puts).await;
        assert!(put.iter().all(Result::is_ok), "{put:?}");
        assert!(swept.into_iter().map(Result::unwrap).sum::<usize>() <= keys.len());
        assert_eq!(store.list(&ctx, &name, None).await.unwrap().len(), keys.len(), "{round}");
    }
}

/// An entry that expires after ten seconds, and a transaction that has locked its row.
struct LockedEntry {
    schema: Schema,
    store: PostgresStore,
    version: Version,
    holder: Client,
    admin: Client,
}

impl LockedEntry {
    async fn new() -> Self {
        let (schema, store) = stopped().await;
        let version = store
            .put_entry(&ctx(), &ns("a"), "k", bytes("old"), ten(), Condition::Always)
            .await
            .unwrap();
        let (holder, admin) = (schema.admin().await, schema.admin().await);
        let hold = format!("BEGIN; SELECT FROM {}.entries FOR UPDATE", schema.name);
        holder.batch_execute(&hold).await.unwrap();
        Self { schema, store, version, holder, admin }
    }

    /// Runs a call that waits for the row until the entry has expired.
    async fn expire_during<T, F>(&self, call: impl FnOnce(PostgresStore) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let waiting: JoinHandle<T> = tokio::spawn(call(self.store.clone()));
        self.schema.until_waiting(&self.admin, 1).await;
        self.schema.advance(TEN).await;
        self.holder.batch_execute("ROLLBACK").await.unwrap();
        waiting.await.unwrap()
    }

    async fn assert_gone(&self) {
        assert_eq!(
            self.store.get(&ctx(), &ns("a"), "k").await.unwrap(),
            None,
            "the expired entry was revived"
        );
    }
}

/// Checks that the condition failed because the entry is absent.
fn assert_absent<T: std::fmt::Debug>(answer: Result<T>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(error.current_version(), None);
}

#[tokio::test]
async fn touch_does_not_revive_entry_expired_during_lock_wait() {
    let held = LockedEntry::new().await;
    let touch = |store: PostgresStore| async move {
        store.touch(&ctx(), &ns("a"), "k", Expiry::Never, Condition::Always).await
    };
    assert!(!held.expire_during(touch).await.unwrap());
    held.assert_gone().await;
}

#[tokio::test]
async fn extending_get_does_not_revive_entry_expired_during_lock_wait() {
    let held = LockedEntry::new().await;
    let read = |store: PostgresStore| async move {
        let options = GetOptions::new().with_extended_ttl(10 * TEN);
        store.get_entry(&ctx(), &ns("a"), "k", options).await
    };
    assert!(held.expire_during(read).await.unwrap().is_none());
    held.assert_gone().await;
}

#[tokio::test]
async fn put_if_version_fails_if_entry_expires_during_lock_wait() {
    let held = LockedEntry::new().await;
    let at = Condition::IfVersion(held.version);
    let put = move |store: PostgresStore| async move {
        store.put_entry(&ctx(), &ns("a"), "k", bytes("new"), PutOptions::new(), at).await
    };
    assert_absent(held.expire_during(put).await);
    held.assert_gone().await;
}

#[tokio::test]
async fn batch_if_version_fails_if_entry_expires_during_lock_wait() {
    let held = LockedEntry::new().await;
    let at = Condition::IfVersion(held.version);
    let write = move |store: PostgresStore| async move {
        let batch = Batch::new().put("j", bytes("new"));
        let batch = batch.put_with("k", bytes("new"), PutOptions::new(), at);
        store.write(&ctx(), &ns("a"), batch).await
    };
    let answer = held.expire_during(write).await;
    assert_eq!(answer.as_ref().unwrap_err().batch_index(), Some(1));
    assert_absent(answer);
    held.assert_gone().await;
    assert_eq!(held.store.get(&ctx(), &ns("a"), "j").await.unwrap(), None);
}

#[tokio::test]
async fn entry_expired_during_lock_wait_is_not_deleted_or_taken() {
    let held = LockedEntry::new().await;
    let delete = |store: PostgresStore| async move {
        store.delete_entry(&ctx(), &ns("a"), "k", Condition::Always).await
    };
    assert!(!held.expire_during(delete).await.unwrap());
    let held = LockedEntry::new().await;
    let at = Condition::IfVersion(held.version);
    let delete = move |store: PostgresStore| async move {
        store.delete_entry(&ctx(), &ns("a"), "k", at).await
    };
    assert_absent(held.expire_during(delete).await);
    let held = LockedEntry::new().await;
    let take = |store: PostgresStore| async move { store.take(&ctx(), &ns("a"), "k").await };
    assert!(held.expire_during(take).await.unwrap().is_none());
}

/// Checks that a put over an expired entry created a new entry.
async fn assert_created(held: &LockedEntry) {
    let options = GetOptions::new();
    let entry = held.store.get_entry(&ctx(), &ns("a"), "k", options).await.unwrap().unwrap();
    let now: i64 =
        one(&held.admin, &format!("SELECT now FROM {}.test_clock", held.schema.name)).await;
    assert_eq!(entry.value, bytes("new"));
    assert_eq!(entry.meta.created_at.as_millis(), u64::try_from(now).unwrap());
    assert_eq!(entry.meta.created_at, entry.meta.updated_at);
}

#[tokio::test]
async fn put_over_entry_expired_during_lock_wait_creates_new_entry() {
    let held = LockedEntry::new().await;
    let put =
        |store: PostgresStore| async move { store.put(&ctx(), &ns("a"), "k", bytes("new")).await };
    held.expire_during(put).await.unwrap();
    assert_created(&held).await;
    let held = LockedEntry::new().await;
    let put = |store: PostgresStore| async move {
        let absent = Condition::IfAbsent;
        store.put_entry(&ctx(), &ns("a"), "k", bytes("new"), PutOptions::new(), absent).await
    };
    held.expire_during(put).await.unwrap();
    assert_created(&held).await;
    for condition in [Condition::Always, Condition::IfAbsent] {
        let held = LockedEntry::new().await;
        let write = move |store: PostgresStore| async move {
            let batch = Batch::new().put_with("k", bytes("new"), PutOptions::new(), condition);
            store.write(&ctx(), &ns("a"), batch).await
        };
        held.expire_during(write).await.unwrap();
        assert_created(&held).await;
    }
}

#[tokio::test]
async fn batch_over_entry_expired_during_lock_wait_creates_new_entry() {
    for condition in [Condition::Always, Condition::IfAbsent] {
        let held = LockedEntry::new().await;
        // Replace the row with one that expires while the batch waits.
        let now: i64 =
            one(&held.admin, &format!("SELECT now FROM {}.test_clock", held.schema.name)).await;
        let name = &held.schema.name;
        held.holder
            .batch_execute(&format!("DELETE FROM {name}.entries; COMMIT; BEGIN"))
            .await
            .unwrap();
        held.holder.batch_execute(&held.schema.row("a", "k", Some(now + 5_000))).await.unwrap();
        let waiting = tokio::spawn({
            let store = held.store.clone();
            let batch = Batch::new().put_with("k", bytes("new"), PutOptions::new(), condition);
            async move { store.write(&ctx(), &ns("a"), batch).await }
        });
        held.schema.until_waiting(&held.admin, 1).await;
        held.schema.advance(TEN).await;
        held.holder.batch_execute("COMMIT").await.unwrap();
        waiting.await.unwrap().unwrap();
        assert_created(&held).await;
    }
}
