//! A layer that stores values in another form: compressed or encrypted.

use std::future::Future;

use async_trait::async_trait;
use cubbyhole_core::limits::{check_key, check_value_bytes};
use cubbyhole_core::{
    Backend, Backoff, Batch, Bytes, Condition, Entry, EntryStore, ErrorKind, ExecutionContext,
    GetOptions, Namespace, NamespacePrefix, Operation, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store, Version, Written,
    delegate, runtime,
};

/// Turns values into their stored form and back.
pub(crate) trait Transform: Send + Sync + 'static {
    /// The most bytes by which the stored form is longer than the value.
    const OVERHEAD: usize;

    /// Returns the stored form of a value.
    fn seal(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> impl Future<Output = Result<Bytes>> + Send;

    /// Returns the value of a stored form.
    fn open(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        stored: Bytes,
    ) -> impl Future<Output = Result<Bytes>> + Send;
}

/// A store whose values `transform` changes on their way to `inner` and back.
#[derive(Debug, Clone)]
pub(crate) struct Transformed<T, S> {
    pub(crate) transform: T,
    pub(crate) inner: S,
}

impl<T: Transform, S: Send + Sync + 'static> Transformed<T, S> {
    async fn open_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        entry: Entry<Bytes>,
    ) -> Result<Entry<Bytes>> {
        let value = self.transform.open(ctx, ns, key, entry.value).await?;
        Ok(Entry { value, meta: entry.meta })
    }

    async fn open_item(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        item: ScanItem<Bytes>,
        operation: &'static str,
    ) -> ScanItem<Bytes> {
        let value = match item.value {
            Some(Ok(stored)) => {
                let opened = self.transform.open(ctx, ns, &item.key, stored).await;
                Some(opened.in_operation(operation))
            }
            other => other,
        };
        ScanItem { value, ..item }
    }
}

impl<T: Transform, S: EntryStore<Bytes>> Transformed<T, S> {
    /// The size limit for values before they are transformed.
    fn value_limit(&self) -> Option<usize> {
        self.inner.max_value_bytes().map(|bytes| bytes.saturating_sub(T::OVERHEAD))
    }

    async fn seal(
        &self,
        operation: &'static str,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<Bytes> {
        let checked = check_key(key).and_then(|()| match self.value_limit() {
            Some(limit) => check_value_bytes(value.len(), limit),
            None => Ok(()),
        });
        refusal_cooperates(checked.in_operation(operation)).await?;
        self.transform.seal(ctx, ns, key, value).await.in_operation(operation)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transform, S: EntryStore<Bytes>> Store<Bytes> for Transformed<T, S> {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        let stored = self.seal("put", ctx, ns, key, value).await?;
        self.inner.put_with_options(ctx, ns, key, stored, options).await
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        match self.inner.get(ctx, ns, key).await? {
            Some(stored) => {
                self.transform.open(ctx, ns, key, stored).await.in_operation("get").map(Some)
            }
            None => Ok(None),
        }
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        let stored = self.seal("put", ctx, ns, key, value).await?;
        self.inner.put(ctx, ns, key, stored).await
    }

    delegate!(Bytes, |layer| layer.inner => delete, list, list_namespaces, evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transform, S: EntryStore<Bytes>> EntryStore<Bytes> for Transformed<T, S> {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        match self.inner.get_entry(ctx, ns, key, options).await? {
            Some(entry) => {
                self.open_entry(ctx, ns, key, entry).await.in_operation("get_entry").map(Some)
            }
            None => Ok(None),
        }
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        let stored = self.inner.get_many(ctx, ns, keys, options).await?;
        let mut opened = Vec::with_capacity(stored.len());
        for (key, answer) in keys.iter().zip(stored) {
            opened.push(match answer {
                Ok(Some(entry)) => {
                    self.open_entry(ctx, ns, key, entry).await.in_operation("get_many").map(Some)
                }
                other => other,
            });
        }
        Ok(opened)
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let stored = self.seal("put_entry", ctx, ns, key, value).await?;
        self.inner.put_entry(ctx, ns, key, stored, options, condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        let limit = self.value_limit().unwrap_or(usize::MAX);
        let checked = batch.check(limit, |value| Some(value.len()));
        refusal_cooperates(checked.in_operation("write")).await?;
        let mut sealed = Batch::new();
        for operation in batch.into_operations() {
            sealed.push(match operation {
                Operation::Put { key, value, options, condition } => {
                    let stored = self.transform.seal(ctx, ns, &key, value).await;
                    let value = stored.in_operation("write")?;
                    Operation::Put { key, value, options, condition }
                }
                Operation::Delete { key, condition } => Operation::Delete { key, condition },
            });
        }
        self.inner.write(ctx, ns, sealed).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let page = self.inner.scan(ctx, ns, options).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for item in page.items {
            items.push(self.open_item(ctx, ns, item, "scan").await);
        }
        Ok(Page { items, next: page.next })
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        let page = self.inner.scan_recursive(ctx, prefix, options).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for (ns, item) in page.items {
            let item = self.open_item(ctx, &ns, item, "scan_recursive").await;
            items.push((ns, item));
        }
        Ok(Page { items, next: page.next })
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        refusal_cooperates(check_key(key).in_operation("take")).await?;
        // Opens before it deletes, so a value that cannot be opened is not lost. Deletes the version
        // that it opened only, so exactly one of several takers gets it.
        let mut backoff = Backoff::new();
        loop {
            let read = GetOptions::new().fresh();
            let entry = self.inner.get_entry(ctx, ns, key, read).await.in_operation("take")?;
            let Some(entry) = entry else { return Ok(None) };
            let entry = self.open_entry(ctx, ns, key, entry).await.in_operation("take")?;
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

    fn max_value_bytes(&self) -> Option<usize> {
        self.value_limit()
    }

    delegate!(Bytes, |layer| layer.inner =>
        stat, delete_entry, scan_namespaces, scan_tenants, touch, delete_prefix, erase, usage,
        current_time
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transform, S: Backend> Backend for Transformed<T, S> {
    delegate!(Bytes, |layer| layer.inner => close, compact);
}

/// Cooperates with the scheduler before a call fails that has not reached the inner store.
async fn refusal_cooperates<T>(checked: Result<T>) -> Result<T> {
    if checked.is_err() {
        runtime::cooperate().await;
    }
    checked
}
