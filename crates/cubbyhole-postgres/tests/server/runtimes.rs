//! Outside the runtime that a store was opened in: calls are refused, and nothing panics.

use cubbyhole_postgres::{Config, PostgresStore, diagnose, migrate};
use cubbyhole_testkit::helpers::ctx;
use cubbyhole_testkit::runtimes::{
    check_refused, check_refuses_outside, contexts, drop_after_runtime, one_thread, outside,
};

use crate::support::Schema;

#[test]
fn calls_outside_a_runtime_are_refused() {
    let runtime = one_thread();
    let schema = runtime.block_on(Schema::new());
    let config = || Config::from_url(&schema.url("")).unwrap();
    let store = runtime.block_on(PostgresStore::open(&ctx(), config())).unwrap();
    for ctx in contexts() {
        check_refused(outside(PostgresStore::open(&ctx, config())).err());
        check_refused(outside(migrate(&ctx, &schema.admin_config())).err());
        check_refused(outside(diagnose(&ctx, &config())).err());
    }
    check_refuses_outside(&runtime, &store);
}

/// A store, and a call that was begun, are dropped after their runtime, on a thread without one.
#[test]
fn what_outlives_its_runtime_is_dropped_without_a_panic() {
    let runtime = one_thread();
    let schema = runtime.block_on(Schema::new());
    let config = Config::from_url(&schema.url("")).unwrap();
    let store = runtime.block_on(PostgresStore::open(&ctx(), config)).unwrap();
    drop_after_runtime(runtime, store);
}
