//! A slow read against a write: the value from before the write must not be cached after it.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, Expiry, GetOptions, NamespacePrefix, PutOptions,
    ScanOptions, Store,
};

use crate::probe::{Layer, Probe, bytes, cached, ctx, get, ns};

const TTL: Duration = Duration::from_secs(100);

/// An entry with an idle TTL: a refreshing read changes its expiry.
async fn with_old_entry() -> (Layer, Arc<Probe>) {
    let (layer, probe) = cached();
    let options = PutOptions::new().with_idle_ttl(TTL);
    probe.store.put_with_options(&ctx(), &ns(), "k", bytes("old"), options).await.unwrap();
    probe.advance(TTL / 2);
    (layer, probe)
}

/// Checks that the layer answers as the inner store does.
async fn check_current(layer: &Layer, probe: &Probe) {
    let cached = layer.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await.unwrap();
    let inner = probe.store.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await.unwrap();
    assert_eq!(cached, inner);
}

/// Runs `write` while a read has the old entry and has not filled the cache, and again when it has.
async fn check_race(write: impl AsyncFn(&Layer, &Arc<Probe>)) {
    let (layer, probe) = with_old_entry().await;
    let mut stopped = probe.stop_after_read();
    let reader = layer.clone();
    let read = tokio::spawn(async move { reader.get(&ctx(), &ns(), "k").await });
    stopped.reached().await;
    let before = probe.store.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await.unwrap();
    write(&layer, &probe).await;
    let after = probe.store.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await.unwrap();
    assert_ne!(before, after, "the write changes nothing, so the test shows nothing");
    stopped.resume();
    assert_eq!(read.await.unwrap().unwrap(), Some(bytes("old")));
    check_current(&layer, &probe).await;

    // The cache has the old entry before the write.
    let (layer, probe) = with_old_entry().await;
    check_current(&layer, &probe).await;
    assert!(get(&layer, &probe, "k").await.1, "the entry is not cached");
    write(&layer, &probe).await;
    check_current(&layer, &probe).await;
}

macro_rules! races {
    ($($name:ident: |$layer:ident| $write:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            check_race(async |$layer: &Layer, _: &Arc<Probe>| {
                $write.await.unwrap();
            })
            .await;
        })*
    };
}

races! {
    slow_read_against_put:
        |layer| layer.put(&ctx(), &ns(), "k", bytes("new"));
    slow_read_against_put_with_options:
        |layer| layer.put_with_options(&ctx(), &ns(), "k", bytes("new"), PutOptions::new());
    slow_read_against_put_entry:
        |layer| layer.put_entry(
            &ctx(), &ns(), "k", bytes("new"), PutOptions::new(), Condition::Always
        );
    slow_read_against_delete:
        |layer| layer.delete(&ctx(), &ns(), "k");
    slow_read_against_delete_entry:
        |layer| layer.delete_entry(&ctx(), &ns(), "k", Condition::Always);
    slow_read_against_take:
        |layer| layer.take(&ctx(), &ns(), "k");
    slow_read_against_touch:
        |layer| layer.touch(&ctx(), &ns(), "k", Expiry::Never, Condition::Always);
    slow_read_against_batch:
        |layer| layer.write(&ctx(), &ns(), Batch::new().put("other", bytes("x")).delete("k"));
    slow_read_against_refreshing_get_entry:
        |layer| layer.get_entry(&ctx(), &ns(), "k", GetOptions::new().refreshing());
    slow_read_against_extending_get_many:
        |layer| layer.get_many(&ctx(), &ns(), &["k"], GetOptions::new().with_extended_ttl(TTL));
    slow_read_against_refreshing_scan:
        |layer| layer.scan(&ctx(), &ns(), ScanOptions::new().refreshing());
    slow_read_against_delete_prefix:
        |layer| layer.delete_prefix(&ctx(), &ns(), "k", 10);
    slow_read_against_erase:
        |layer| layer.erase(&ctx(), &NamespacePrefix::from(ns()), 10);
}

