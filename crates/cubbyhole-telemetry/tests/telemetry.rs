//! Every call is reported with tenant, operation and outcome, and without keys, values and scopes.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, EntryMeta, EntryStore, Error, ErrorKind, ExecutionContext,
    Expiry, GetOptions, ManualClock, Namespace, NamespacePrefix, Page, PutOptions,
    RecursiveScanOptions, Result, ScanItem, ScanOptions, Store, Timestamp, TypedExt, Version,
    async_trait,
};
use cubbyhole_memory::InMemoryStore;
use cubbyhole_telemetry::Instrumented;
use futures_util::FutureExt as _;
use support::{Captured, capture};
use tracing::Level;

fn ns() -> Namespace {
    Namespace::parse("acme:agent-7").unwrap()
}

fn memory() -> Instrumented<InMemoryStore<Bytes>> {
    Instrumented::new(InMemoryStore::builder().with_value_size(Bytes::len).build(), "memory")
}

/// A store whose `get` returns the given error or never ends, and whose `scan` returns a page with
/// two unreadable values.
struct Failing(Option<Error>);

#[async_trait]
impl Store<Bytes> for Failing {
    async fn put_with_options(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: Bytes,
        _: PutOptions,
    ) -> Result<()> {
        Ok(())
    }

    async fn get(&self, _: &ExecutionContext, _: &Namespace, _: &str) -> Result<Option<Bytes>> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }

    async fn delete(&self, _: &ExecutionContext, _: &Namespace, _: &str) -> Result<()> {
        Ok(())
    }

    async fn list(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: Option<&str>,
    ) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl EntryStore<Bytes> for Failing {
    async fn scan(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let now = Timestamp::from_millis(0).unwrap();
        let meta = EntryMeta {
            version: Version::draw(),
            created_at: now,
            updated_at: now,
            expires_at: None,
            idle_ttl: None,
        };
        let item =
            |value| ScanItem { key: "k".into(), meta, value_bytes: None, value: Some(value) };
        let bad = || Err(Error::corrupt("bad checksum"));
        Ok(Page { items: vec![item(Ok(Bytes::new())), item(bad()), item(bad())], next: None })
    }
}

/// Captures a `get` on a store that fails with `error`.
fn failing_get(error: Error) -> Captured {
    capture(async {
        let store = Instrumented::new(Failing(Some(error)), "ours");
        store.get(&ExecutionContext::new(), &ns(), "k").await.unwrap_err();
    })
}

/// Asserts that the only span, the only event and the metrics name the call and its outcome.
#[track_caller]
fn assert_call(captured: &Captured, backend: &str, operation: &str, outcome: &str, level: Level) {
    let (event_level, event) = captured.event();
    assert_eq!(event_level, level);
    assert_eq!(event["message"], "operation ended");
    assert!(event["elapsed_ms"].parse::<f64>().unwrap() >= 0.0);
    assert_eq!(captured.spans.len(), 1);
    let (name, span_level, span) = &captured.spans[0];
    assert_eq!((*name, *span_level), ("cubbyhole.operation", Level::DEBUG));
    assert_eq!(captured.events[0].2, ["cubbyhole.operation"]);
    for fields in [event, span] {
        assert_eq!(fields["backend"], backend);
        assert_eq!(fields["tenant"], "acme");
        assert_eq!(fields["operation"], operation);
        assert_eq!(fields["outcome"], outcome);
    }
    let names: BTreeSet<&str> = span.keys().copied().collect();
    assert_eq!(names, BTreeSet::from(["backend", "operation", "outcome", "tenant"]));

    let labels = format!("backend={backend:?},operation={operation:?}");
    let ended = format!("cubbyhole_operations_total{{{labels},outcome={outcome:?}}}");
    assert_eq!(captured.metrics.get(&ended), Some(&1), "{:?}", captured.metrics);
    let took = format!("cubbyhole_operation_duration_seconds{{{labels}}}");
    assert_eq!(captured.metrics.get(&took), Some(&1), "{:?}", captured.metrics);
}

#[test]
fn successful_call_is_reported() {
    let captured = capture(async {
        memory().put(&ExecutionContext::new(), &ns(), "k", Bytes::new()).await.unwrap();
    });
    assert_call(&captured, "memory", "put", "ok", Level::DEBUG);
    assert!(!captured.event().1.contains_key("error"));
    assert_eq!(captured.metrics.len(), 2, "an error was counted: {:?}", captured.metrics);
}

#[test]
fn absent_entry_is_reported_as_not_found() {
    let captured = capture(async {
        memory().get(&ExecutionContext::new(), &ns(), "k").await.unwrap();
    });
    assert_call(&captured, "memory", "get", "not_found", Level::DEBUG);
    let captured = capture(async {
        let (ctx, always) = (ExecutionContext::new(), Condition::Always);
        assert!(!memory().delete_entry(&ctx, &ns(), "k", always).await.unwrap());
    });
    assert_call(&captured, "memory", "delete_entry", "not_found", Level::DEBUG);
}

