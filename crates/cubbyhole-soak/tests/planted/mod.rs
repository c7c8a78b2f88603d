//! A layer over the in-memory store with a planted fault.

use std::sync::atomic::{AtomicU64, Ordering};

use cubbyhole::{
    Backend, Bytes, Condition, EntryStore, ExecutionContext, InMemoryStore, Namespace,
    NamespacePrefix, PutOptions, Result, Store, Version, async_trait, delegate,
};

/// Faults of reads and writes occur in one of this many calls.
const ONE_IN: u64 = 20;

/// The fault of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault.
    None,
    /// `get` returns the value of another key.
    OtherKey,
    /// `get` returns a part of the value.
    Torn,
    /// `put_entry` reports success but does not write.
    LostWrite,
    /// `put_entry` ignores the condition.
    IgnoredCondition,
    /// `list_namespaces` also returns a namespace of another tenant.
    OtherTenants,
    /// `list_namespaces` returns no namespaces.
    NoNamespaces,
}

pub(crate) struct Planted {
    inner: InMemoryStore<Bytes>,
    fault: Fault,
    calls: AtomicU64,
}

impl Planted {
    pub(crate) fn new(fault: Fault) -> Self {
        let inner = InMemoryStore::builder().with_value_size(Bytes::len).build();
        Self { inner, fault, calls: AtomicU64::new(0) }
    }

    /// Whether `fault` occurs in this call.
    fn occurs(&self, fault: Fault) -> bool {
        self.fault == fault && self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN)
    }
}

#[async_trait]
impl Store<Bytes> for Planted {
    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        if self.occurs(Fault::OtherKey) {
            let other = if key == "k:0001" { "k:0002" } else { "k:0001" };
            return self.inner.get(ctx, ns, other).await;
        }
        let value = self.inner.get(ctx, ns, key).await?;
        if self.occurs(Fault::Torn) {
            return Ok(value.map(|value| value.slice(..value.len() / 2)));
        }
        Ok(value)
    }

    async fn list_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Vec<Namespace>> {
        if self.fault == Fault::NoNamespaces {
            return Ok(Vec::new());
        }
        let mut listed = self.inner.list_namespaces(ctx, prefix).await?;
        if self.fault == Fault::OtherTenants {
            listed.push(Namespace::parse("t%_99:other")?);
        }
        Ok(listed)
    }

    delegate!(Bytes, |layer| layer.inner => put_with_options, delete, list, evict_expired);
}

#[async_trait]
impl EntryStore<Bytes> for Planted {
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        if self.occurs(Fault::LostWrite) {
            return Ok(Version::draw());
        }
        // In every call, because a run can contain few calls where a caller can detect it.
        let ignored = self.fault == Fault::IgnoredCondition;
        let condition = if ignored { Condition::Always } else { condition };
        self.inner.put_entry(ctx, ns, key, value, options, condition).await
    }

    delegate!(Bytes, |layer| layer.inner =>
        get_entry, get_many, stat, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}

#[async_trait]
impl Backend for Planted {
    delegate!(Bytes, |layer| layer.inner => close, compact);
}
