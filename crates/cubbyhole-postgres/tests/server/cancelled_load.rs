//! Calls that are cancelled at random times while other sessions lock their rows.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::CancellationToken;
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::{ctx, until};
use cubbyhole_testkit::load::cancelled::CancelledCalls;
use tokio::task::JoinSet;

use crate::sql::one;
use crate::support::Schema;

const CALLS: usize = 1024;
const POOL: usize = 8;

/// Repeatedly locks a part of the rows, in the order in which batches lock them.
async fn disturb(
    holder: tokio_postgres::Client,
    table: String,
    part: u64,
    stop: CancellationToken,
) {
    let unlimited = ctx();
    while !stop.is_cancelled() {
        let lock = format!(
            "BEGIN; SELECT FROM {table} WHERE namespace = 'acme' AND starts_with(key, 'old')
                AND split_part(key, ' ', 2)::int % 7 = {part} ORDER BY key FOR UPDATE"
        );
        holder.batch_execute(&lock).await.unwrap();
        unlimited.sleep(Duration::from_micros(fastrand::u64(0..20_000))).await.unwrap();
        holder.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_calls_report_their_outcome_despite_lock_waits() {
    let schema = Schema::new().await;
    let admin = schema.admin().await;
    let url = schema.url(&format!("&pool_size={POOL}"));
    let store = PostgresStore::open(&ctx(), Config::from_url(&url).unwrap()).await.unwrap();
    let calls = CancelledCalls::prepare(Arc::new(store.clone()), CALLS).await;

    let stop = CancellationToken::new();
    let mut holders = JoinSet::new();
    for part in 0..3 {
        let (holder, table) = (schema.admin().await, format!("{}.entries", schema.name));
        holders.spawn(disturb(holder, table, part, stop.clone()));
    }
    let effects = calls.run(Duration::from_millis(30)).await;
    stop.cancel();
    holders.join_all().await;

    until("the return of all connections", async || store.connections().1 == 0).await;
    let left = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename = '{}_login' AND (state <> 'idle' OR xact_start IS NOT NULL)",
        schema.name
    );
    assert_eq!(
        one::<i64>(&admin, &left).await,
        0,
        "a statement or transaction is left on the server"
    );
    calls.check(&effects).await;
    let (open, in_use) = store.connections();
    assert!(open <= POOL && in_use == 0, "{open} connections, {in_use} in use");
}
