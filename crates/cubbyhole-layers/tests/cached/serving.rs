//! Reads that the cache answers, and reads that it must not answer.

use std::time::Duration;

use cubbyhole_core::{
    Backend, Bytes, EntryStore, EntryStoreExt, ErrorKind, ExecutionContext, GetOptions, Namespace,
    Store, Update,
};
use cubbyhole_layers::{CacheOptions, Cached};
use cubbyhole_memory::InMemoryStore;

use crate::probe::{bytes, cached, ctx, get, ns};

#[tokio::test]
async fn get_and_get_entry_fill_the_cache_for_each_other() {
    let (layer, probe) = cached();
    probe.store.put(&ctx(), &ns(), "k", bytes("v")).await.unwrap();
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));
    let inner = probe.store.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await.unwrap();
    let cached = layer.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await.unwrap();
    assert_eq!(cached, inner);
    assert_eq!(probe.reads(), 1);
    // Clones share the cache; another namespace has other entries.
    assert_eq!(get(&layer.clone(), &probe, "k").await, (Some(bytes("v")), true));
    let other = Namespace::parse("acme:agent-").unwrap();
    assert_eq!(layer.get(&ctx(), &other, "7k").await.unwrap(), None);
    assert_eq!(get(&layer, &probe, "absent").await, (None, false));
    assert_eq!(get(&layer, &probe, "absent").await, (None, true));
}

#[tokio::test]
async fn fresh_and_extending_reads_reach_the_inner_store() {
    let (layer, probe) = cached();
    probe.store.put(&ctx(), &ns(), "k", bytes("old")).await.unwrap();
    get(&layer, &probe, "k").await;
    probe.store.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap();
    let plain = GetOptions::new();
    let hour = Duration::from_secs(3600);
    for options in [plain.fresh(), plain.refreshing(), plain.with_extended_ttl(hour)] {
        let entry = layer.get_entry(&ctx(), &ns(), "k", options).await.unwrap();
        assert_eq!(entry.unwrap().value, bytes("new"), "{options:?}");
    }
    let many = layer.get_many(&ctx(), &ns(), &["k"], plain).await.unwrap();
    assert_eq!(many[0].as_ref().unwrap().as_ref().unwrap().value, bytes("new"));
}

#[tokio::test]
async fn update_after_a_write_below_the_layer_decides_once() {
    let (layer, probe) = cached();
    probe.store.put(&ctx(), &ns(), "n", bytes("1")).await.unwrap();
    assert_eq!(get(&layer, &probe, "n").await, (Some(bytes("1")), false));
    probe.store.put(&ctx(), &ns(), "n", bytes("2")).await.unwrap();
    assert_eq!(get(&layer, &probe, "n").await, (Some(bytes("1")), true));
    let mut decisions = 0;
    let decide = |entry: Option<cubbyhole_core::Entry<Bytes>>| {
        decisions += 1;
        assert_eq!(entry.unwrap().value, bytes("2"));
        Ok(Update::Put(bytes("3")))
    };
    layer.update(&ctx(), &ns(), "n", decide).await.unwrap();
    assert_eq!(decisions, 1);
    assert_eq!(get(&layer, &probe, "n").await.0, Some(bytes("3")));
}

#[tokio::test]
async fn hit_is_refused_when_the_context_has_ended() {
    let (layer, probe) = cached();
    get(&layer, &probe, "k").await;
    let cancelled = ctx();
    cancelled.cancel();
    let late = ctx().with_timeout(Duration::ZERO);
    for (ctx, kind) in [(cancelled, ErrorKind::Cancelled), (late, ErrorKind::DeadlineExceeded)] {
        let error = layer.get(&ctx, &ns(), "k").await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Some("get")));
        let read = layer.get_entry(&ctx, &ns(), "k", GetOptions::new()).await;
        let error = read.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Some("get_entry")));
    }
    assert_eq!(probe.reads(), 1);
}

#[tokio::test]
async fn hit_is_refused_after_close() {
    let (layer, probe) = cached();
    layer.put(&ctx(), &ns(), "k", bytes("v")).await.unwrap();
    get(&layer, &probe, "k").await;
    let clone = layer.clone();
    layer.close(&ctx()).await.unwrap();
    for layer in [layer, clone] {
        let error = layer.get(&ctx(), &ns(), "k").await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidArgument, Some("get")));
        assert!(error.message().contains("closed"), "{error}");
        let read = layer.get_entry(&ctx(), &ns(), "k", GetOptions::new()).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn loop_over_hits_yields_to_other_tasks() {
    let (layer, _) = cached();
    let hits = async {
        loop {
            layer.get(&ctx(), &ns(), "k").await.unwrap();
        }
    };
    tokio::select! {
        biased;
        () = hits => {}
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn cached_value_shares_no_buffer_with_the_inner_store() {
    let (layer, probe) = cached();
    let large = Bytes::from(vec![7; 1024 * 1024]);
    probe.store.put(&ctx(), &ns(), "k", large.slice(..3)).await.unwrap();
    get(&layer, &probe, "k").await;
    let hit = layer.get(&ctx(), &ns(), "k").await.unwrap().unwrap();
    assert_eq!(hit, large.slice(..3));
    assert_ne!(hit.as_ptr(), large.as_ptr());
}

#[tokio::test]
async fn value_over_an_eighth_of_the_cache_is_not_cached() {
    let (layer, probe) = cached();
    let eighth = CacheOptions::DEFAULT_BYTES as usize / 8;
    for (key, bytes, is_cached) in [("at", eighth - 1024, true), ("over", eighth, false)] {
        probe.store.put(&ctx(), &ns(), key, vec![0; bytes].into()).await.unwrap();
        get(&layer, &probe, key).await;
        assert_eq!(get(&layer, &probe, key).await.1, is_cached, "{key}");
    }
}

#[tokio::test]
async fn options_of_zero_are_rejected_and_named() {
    let zero_bytes = CacheOptions::new().with_bytes(0);
    let zero_stale = CacheOptions::new().with_max_stale(Duration::ZERO);
    for (options, name) in [(zero_bytes, "bytes"), (zero_stale, "max_stale")] {
        let error = Cached::new(InMemoryStore::<Bytes>::new(), options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(name), "{error}");
    }
}

#[tokio::test]
async fn debug_shows_sizes_and_no_names_or_values() {
    let store = InMemoryStore::<Bytes>::new();
    let layer = Cached::new(store, CacheOptions::new().with_bytes(4096)).unwrap();
    let ns = Namespace::parse("tenant-name").unwrap();
    let ctx = ExecutionContext::new();
    layer.put(&ctx, &ns, "key-name", bytes("value-text")).await.unwrap();
    layer.get(&ctx, &ns, "key-name").await.unwrap();
    let shown = format!("{layer:?}");
    assert!(shown.starts_with("Cached { limit_bytes: 4096, bytes: "), "{shown}");
    for secret in ["tenant-name", "key-name", "value-text"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
