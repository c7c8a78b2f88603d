//! Expiry and sweeps where several meet on the same rows.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, Expiry, GetOptions, PutOptions, Result, Store, Version,
};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{bytes, ctx, ns};
use futures_util::future::{join, join_all};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::by_hand::one;
use crate::support::Schema;

const TEN: Duration = Duration::from_secs(10);

fn ten() -> PutOptions {
    PutOptions::new().with_ttl(TEN)
}

/// A schema whose clock stands still, and a store of the application's.
async fn stopped() -> (Schema, PostgresStore) {
    let schema = Schema::new().await;
    schema.stop_clock().await;
    let store = schema.open().await;
    (schema, store)
}

/// Adds rows that have expired long ago.
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
async fn a_sweep_removes_what_has_expired_of_every_tenant_and_nothing_else() {
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
async fn a_step_of_a_sweep_removes_at_most_a_thousand() {
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
async fn sweepers_wait_neither_for_each_other_nor_for_a_row_that_is_held() {
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
    // They ended while the rows were held, and no row was counted twice.
    assert_eq!(swept.iter().sum::<usize>(), 3_480, "{swept:?}");
    assert_eq!(count(&schema).await, 20);
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 20);
}

#[tokio::test]
async fn an_entry_that_is_being_prolonged_survives_the_sweep() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    expired_rows(&schema, "a", 2).await;
    let holder = schema.admin().await;
    let prolong =
        format!("BEGIN; UPDATE {}.entries SET expires_at = NULL WHERE key = '000001'", schema.name);
    holder.batch_execute(&prolong).await.unwrap();
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 1);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.evict_expired(&ctx).await.unwrap(), 0);
    assert_eq!(store.list(&ctx, &ns("a:x"), None).await.unwrap(), ["000001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_written_anew_while_sweeps_race_survives() {
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

/// An entry that lives for ten seconds, and someone who holds its row.
struct Held {
    schema: Schema,
    store: PostgresStore,
    version: Version,
    holder: Client,
    admin: Client,
}

impl Held {
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

    /// Lets a call wait for the row until the entry has expired.
    async fn outwait<T, F>(&self, call: impl FnOnce(PostgresStore) -> F) -> T
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

    async fn is_gone(&self) {
        assert_eq!(self.store.get(&ctx(), &ns("a"), "k").await.unwrap(), None, "it was revived");
    }
}

/// A condition failed because there is no entry.
fn absent<T: std::fmt::Debug>(answer: Result<T>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(error.current_version(), None);
}

#[tokio::test]
async fn an_entry_that_expires_while_a_touch_waits_for_its_row_stays_expired() {
    let held = Held::new().await;
    let touch = |store: PostgresStore| async move {
        store.touch(&ctx(), &ns("a"), "k", Expiry::Never).await
    };
    assert!(!held.outwait(touch).await.unwrap());
    held.is_gone().await;
}

#[tokio::test]
async fn an_entry_that_expires_while_a_sliding_read_waits_for_its_row_stays_expired() {
    let held = Held::new().await;
    let read = |store: PostgresStore| async move {
        let options = GetOptions::new().with_extended_ttl(10 * TEN);
        store.get_entry(&ctx(), &ns("a"), "k", options).await
    };
    assert!(held.outwait(read).await.unwrap().is_none());
    held.is_gone().await;
}

#[tokio::test]
async fn an_entry_that_expires_while_a_conditional_put_waits_for_its_row_counts_as_absent() {
    let held = Held::new().await;
    let at = Condition::IfVersion(held.version);
    let put = move |store: PostgresStore| async move {
        store.put_entry(&ctx(), &ns("a"), "k", bytes("new"), PutOptions::new(), at).await
    };
    absent(held.outwait(put).await);
    held.is_gone().await;
}

#[tokio::test]
async fn an_entry_that_expires_while_a_batch_waits_for_its_row_counts_as_absent() {
    let held = Held::new().await;
    let at = Condition::IfVersion(held.version);
    let write = move |store: PostgresStore| async move {
        let batch = Batch::new().put("j", bytes("new"));
        let batch = batch.put_with("k", bytes("new"), PutOptions::new(), at);
        store.write(&ctx(), &ns("a"), batch).await
    };
    let answer = held.outwait(write).await;
    assert_eq!(answer.as_ref().unwrap_err().batch_index(), Some(1));
    absent(answer);
    held.is_gone().await;
    assert_eq!(held.store.get(&ctx(), &ns("a"), "j").await.unwrap(), None);
}

#[tokio::test]
async fn an_entry_that_expires_while_its_row_is_waited_for_is_neither_deleted_nor_taken() {
    let held = Held::new().await;
    let delete = |store: PostgresStore| async move {
        store.delete_entry(&ctx(), &ns("a"), "k", Condition::Always).await
    };
    assert!(!held.outwait(delete).await.unwrap());
    let held = Held::new().await;
    let at = Condition::IfVersion(held.version);
    let delete = move |store: PostgresStore| async move {
        store.delete_entry(&ctx(), &ns("a"), "k", at).await
    };
    absent(held.outwait(delete).await);
    let held = Held::new().await;
    let take = |store: PostgresStore| async move { store.take(&ctx(), &ns("a"), "k").await };
    assert!(held.outwait(take).await.unwrap().is_none());
}

/// What a put over an entry that has expired must leave: a new entry.
async fn was_made_anew(held: &Held) {
    let options = GetOptions::new();
    let entry = held.store.get_entry(&ctx(), &ns("a"), "k", options).await.unwrap().unwrap();
    let now: i64 =
        one(&held.admin, &format!("SELECT now FROM {}.test_clock", held.schema.name)).await;
    assert_eq!(entry.value, bytes("new"));
    assert_eq!(entry.meta.created_at.as_millis(), u64::try_from(now).unwrap());
    assert_eq!(entry.meta.created_at, entry.meta.updated_at);
}

#[tokio::test]
async fn a_put_over_an_entry_that_expired_while_it_waited_makes_it_anew() {
    let held = Held::new().await;
    let put =
        |store: PostgresStore| async move { store.put(&ctx(), &ns("a"), "k", bytes("new")).await };
    held.outwait(put).await.unwrap();
    was_made_anew(&held).await;
    let held = Held::new().await;
    let put = |store: PostgresStore| async move {
        let absent = Condition::IfAbsent;
        store.put_entry(&ctx(), &ns("a"), "k", bytes("new"), PutOptions::new(), absent).await
    };
    held.outwait(put).await.unwrap();
    was_made_anew(&held).await;
    for condition in [Condition::Always, Condition::IfAbsent] {
        let held = Held::new().await;
        let write = move |store: PostgresStore| async move {
            let batch = Batch::new().put_with("k", bytes("new"), PutOptions::new(), condition);
            store.write(&ctx(), &ns("a"), batch).await
        };
        held.outwait(write).await.unwrap();
        was_made_anew(&held).await;
    }
}

#[tokio::test]
async fn a_batch_over_an_entry_that_came_and_expired_while_it_waited_makes_it_anew() {
    for condition in [Condition::Always, Condition::IfAbsent] {
        let held = Held::new().await;
        // The row goes, and comes back with a life that ends while the batch waits.
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
        was_made_anew(&held).await;
    }
}
