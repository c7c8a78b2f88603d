//! Concurrent batches and conditional writes on the same keys.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, Expiry, GetOptions, PutOptions, Store, Written,
};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{self, bytes, ctx, ns};
use futures_util::future::join;

use crate::sql::rows;
use crate::support::Schema;

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_on_the_same_keys_are_atomic() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let name = ns("a");
    let writer = |writer: usize| {
        let (store, name, ctx) = (store.clone(), name.clone(), ctx.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                let value = format!("{writer} {round}");
                let mut keys: Vec<usize> = (0..8).collect();
                keys.rotate_left(writer);
                if writer % 2 == 1 {
                    keys.reverse();
                }
                let mut batch = Batch::new();
                for key in keys {
                    batch = batch.put(key.to_string(), bytes(&value));
                }
                store.write(&ctx, &name, batch).await.unwrap();
                // Also write to absent keys.
                if round % 5 == writer {
                    let all = (0..8).fold(Batch::new(), |batch, key| batch.delete(key.to_string()));
                    store.write(&ctx, &name, all).await.unwrap();
                }
            }
        })
    };
    let watcher = {
        let (store, name, ctx) = (store.clone(), name.clone(), ctx.clone());
        tokio::spawn(async move {
            let keys = ["0", "1", "2", "3", "4", "5", "6", "7"];
            for _ in 0..100 {
                let found = store.get_many(&ctx, &name, &keys, GetOptions::new()).await.unwrap();
                let values: Vec<_> = found
                    .into_iter()
                    .map(|entry| entry.unwrap().map(|entry| entry.value))
                    .collect();
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            }
        })
    };
    for task in (0..6).map(writer).chain([watcher]).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn batch_is_retried_after_a_deadlock() {
    let (schema, ctx) = (Schema::new().await, ctx());
    // The server checks for a deadlock once, after `deadlock_timeout`, and cancels the statement
    // that checks. The timeouts make this the statement of the application.
    let name = &schema.name;
    schema.execute(&format!("ALTER ROLE {name}_login SET deadlock_timeout = '2s'")).await;
    let store = schema.open().await;
    let (holder, admin) = (schema.admin().await, schema.admin().await);
    let old = Batch::new().put("j", bytes("old")).put("k", bytes("old"));
    store.write(&ctx, &ns("a"), old).await.unwrap();
    let hold = |key: &str| format!("SELECT FROM {name}.entries WHERE key = '{key}' FOR UPDATE");
    let begin = format!("SET deadlock_timeout = '10min'; BEGIN; {}", hold("k"));
    holder.batch_execute(&begin).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        let batch = Batch::new().put("j", bytes("new")).put("k", bytes("new"));
        async move { store.write(&ctx, &ns("a"), batch).await }
    });
    schema.until_waiting(&admin, 1).await;
    // The lock is available only because the batch was rolled back.
    holder.batch_execute(&hold("j")).await.unwrap();
    assert!(!waiting.is_finished());
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 2);
    let ctx = helpers::ctx();
    for key in ["j", "k"] {
        assert_eq!(store.get(&ctx, &ns("a"), key).await.unwrap(), Some(bytes("new")));
    }
}

