//! A store that follows a script: it fails as scripted, and records its calls.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryStat, EntryStore, Erased, Error, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions, RecursiveScanOptions,
    Result, ScanItem, ScanOptions, Store, TenantId, Timestamp, Usage, Version, Written,
    async_trait, delegate,
};
use cubbyhole_memory::InMemoryStore;

pub(crate) type Memory = Arc<InMemoryStore<Bytes>>;

/// What happens at the next call.
pub(crate) enum Step {
    /// The call succeeds or fails as the memory decides.
    Pass,
    /// The call has no effect and fails.
    Fail(Error),
    /// The call takes effect, and its answer is replaced by the error.
    ApplyThenFail(Error),
    /// The call waits until its context ends.
    UntilEnded,
    /// Runs before the next call, as another client does.
    Meanwhile(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// A call that the store has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) remaining: Option<Duration>,
}

/// A store in memory that follows its steps, and then passes all calls.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) memory: Memory,
    steps: Mutex<VecDeque<Step>>,
    calls: Mutex<Vec<Call>>,
}

impl Script {
    pub(crate) fn then(&self, steps: impl IntoIterator<Item = Step>) {
        self.steps.lock().unwrap().extend(steps);
    }

    /// Returns the calls since the last call of this method. All steps must be used up.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        assert!(self.steps.lock().unwrap().is_empty(), "steps are left");
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    pub(crate) fn take_methods(&self) -> Vec<&'static str> {
        self.take_calls().iter().map(|call| call.method).collect()
    }

    /// Forgets the steps that are left.
    pub(crate) fn discard_steps(&self) {
        self.steps.lock().unwrap().clear();
    }

    async fn play<T>(
        &self,
        method: &'static str,
        ctx: &ExecutionContext,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.calls.lock().unwrap().push(Call { method, remaining: ctx.remaining() });
        loop {
            let step = self.steps.lock().unwrap().pop_front();
            match step {
                None | Some(Step::Pass) => return call.await,
                Some(Step::Fail(error)) => return Err(error.in_operation(name_of(method))),
                Some(Step::ApplyThenFail(error)) => {
                    call.await.map(drop).unwrap();
                    return Err(error.in_operation(name_of(method)));
                }
                Some(Step::UntilEnded) => {
                    return Err(ctx.ended().await.in_operation(name_of(method)));
                }
                Some(Step::Meanwhile(other)) => other.await,
            }
        }
    }
}

/// Returns the name of an operation in an error.
fn name_of(method: &'static str) -> &'static str {
    if method == "put_with_options" { "put" } else { method }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for Script {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        self.play(
            "put_with_options",
            ctx,
            self.memory.put_with_options(ctx, ns, key, value, options),
        )
        .await
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        self.play("get", ctx, self.memory.get(ctx, ns, key)).await
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        self.play("delete", ctx, self.memory.delete(ctx, ns, key)).await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        self.play("list", ctx, self.memory.list(ctx, ns, prefix)).await
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        self.play("put", ctx, self.memory.put(ctx, ns, key, value)).await
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        self.play("list_namespaces", ctx, self.memory.list_namespaces(ctx, prefix)).await
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.play("evict_expired", ctx, self.memory.evict_expired(ctx)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for Script {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        self.play("get_entry", ctx, self.memory.get_entry(ctx, ns, key, options)).await
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        self.play("get_many", ctx, self.memory.get_many(ctx, ns, keys, options)).await
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        self.play("stat", ctx, self.memory.stat(ctx, ns, keys)).await
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
        self.play("put_entry", ctx, self.memory.put_entry(ctx, ns, key, value, options, condition))
            .await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        self.play("delete_entry", ctx, self.memory.delete_entry(ctx, ns, key, condition)).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        self.play("write", ctx, self.memory.write(ctx, ns, batch)).await
    }

    async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        self.play("scan", ctx, self.memory.scan(ctx, ns, options)).await
    }

    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        self.play("scan_recursive", ctx, self.memory.scan_recursive(ctx, prefix, options)).await
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        self.play("scan_namespaces", ctx, self.memory.scan_namespaces(ctx, prefix, after, limit))
            .await
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        self.play("scan_tenants", ctx, self.memory.scan_tenants(ctx, after, limit)).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        self.play("touch", ctx, self.memory.touch(ctx, ns, key, expiry, condition)).await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        self.play("take", ctx, self.memory.take(ctx, ns, key)).await
    }

    async fn delete_prefix(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key_prefix: &str,
        limit: usize,
    ) -> Result<Erased> {
        self.play("delete_prefix", ctx, self.memory.delete_prefix(ctx, ns, key_prefix, limit)).await
    }

    async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
    ) -> Result<Erased> {
        self.play("erase", ctx, self.memory.erase(ctx, prefix, limit)).await
    }

    async fn usage(&self, ctx: &ExecutionContext, prefix: &NamespacePrefix) -> Result<Usage> {
        self.play("usage", ctx, self.memory.usage(ctx, prefix)).await
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        self.play("current_time", ctx, self.memory.current_time(ctx, ns)).await
    }

    delegate!(Bytes, |script| script.memory => max_value_bytes);
}