#[tokio::test]
async fn slow_read_against_put_of_unknown_outcome() {
    check_race(async |layer, probe| {
        let error = Error::unavailable("the connection broke").with_unknown_outcome();
        probe.plan.lock().unwrap().put_error = Some(error);
        layer.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn slow_read_against_failed_put() {
    check_race(async |layer, probe| {
        // Even if an inner store claims wrongly that the write had no effect.
        probe.plan.lock().unwrap().put_error = Some(Error::internal("wrong"));
        layer.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn slow_read_against_dropped_put() {
    check_race(async |layer, probe| {
        let mut stopped = probe.stop_after_put();
        let writer = layer.clone();
        let put = tokio::spawn(async move { writer.put(&ctx(), &ns(), "k", bytes("new")).await });
        stopped.reached().await;
        put.abort();
        assert!(put.await.unwrap_err().is_cancelled());
    })
    .await;
}

/// A read that begins and ends while a write is in flight fills nothing.
#[tokio::test]
async fn read_within_a_put_is_not_cached() {
    let (layer, probe) = with_old_entry().await;
    let mut stopped = probe.stop_before_put();
    let writer = layer.clone();
    let put = tokio::spawn(async move { writer.put(&ctx(), &ns(), "k", bytes("new")).await });
    stopped.reached().await;
    for _ in 0..2 {
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("old")), false));
    }
    stopped.resume();
    put.await.unwrap().unwrap();
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), true));
}

/// A read that begins within a write and ends after it has the old value.
#[tokio::test]
async fn read_that_begins_within_a_put_is_not_cached() {
    let (layer, probe) = with_old_entry().await;
    let mut put_stopped = probe.stop_before_put();
    let writer = layer.clone();
    let put = tokio::spawn(async move { writer.put(&ctx(), &ns(), "k", bytes("new")).await });
    put_stopped.reached().await;
    let mut read_stopped = probe.stop_after_read();
    let reader = layer.clone();
    let read = tokio::spawn(async move { reader.get(&ctx(), &ns(), "k").await });
    read_stopped.reached().await;
    put_stopped.resume();
    put.await.unwrap().unwrap();
    read_stopped.resume();
    assert_eq!(read.await.unwrap().unwrap(), Some(bytes("old")));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
}

/// The first of two overlapping writes ends: the other is still in flight.
#[tokio::test]
async fn read_between_overlapping_puts_is_not_cached() {
    let (layer, probe) = with_old_entry().await;
    let mut stopped = probe.stop_before_put();
    let writer = layer.clone();
    let put = tokio::spawn(async move { writer.put(&ctx(), &ns(), "k", bytes("slow")).await });
    stopped.reached().await;
    layer.put(&ctx(), &ns(), "k", bytes("fast")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("fast")), false));
    }
    stopped.resume();
    put.await.unwrap().unwrap();
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("slow")), false));
}

/// The server applies a write after the connection broke.
#[tokio::test]
async fn put_of_unknown_outcome_keeps_its_key_out_of_the_cache() {
    let (layer, probe) = with_old_entry().await;
    let error = Error::unavailable("the connection broke").with_unknown_outcome();
    probe.plan.lock().unwrap().put_error = Some(error);
    layer.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap_err();
    for _ in 0..2 {
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
    }
    probe.advance(Duration::from_secs(10));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), true));
}

/// The server applies a write after its caller was dropped.
#[tokio::test]
async fn dropped_put_keeps_its_key_out_of_the_cache_for_10_s() {
    let (layer, probe) = with_old_entry().await;
    let mut stopped = probe.stop_before_put();
    let writer = layer.clone();
    let put = tokio::spawn(async move { writer.put(&ctx(), &ns(), "k", bytes("new")).await });
    stopped.reached().await;
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());

    probe.advance(Duration::from_millis(9_999));
    for _ in 0..2 {
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("old")), false));
    }
    probe.store.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap();
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
    probe.advance(Duration::from_millis(1));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), true));
}
