//! A broken layer: it repeats puts of unknown outcome.

use std::sync::Arc;

use cubbyhole_conformance::Faulty;
use cubbyhole_core::{
    Bytes, Condition, EntryStore, ErrorKind, ExecutionContext, Namespace, PutOptions, Result,
    Store, Version, async_trait, delegate,
};

use crate::PAUSE;

pub(crate) struct Naive(pub(crate) Arc<Faulty<Bytes>>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for Naive {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        self.put_entry(ctx, ns, key, value, options, Condition::Always).await.map(drop)
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        self.put_with_options(ctx, ns, key, value, PutOptions::new()).await
    }

    delegate!(Bytes, |layer| layer.0 => get, delete, list, list_namespaces, evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for Naive {
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let options = options.with_version(options.version_or_draw());
        loop {
            match self.0.put_entry(ctx, ns, key, value.clone(), options, condition).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => ctx.sleep(PAUSE).await?,
                answer => return answer,
            }
        }
    }

    delegate!(Bytes, |layer| layer.0 =>
        get_entry, get_many, stat, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time, max_value_bytes
    );
}
