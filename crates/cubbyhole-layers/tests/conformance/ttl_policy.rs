//! `TtlPolicy`: a policy that limits nothing, and one whose paths all run.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, ExecutionContext, Expiry, ManualClock, Namespace,
    Operation, PutOptions, Result, Store, Version, Written, async_trait, delegate,
};
use cubbyhole_layers::{TtlPolicy, TtlRule};

use crate::layer::{Inner, Layer};

/// About 8,017 years. From 2001, where the manual clock starts, it ends after the year 9999.
const MAX: Duration = Duration::from_secs(253_000_000_000);
/// About 7,000 years. No case uses it.
const DEFAULT: Duration = Duration::from_secs(220_000_000_003);

/// A policy without limits.
pub(crate) struct NoLimits;

impl Layer for NoLimits {
    #[expect(clippy::unwrap_used, reason = "a failed unwrap fails the suite")]
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(TtlPolicy::new(inner, TtlRule::new()).unwrap())
    }
}

/// A policy whose maximum is later than the year 9999, so it shortens no valid TTL.
pub(crate) struct HugeLimits;

impl Layer for HugeLimits {
    #[expect(clippy::unwrap_used, reason = "a failed unwrap fails the suite")]
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let rule = TtlRule::new().with_default(DEFAULT).with_max(MAX);
        Arc::new(TtlPolicy::new(WithoutDefault(inner), rule).unwrap())
    }
}

/// Turns the default TTL back into no expiry, which the cases expect.
struct WithoutDefault(Inner);

fn restored(expiry: Expiry) -> Expiry {
    if expiry == Expiry::After(DEFAULT) { Expiry::Never } else { expiry }
}

fn restored_options(options: PutOptions) -> PutOptions {
    options.with_expiry(restored(options.expiry()))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for WithoutDefault {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        self.0.put_with_options(ctx, ns, key, value, restored_options(options)).await
    }

    delegate!(Bytes, |layer| layer.0 =>
        put, get, delete, list, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for WithoutDefault {
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        self.0.put_entry(ctx, ns, key, value, restored_options(options), condition).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Written>> {
        let restore = |operation| match operation {
            Operation::Put { key, value, options, condition } => {
                Operation::Put { key, value, options: restored_options(options), condition }
            }
            delete @ Operation::Delete { .. } => delete,
        };
        let batch = batch.into_operations().into_iter().map(restore).collect();
        self.0.write(ctx, ns, batch).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        self.0.touch(ctx, ns, key, restored(expiry), condition).await
    }

    delegate!(Bytes, |layer| layer.0 =>
        get_entry, get_many, stat, delete_entry, scan, scan_recursive, scan_namespaces,
        scan_tenants, take, delete_prefix, erase, usage, current_time, max_value_bytes
    );
}
