//! Outside the runtime that a store was opened in: calls are refused, and nothing panics.

use cubbyhole_redis::{RedisStore, diagnose, repair};
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::runtimes::{
    check_refused, check_refuses_outside, contexts, drop_after_runtime, one_thread, outside,
};

use crate::by_hand::{config, open};

#[test]
fn calls_outside_a_runtime_are_refused() {
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

/// A store, and a call that was begun, are dropped after their runtime, on a thread without one.
#[test]
fn what_outlives_its_runtime_is_dropped_without_a_panic() {
    let runtime = one_thread();
    let server = RedisServer::start().unwrap();
    let store = runtime.block_on(open(server.url(), "p:"));
    drop_after_runtime(runtime, store);
}
