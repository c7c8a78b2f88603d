//! Calls and drops outside the runtime that a store was opened in. Calls are refused, and no drop
//! panics.

use cubbyhole_redis::{RedisStore, diagnose, repair};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::runtimes::{
    check_refused, check_refuses_outside, contexts, drop_after_runtime, one_thread, outside,
};

use crate::helpers::{config, open};

#[test]
fn calls_outside_a_runtime_are_rejected() {
    let runtime = one_thread();
    let server = RedisServer::start().unwrap();
    let store = runtime.block_on(open(server.url(), "p:"));
    for ctx in contexts() {
        check_refused(outside(RedisStore::open(&ctx, config(server.url(), "p:"))).err());
        check_refused(outside(diagnose(&ctx, &config(server.url(), "p:"))).err());
        check_refused(outside(repair(&ctx, config(server.url(), "p:"))).err());
    }
    check_refuses_outside(&runtime, &store);
}

/// Drops a store and a started call after their runtime, on a thread without a runtime.
#[test]
fn store_outliving_its_runtime_drops_without_panic() {
    let runtime = one_thread();
    let server = RedisServer::start().unwrap();
    let store = runtime.block_on(open(server.url(), "p:"));
    drop_after_runtime(runtime, store);
}