/// Increments a counter with compare-and-set, retrying on conflicts.
async fn increment(store: &PostgresStore, key: &str) {
    let (ctx, name) = (ctx(), ns("a"));
    loop {
        let entry = store.get_entry(&ctx, &name, key, GetOptions::new()).await.unwrap();
        let (count, condition) = match entry {
            Some(entry) => {
                let count: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                (count, Condition::IfVersion(entry.meta.version))
            }
            None => (0, Condition::IfAbsent),
        };
        let value = bytes(&(count + 1).to_string());
        match store.put_entry(&ctx, &name, key, value, PutOptions::new(), condition).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_writes_hold_at_every_isolation_level() {
    for level in ["read committed", "repeatable read", "serializable"] {
        let (schema, ctx) = (Schema::new().await, ctx());
        let name = &schema.name;
        let sql = format!("ALTER ROLE {name}_login SET default_transaction_isolation = '{level}'");
        schema.execute(&sql).await;
        let store = schema.open().await;
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (store, ctx) = (store.clone(), ctx.clone());
                tokio::spawn(async move {
                    for round in 0..15 {
                        increment(&store, "count").await;
                        let minute = Expiry::After(Duration::from_secs(60));
                        store
                            .touch(&ctx, &ns("a"), "count", minute, Condition::Always)
                            .await
                            .unwrap();
                        let batch = Batch::new().put("j", bytes("x")).delete("k");
                        store.write(&ctx, &ns("a"), batch).await.unwrap();
                        store.put(&ctx, &ns("a"), "k", bytes(&round.to_string())).await.unwrap();
                        store.evict_expired(&ctx).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let count = store.get(&ctx, &ns("a"), "count").await.unwrap();
        assert_eq!(count, Some(bytes("60")), "{level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_batches_are_serialised() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let name = ns("a");
    for round in 0..150 {
        let clear = Batch::new().delete("1").delete("3");
        store.write(&ctx, &name, clear).await.unwrap();
        let one = Batch::new().delete("1").put("3", bytes("one"));
        let other = Batch::new().put("1", bytes("other")).put("3", bytes("other"));
        let (first, second) =
            join(store.write(&ctx, &name, one), store.write(&ctx, &name, other)).await;
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        let found = store.get_many(&ctx, &name, &["1", "3"], GetOptions::new()).await.unwrap();
        let found: Vec<_> =
            found.into_iter().map(|entry| entry.unwrap().map(|entry| entry.value)).collect();
        let (one, other) = (Some(bytes("one")), Some(bytes("other")));
        assert!(found == [None, one] || found == [other.clone(), other], "{round}: {found:?}");
    }
}

#[tokio::test]
async fn if_absent_condition_holds_when_the_batch_is_applied() {
    let ctx = ctx();
    let absent = Condition::IfAbsent;
    for batch in [
        Batch::new().put("3", bytes("new")).delete_if("1", absent),
        Batch::new().put("3", bytes("new")).put_with("1", bytes("new"), PutOptions::new(), absent),
    ] {
        let schema = Schema::new().await;
        let store = schema.open().await;
        let (other, admin) = (schema.admin().await, schema.admin().await);
        // Another transaction has written both keys and not yet committed.
        let both = [schema.row("a", "1", None), schema.row("a", "3", None)].concat();
        other.batch_execute(&format!("BEGIN; {both}")).await.unwrap();
        let what = format!("{:?}", batch.operations()[1]);
        let waiting = tokio::spawn({
            let (store, ctx) = (store.clone(), ctx.clone());
            async move { store.write(&ctx, &ns("a"), batch).await }
        });
        schema.until_waiting(&admin, 1).await;
        other.batch_execute("COMMIT").await.unwrap();
        let answer = waiting.await.unwrap();
        // The batch runs after the other transaction, so its condition fails.
        let value = store.get(&ctx, &ns("a"), "3").await.unwrap();
        assert_eq!(value, Some(bytes("by hand")), "{what}: {answer:?}");
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.batch_index()), (ErrorKind::Conflict, Some(1)), "{what}");
        let sql = format!("SELECT FROM {}.entries", schema.name);
        assert_eq!(rows(&admin, &sql).await, 2);
    }
}

/// `write_batch` looks at the conditions twice: to count those that fail, and to name the first. An entry
/// that appears in between makes the condition hold in the second look.
#[tokio::test]
async fn batch_whose_missing_entry_appears_between_the_looks_is_applied() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let (store, admin, gate) = (schema.open().await, schema.admin().await, schema.admin().await);
    // The first look at a missing entry waits for the gate. Its snapshot does not see later rows.
    schema
        .execute(&format!(
            "CREATE OR REPLACE FUNCTION {}.holds(condition integer, expected uuid, current uuid)
             RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
                IF condition = 3 AND current IS NULL THEN
                    PERFORM pg_advisory_xact_lock_shared(hashtext('{}'));
                END IF;
                RETURN condition <> 3 OR current IS NOT NULL;
             END $$",
            schema.name, schema.name
        ))
        .await;
    let key = format!("hashtext('{}')", schema.name);
    gate.execute(&format!("SELECT pg_advisory_lock({key})"), &[]).await.unwrap();
    let batch =
        Batch::new().put_with("a", bytes("of the batch"), PutOptions::new(), Condition::IfPresent);
    let waiting = tokio::spawn({
        let (store, ctx) = (store.clone(), ctx.clone());
        async move { store.write(&ctx, &ns("a"), batch).await }
    });
    schema.until_waiting(&admin, 1).await;
    schema.execute(&schema.row("a", "a", None)).await;
    gate.execute(&format!("SELECT pg_advisory_unlock({key})"), &[]).await.unwrap();

    let written = waiting.await.unwrap().unwrap();
    assert!(matches!(written[..], [Written::Put(_)]), "{written:?}");
    let value = store.get(&ctx, &ns("a"), "a").await.unwrap();
    assert_eq!(value, Some(bytes("of the batch")), "the answer says that the batch was applied");
}

/// An absent key cannot be locked, but a concurrent batch must not write it undetected.
#[tokio::test(flavor = "multi_thread")]
async fn batches_deleting_each_others_keys_are_serialised() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    let name = ns("a");
    let absent = Condition::IfAbsent;
    for round in 0..150 {
        store.write(&ctx, &name, Batch::new().delete("1").delete("2")).await.unwrap();
        // Two opposite moves leave exactly one of the keys.
        let there = Batch::new().delete("1").put("2", bytes("v"));
        let back = Batch::new().delete("2").put("1", bytes("v"));
        let (first, second) =
            join(store.write(&ctx, &name, there), store.write(&ctx, &name, back)).await;
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert_eq!(store.list(&ctx, &name, None).await.unwrap().len(), 1, "{round}");

        store.write(&ctx, &name, Batch::new().delete("1").delete("2")).await.unwrap();
        let one = Batch::new().delete_if("1", absent).put("2", bytes("v"));
        let other = Batch::new().delete_if("2", absent).put("1", bytes("v"));
        let (first, second) =
            join(store.write(&ctx, &name, one), store.write(&ctx, &name, other)).await;
        assert!(first.is_ok() != second.is_ok(), "{round}: {first:?} {second:?}");
        assert_eq!(store.list(&ctx, &name, None).await.unwrap().len(), 1, "{round}");
    }
    // The rows that claimed absent keys are gone.
    let left = format!("SELECT FROM {}.entries WHERE expires_at = 0", schema.name);
    assert_eq!(rows(&schema.admin().await, &left).await, 0);
}