#[test]
fn conflict_is_reported_at_debug() {
    let captured = capture(async {
        let condition = Condition::IfVersion(Version::draw());
        let (ctx, options) = (ExecutionContext::new(), PutOptions::new());
        let put = memory();
        let put = put.put_entry(&ctx, &ns(), "k", Bytes::new(), options, condition).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Conflict);
    });
    assert_call(&captured, "memory", "put_entry", "conflict", Level::DEBUG);
    let errors =
        r#"cubbyhole_errors_total{backend="memory",kind="conflict",operation="put_entry"}"#;
    assert_eq!(captured.metrics[errors], 1);
}

#[test]
fn each_error_kind_is_reported_at_its_level_without_source() {
    for (error, level) in [
        (Error::invalid_argument("why"), Level::DEBUG),
        (Error::cancelled(), Level::DEBUG),
        (Error::unsupported("why"), Level::DEBUG),
        (Error::unavailable("why"), Level::WARN),
        (Error::deadline_exceeded(), Level::WARN),
        (Error::resource_exhausted("why"), Level::WARN),
        (Error::permission_denied("why"), Level::WARN),
        (Error::codec("why"), Level::WARN),
        (Error::corrupt("why"), Level::ERROR),
        (Error::internal("why"), Level::ERROR),
    ] {
        let error = error.with_unknown_outcome().with_source(std::io::Error::other("the source"));
        let kind = error.kind().as_str();
        let captured = failing_get(error.clone());
        assert_call(&captured, "ours", "get", kind, level);
        assert_eq!(captured.event().1["error"], error.message());
        assert_eq!(captured.event().1["may_have_been_applied"], "true");
        assert!(!captured.text.contains("the source"), "the error's source was recorded");
        let errors =
            format!(r#"cubbyhole_errors_total{{backend="ours",kind="{kind}",operation="get"}}"#);
        assert_eq!(captured.metrics[&errors], 1);
    }
}

#[test]
fn dropped_call_is_reported() {
    let captured = capture(async {
        let store = Instrumented::new(Failing(None), "ours");
        let (ctx, ns) = (ExecutionContext::new(), ns());
        let mut call = store.get(&ctx, &ns, "k");
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        // A call that was never polled is not reported.
        drop(store.get(&ctx, &ns, "k"));
    });
    assert_call(&captured, "ours", "get", "dropped", Level::DEBUG);
}

#[test]
fn unreadable_values_of_a_page_are_reported() {
    let captured = capture(async {
        let store = Instrumented::new(Failing(None), "ours");
        store.scan(&ExecutionContext::new(), &ns(), ScanOptions::new()).await.unwrap();
    });
    assert_call(&captured, "ours", "scan", "ok", Level::ERROR);
    assert_eq!(captured.event().1["unreadable"], "2");
    assert_eq!(captured.event().1["error"], "bad checksum");
    let errors = r#"cubbyhole_errors_total{backend="ours",kind="corrupt",operation="scan"}"#;
    assert_eq!(captured.metrics[errors], 2);
}

#[test]
fn sweep_is_reported_at_info_only_if_it_removed_entries() {
    let captured = capture(async {
        let clock = ManualClock::default();
        let store = InMemoryStore::<u64>::builder().with_clock(clock.clone()).build();
        let ctx = ExecutionContext::new();
        for key in ["a", "b", "c"] {
            let options = PutOptions::new().with_ttl(Duration::from_secs(1));
            store.put_with_options(&ctx, &ns(), key, 1, options).await.unwrap();
        }
        clock.advance(Duration::from_secs(2));
        let store = Instrumented::new(store, "memory");
        assert_eq!(store.evict_expired(&ctx).await.unwrap(), 3);
        assert_eq!(store.evict_expired(&ctx).await.unwrap(), 0);
    });
    let removed: Vec<(Level, &str)> =
        captured.events.iter().map(|(level, fields, _)| (*level, &*fields["removed"])).collect();
    assert_eq!(removed, [(Level::INFO, "3"), (Level::DEBUG, "0")]);
    assert!(!captured.events[0].1.contains_key("tenant"), "the event of a sweep names a tenant");
    assert_eq!(captured.metrics[r#"cubbyhole_sweeps_total{backend="memory"}"#], 2);
    assert_eq!(captured.metrics[r#"cubbyhole_swept_entries_total{backend="memory"}"#], 3);
}

#[test]
fn open_is_counted_with_its_outcome() {
    let captured = capture(async {
        let opening = async { Err::<Failing, _>(Error::unavailable("no such server")) };
        Instrumented::open(opening, "ours").await.map(drop).unwrap_err();
        Instrumented::open(async { Ok(Failing(None)) }, "ours").await.map(drop).unwrap();
    });
    let labels = r#"backend="ours",operation="open""#;
    let ended = |outcome| format!("cubbyhole_operations_total{{{labels},outcome={outcome:?}}}");
    assert_eq!(captured.metrics[&ended("unavailable")], 1);
    assert_eq!(captured.metrics[&ended("ok")], 1);
}

#[test]
fn recorder_installed_after_wrapping_counts_calls() {
    let store = memory();
    let captured = capture(async {
        store.get(&ExecutionContext::new(), &ns(), "k").await.unwrap();
    });
    assert_call(&captured, "memory", "get", "not_found", Level::DEBUG);
}

#[test]
fn call_works_without_runtime_subscriber_and_recorder() {
    let found = memory().get(&ExecutionContext::new(), &ns(), "k").now_or_never();
    assert_eq!(found.unwrap().unwrap(), None);
}

/// Calls every method with names and values that occur nowhere else in the captured text.
async fn call_everything(store: &impl Backend) -> Result<()> {
    let ctx = &ExecutionContext::new();
    let ns = &Namespace::parse("acme:scope-sesame")?;
    let prefix = &NamespacePrefix::from(ns);
    let value = || Bytes::from_static(b"value-sesame");
    let (options, always) = (PutOptions::new, Condition::Always);
    let hour = Duration::from_secs(3600);
    store.put(ctx, ns, "key-sesame", value()).await?;
    store.put_with_options(ctx, ns, "key-sesame", value(), options().with_ttl(hour)).await?;
    store.put_entry(ctx, ns, "key-sesame", value(), options(), always).await?;
    let absent = Condition::IfAbsent;
    store.put_entry(ctx, ns, "key-sesame", value(), options(), absent).await.unwrap_err();
    store.write(ctx, ns, Batch::new().put("key-sesame-2", value())).await?;
    store.get(ctx, ns, "key-sesame").await?;
    store.get(ctx, ns, &"key-sesame".repeat(1000)).await.unwrap_err();
    store.get_entry(ctx, ns, "key-sesame", GetOptions::new()).await?;
    store.get_many(ctx, ns, &["key-sesame"], GetOptions::new()).await?;
    store.stat(ctx, ns, &["key-sesame"]).await?;
    store.list(ctx, ns, Some("key-sesame")).await?;
    store.list_namespaces(ctx, prefix).await?;
    store.scan(ctx, ns, ScanOptions::new().with_prefix("key-sesame")).await?;
    store.scan_recursive(ctx, prefix, RecursiveScanOptions::new()).await?;
    store.scan_namespaces(ctx, prefix, Some(ns), 1).await?;
    store.scan_tenants(ctx, None, 1).await?;
    store.touch(ctx, ns, "key-sesame", Expiry::After(hour), always).await?;
    store.delete(ctx, ns, "key-sesame").await?;
    store.delete_entry(ctx, ns, "key-sesame", always).await?;
    store.take(ctx, ns, "key-sesame-2").await?;
    store.usage(ctx, prefix).await?;
    store.current_time(ctx, ns).await?;
    store.delete_prefix(ctx, ns, "key-sesame", 10).await?;
    store.erase(ctx, prefix, 10).await?;
    store.evict_expired(ctx).await?;
    store.compact(ctx).await?;
    store.close(ctx).await
}

#[test]
fn every_method_is_reported_without_key_value_or_scope() {
    let captured = capture(async { call_everything(&memory()).await.unwrap() });
    assert!(captured.text.contains("acme"), "no tenant: {}", captured.text);
    assert!(!captured.text.contains("sesame"), "{}", captured.text);

    let operations: BTreeSet<&str> =
        captured.events.iter().map(|(_, fields, _)| &*fields["operation"]).collect();
    // All operations except `open`. `put` and `put_with_options` share one.
    assert_eq!(operations.len(), 24, "{operations:?}");
    assert_eq!(captured.events.len(), 27);
    assert_eq!(captured.spans.len(), 27);
}

#[test]
fn undecodable_value_of_typed_store_is_not_recorded() {
    let captured = capture(async {
        let store = InMemoryStore::<Bytes>::new();
        let ctx = ExecutionContext::new();
        let sesame = Bytes::from_static(b"\"value-sesame\"");
        store.put(&ctx, &ns(), "key-sesame", sesame).await.unwrap();
        let store = Instrumented::new(store.typed::<u64>(), "memory");
        let error = store.get(&ctx, &ns(), "key-sesame").await.unwrap_err();
        assert!(!error.is_retryable());
    });
    assert!(!captured.text.contains("sesame"), "{}", captured.text);
    assert_eq!(captured.event().0, Level::WARN);
}
