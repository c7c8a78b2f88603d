//! Helpers of these tests.

use std::sync::Arc;

use cubbyhole_core::{Bytes, Error, ExecutionContext, ManualClock, Namespace, Result, Store};
use cubbyhole_layers::{Encrypted, KeyRing};
use cubbyhole_memory::InMemoryStore;

pub(crate) type Inner = InMemoryStore<Bytes>;

pub(crate) fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

pub(crate) fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

pub(crate) fn memory(clock: &ManualClock) -> Inner {
    InMemoryStore::builder().with_clock(clock.clone()).with_value_size(Bytes::len).build()
}

/// A layer with its own cache, like that of another process.
pub(crate) fn layer(inner: &Inner, ring: &KeyRing, clock: &ManualClock) -> Encrypted<Inner> {
    Encrypted::new(inner.clone(), Arc::new(ring.clone())).with_clock(clock.clone())
}

pub(crate) async fn get(
    store: &impl Store<Bytes>,
    place: &str,
    key: &str,
) -> Result<Option<Bytes>> {
    store.get(&ctx(), &ns(place), key).await
}

pub(crate) async fn put(
    store: &impl Store<Bytes>,
    place: &str,
    key: &str,
    value: impl Into<Bytes>,
) -> Result<()> {
    store.put(&ctx(), &ns(place), key, value.into()).await
}

#[track_caller]
pub(crate) fn assert_says(error: &Error, kind: cubbyhole_core::ErrorKind, text: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(text), "`{error}` does not contain `{text}`");
}
