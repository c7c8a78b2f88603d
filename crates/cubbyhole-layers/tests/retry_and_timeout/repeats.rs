//! Which calls are repeated after a certain error, and which are not after an unknown outcome.

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, Error, Expiry, GetOptions, NamespacePrefix, PutOptions,
    RecursiveScanOptions, ScanOptions, Store, Version,
};

use crate::script::Step;
use crate::{Bench, KEY, assert_unknown, refused, second, unanswered};

/// Makes each call, after a script for it, and passes the answer to a check.
macro_rules! each {
    ($bench:ident, $steps:expr, $check:expr, $($name:literal: $call:expr;)*) => {
        $(
            $bench.script($steps);
            let answer = $call.await.map(drop);
            $check($name, answer, $bench.methods());
        )*
    };
}

#[tokio::test(start_paused = true)]
async fn every_call_is_repeated_after_a_certain_refusal() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    let (value, prefix) = (Bytes::from("v"), NamespacePrefix::from(ns.tenant()));
    let (plain, always) = (PutOptions::new(), Condition::Always);
    each!(
        bench,
        [Step::Fail(refused()), Step::Fail(refused()), Step::Pass],
        |name, answer: cubbyhole_core::Result<()>, methods| {
            answer.unwrap();
            assert_eq!(methods, [name; 3]);
        },
        "put_with_options": store.put_with_options(ctx, ns, KEY, value.clone(), plain);
        "put_with_options": store.put(ctx, ns, KEY, value.clone());
        "put_entry": store.put_entry(ctx, ns, KEY, value.clone(), plain, always);
        "get": store.get(ctx, ns, KEY);
        "get_entry": store.get_entry(ctx, ns, KEY, GetOptions::new());
        "get_many": store.get_many(ctx, ns, &[KEY], GetOptions::new());
        "stat": store.stat(ctx, ns, &[KEY]);
        "list": store.list(ctx, ns, None);
        "list_namespaces": store.list_namespaces(ctx, &prefix);
        "scan": store.scan(ctx, ns, ScanOptions::new());
        "scan_recursive": store.scan_recursive(ctx, &prefix, RecursiveScanOptions::new());
        "scan_namespaces": store.scan_namespaces(ctx, &prefix, None, 10);
        "scan_tenants": store.scan_tenants(ctx, None, 10);
        "usage": store.usage(ctx, &prefix);
        "current_time": store.current_time(ctx, ns);
        "touch": store.touch(ctx, ns, KEY, Expiry::Never, always);
        "take": store.take(ctx, ns, KEY);
        "delete": store.delete(ctx, ns, KEY);
        "delete_entry": store.delete_entry(ctx, ns, KEY, always);
        "write": store.write(ctx, ns, Batch::new().put(KEY, value.clone()));
        "delete_prefix": store.delete_prefix(ctx, ns, "", 10);
        "erase": store.erase(ctx, &prefix, 10);
        "evict_expired": store.evict_expired(ctx);
    );
}

#[tokio::test(start_paused = true)]
async fn call_without_a_trace_is_not_repeated_when_unanswered() {
    let bench = Bench::new();
    bench.existing(KEY).await;
    let Bench { store, ctx, ns, .. } = &bench;
    let prefix = NamespacePrefix::from(ns.tenant());
    let refreshing = GetOptions::new().refreshing();
    let version = bench.current(KEY).await.unwrap().1;
    let kept = PutOptions::new().with_version(version);
    let held = Condition::IfVersion(version);
    each!(
        bench,
        [Step::Fail(unanswered())],
        |name, answer: cubbyhole_core::Result<()>, methods| {
            assert_unknown(answer, name);
            assert_eq!(methods, [name]);
        },
        "delete": store.delete(ctx, ns, KEY);
        "delete_entry": store.delete_entry(ctx, ns, KEY, Condition::Always);
        "delete_entry": store.delete_entry(ctx, ns, KEY, Condition::IfPresent);
        "take": store.take(ctx, ns, KEY);
        "touch": store.touch(ctx, ns, KEY, Expiry::Never, Condition::Always);
        "touch": store.touch(ctx, ns, KEY, Expiry::Never, held);
        "get_entry": store.get_entry(ctx, ns, KEY, refreshing);
        "get_many": store.get_many(ctx, ns, &[KEY], refreshing);
        "scan": store.scan(ctx, ns, ScanOptions::new());
        "delete_prefix": store.delete_prefix(ctx, ns, "", 10);
        "erase": store.erase(ctx, &prefix, 10);
        "evict_expired": store.evict_expired(ctx);
        // The put keeps the version, so the version proves nothing.
        "put_entry": store.put_entry(ctx, ns, KEY, Bytes::from("new"), kept, held);
        "write": store.write(ctx, ns, Batch::new().put_with(KEY, Bytes::from("new"), kept, held));
        "write": store.write(ctx, ns, Batch::new().delete(KEY));
        "write": store.write(ctx, ns, Batch::new().delete_if(KEY, Condition::IfPresent));
    );
}

