//! [`Typed`]: a store of your own type on top of a store of bytes.

use std::fmt;
use std::marker::PhantomData;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;
use crate::limits::check_key;
use crate::runtime::cooperate;
use crate::{
    Batch, Codec, Condition, Entry, EntryStore, ErrorKind, ExecutionContext, GetOptions, JsonCodec,
    Namespace, NamespacePrefix, Operation, Page, Position, PutOptions, RecursiveScanOptions,
    Result, ResultExt, ScanItem, ScanOptions, Store, Version, Written, delegate,
};

/// A store of `V` on top of a store of [`Bytes`]. A [`Codec`] encodes the values, by default as JSON.
///
/// Create it with [`TypedExt::typed`]. A put refuses a value that the codec cannot represent. A stored
/// value that the codec cannot decode is an error of that item only, so it does not fail a whole listing.
///
/// ```
/// use cubbyhole::{Bytes, ExecutionContext, InMemoryStore, Namespace, Store, TypedExt};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = InMemoryStore::<Bytes>::new().typed::<Vec<u32>>();
/// let ctx = ExecutionContext::new();
/// let ns = Namespace::parse("acme:sums")?;
///
/// store.put(&ctx, &ns, "a", vec![1, 2]).await?;
/// assert_eq!(store.get(&ctx, &ns, "a").await?, Some(vec![1, 2]));
/// assert_eq!(store.inner().get(&ctx, &ns, "a").await?.as_deref(), Some(&b"[1,2]"[..]));
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Typed<V, C, S> {
    inner: S,
    codec: C,
    // `fn() -> V` because the store contains no `V`: it is `Send` and `Sync` for any `V`.
    value: PhantomData<fn() -> V>,
}

/// Wraps a store of bytes in [`Typed`].
pub trait TypedExt: Store<Bytes> + Sized {
    /// Returns a store of `V` that stores values as JSON.
    fn typed<V: Serialize + DeserializeOwned>(self) -> Typed<V, JsonCodec, Self> {
        self.typed_with(JsonCodec)
    }

    /// Returns a store of `V` that encodes values with `codec`.
    fn typed_with<V, C: Codec<V>>(self, codec: C) -> Typed<V, C, Self> {
        Typed { inner: self, codec, value: PhantomData }
    }
}

impl<S: Store<Bytes>> TypedExt for S {}

impl<V, C, S> Typed<V, C, S> {
    /// Returns the inner store of bytes.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the inner store of bytes, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<V: Send + 'static, C: Codec<V>, S: Send + Sync + 'static> Typed<V, C, S> {
    // Takes the value because a `V` borrowed across an await would have to be `Sync`.
    fn encode(&self, operation: &'static str, value: V) -> impl Future<Output = Result<Bytes>> {
        let encoded = self.codec.encode(&value).in_operation(operation);
        drop(value);
        refusal_cooperates(encoded)
    }

    fn decode(&self, operation: &'static str, bytes: &Bytes) -> Result<V> {
        self.codec.decode(bytes).in_operation(operation)
    }

    fn decode_entry(&self, operation: &'static str, entry: Entry<Bytes>) -> Result<Entry<V>> {
        entry.try_map(|bytes| self.decode(operation, &bytes))
    }

    fn decode_item(&self, operation: &'static str, item: ScanItem<Bytes>) -> ScanItem<V> {
        let ScanItem { key, meta, value_bytes, value } = item;
        let value = value.map(|value| value.and_then(|bytes| self.decode(operation, &bytes)));
        ScanItem { key, meta, value_bytes, value }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, C: Codec<V>, S: Store<Bytes>> Store<V> for Typed<V, C, S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
    ) -> Result<()> {
        let bytes = self.encode("put", value).await?;
        self.inner.put_with_options(ctx, ns, key, bytes, options).await
    }

    async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
        let bytes = self.inner.get(ctx, ns, key).await?;
        bytes.map(|bytes| self.decode("get", &bytes)).transpose()
    }

    async fn put(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str, value: V) -> Result<()> {
        let bytes = self.encode("put", value).await?;
        self.inner.put(ctx, ns, key, bytes).await
    }

    delegate!(Bytes, |layer| layer.inner => delete, list, list_namespaces, evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Send + 'static, C: Codec<V>, S: EntryStore<Bytes>> EntryStore<V> for Typed<V, C, S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<V>>> {
        let entry = self.inner.get_entry(ctx, ns, key, options).await?;
        entry.map(|entry| self.decode_entry("get_entry", entry)).transpose()
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<V>>>>> {
        let answers = self.inner.get_many(ctx, ns, keys, options).await?;
        let decode = |entry| self.decode_entry("get_many", entry);
        Ok(answers
            .into_iter()
            .map(|answer| answer.and_then(|entry| entry.map(decode).transpose()))
            .collect())
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let bytes = self.encode("put_entry", value).await?;
        self.inner.put_entry(ctx, ns, key, bytes, options, condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<V>,
    ) -> Result<Vec<Written>> {
        let encode = |operation| {
            Ok(match operation {
                Operation::Put { key, value, options, condition } => {
                    let value = self.codec.encode(&value).in_operation("write")?;
                    Operation::Put { key, value, options, condition }
                }
                Operation::Delete { key, condition } => Operation::Delete { key, condition },
            })
        };
        let batch: Result<Batch<Bytes>> = batch.into_operations().into_iter().map(encode).collect();
        let batch = refusal_cooperates(batch).await?;
        self.inner.write(ctx, ns, batch).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        let page = self.inner.scan(ctx, ns, options).await?;
        Ok(page.map(|item| self.decode_item("scan", item)))
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        let page = self.inner.scan_recursive(ctx, prefix, options).await?;
        Ok(page.map(|(ns, item)| (ns, self.decode_item("scan_recursive", item))))
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<V>>> {
        // Checked before `get_entry`, whose error would name the wrong operation.
        refusal_cooperates(check_key(key).in_operation("take")).await?;
        let mut backoff = Backoff::new();
        // Decodes before it deletes, so an unreadable value is not lost. Deletes the decoded version
        // only, so exactly one of several takers gets it.
        loop {
            let read = GetOptions::new().fresh();
            let Some(entry) = self.inner.get_entry(ctx, ns, key, read).await? else {
                return Ok(None);
            };
            let entry = self.decode_entry("take", entry)?;
            let condition = Condition::IfVersion(entry.meta.version);
            match self.inner.delete_entry(ctx, ns, key, condition).await {
                Ok(_) => return Ok(Some(entry)),
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    backoff.pause(ctx).await.in_operation("take")?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    delegate!(Bytes, |layer| layer.inner =>
        stat, delete_entry, scan_namespaces, scan_tenants, touch, delete_prefix, erase, usage,
        current_time, max_value_bytes
    );
}

/// Cooperates with the scheduler if the call fails before it reaches the inner store.
async fn refusal_cooperates<T>(checked: Result<T>) -> Result<T> {
    if checked.is_err() {
        cooperate().await;
    }
    checked
}

impl<V, C: Clone, S: Clone> Clone for Typed<V, C, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), codec: self.codec.clone(), value: PhantomData }
    }
}

impl<V, C: fmt::Debug, S: fmt::Debug> fmt::Debug for Typed<V, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("inner", &self.inner).field("codec", &self.codec).finish()
    }
}
