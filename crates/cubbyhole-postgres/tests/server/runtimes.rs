//! Calls and drops outside the runtime in which the store was opened.

use cubbyhole_postgres::{Config, PostgresStore, diagnose, migrate};
use cubbyhole_testkit::helpers::ctx;
use cubbyhole_testkit::runtimes::{
    check_refused, check_refuses_outside, contexts, drop_after_runtime, one_thread, outside,
};

use crate::support::Schema;

#[test]
fn calls_outside_a_runtime_are_rejected() {
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

/// Drops a store and a started call after their runtime, on a thread without a runtime.
#[test]
fn store_outliving_its_runtime_drops_without_panic() {
    let runtime = one_thread();
    let schema = runtime.block_on(Schema::new());
    let config = Config::from_url(&schema.url("")).unwrap();
    let store = runtime.block_on(PostgresStore::open(&ctx(), config)).unwrap();
    drop_after_runtime(runtime, store);
}