#[tokio::test(start_paused = true)]
async fn error_that_is_not_retryable_is_returned_immediately() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    for error in [
        Error::invalid_argument("x"),
        Error::conflict(None),
        Error::cancelled(),
        Error::deadline_exceeded(),
        Error::unavailable("x").permanent(),
        Error::resource_exhausted("x"),
        Error::permission_denied("x"),
    ] {
        bench.script([Step::Fail(error.clone())]);
        let returned = store.put(ctx, ns, KEY, Bytes::from("v")).await.unwrap_err();
        assert_eq!((returned.kind(), returned.message()), (error.kind(), error.message()));
        assert_eq!(bench.methods(), ["put_with_options"]);
        bench.script([Step::Fail(error.clone())]);
        assert_eq!(store.get(ctx, ns, KEY).await.unwrap_err().kind(), error.kind());
        assert_eq!(bench.methods(), ["get"]);
    }
}

#[tokio::test(start_paused = true)]
async fn outcome_of_an_ended_call_is_not_settled() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    for error in [Error::cancelled(), Error::deadline_exceeded()] {
        bench.script([Step::Fail(error.clone().with_unknown_outcome())]);
        let returned = store.put(ctx, ns, KEY, Bytes::from("v")).await.unwrap_err();
        assert!(returned.may_have_been_applied());
        assert_eq!(returned.kind(), error.kind());
        assert_eq!(bench.methods(), ["put_with_options"]);
    }
}

#[tokio::test(start_paused = true)]
async fn visible_entry_does_not_settle_missing_replicas_or_a_failed_disk() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    for error in [unanswered().permanent(), Error::resource_exhausted("no answer")] {
        let error = error.with_source(std::fmt::Error).with_unknown_outcome();
        bench.script([Step::ApplyThenFail(error)]);
        let put = store.put(ctx, ns, KEY, Bytes::from("v")).await;
        assert_unknown(put, "put");
        assert_eq!(bench.methods(), ["put_with_options"]);
    }
    // The second attempt reaches the master, but not the replicas.
    let held = Condition::IfVersion(bench.current(KEY).await.unwrap().1);
    let few_replicas = unanswered().permanent();
    bench.script([Step::Fail(unanswered()), Step::Pass, Step::ApplyThenFail(few_replicas)]);
    assert_unknown(bench.put_at(Version::draw(), held).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry", "stat", "put_entry"]);
}

#[tokio::test(start_paused = true)]
async fn delete_at_a_version_is_repeated_while_it_is_unchanged() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    let held = Condition::IfVersion(bench.existing(KEY).await);
    bench.script([Step::Fail(unanswered())]);
    assert!(store.delete_entry(ctx, ns, KEY, held).await.unwrap());
    assert_eq!(bench.methods(), ["delete_entry", "stat", "delete_entry"]);
    assert_eq!(bench.current(KEY).await, None);
}

#[tokio::test(start_paused = true)]
async fn delete_at_a_version_stays_unknown_once_it_is_gone() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    let held = Condition::IfVersion(bench.existing(KEY).await);
    bench.script([Step::ApplyThenFail(unanswered())]);
    assert_unknown(store.delete_entry(ctx, ns, KEY, held).await, "delete_entry");
    assert_eq!(bench.methods(), ["delete_entry", "stat"]);

    // The first attempt, or another client, deletes the entry between the read and the repeat.
    let held = Condition::IfVersion(bench.existing(KEY).await);
    bench.script([Step::Fail(unanswered()), Step::Pass, bench.deleted(KEY)]);
    assert_unknown(store.delete_entry(ctx, ns, KEY, held).await, "delete_entry");
    assert_eq!(bench.methods(), ["delete_entry", "stat", "delete_entry"]);
}

#[tokio::test(start_paused = true)]
async fn last_error_is_returned_when_every_attempt_is_refused() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    bench.script(std::array::from_fn::<_, 9, _>(|_| Step::Fail(refused())));
    let last = Error::rate_limited("slow down", Some(second())).with_source(std::fmt::Error);
    bench.script([Step::Fail(last)]);
    let error = store.get(ctx, ns, KEY).await.unwrap_err();
    assert_eq!((error.message(), error.retry_after()), ("slow down", Some(second())));
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(bench.methods(), ["get"; 10]);
}
