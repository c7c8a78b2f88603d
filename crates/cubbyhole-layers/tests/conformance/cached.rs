//! The cache over memory. Both have the same clock.

use std::sync::Arc;

use cubbyhole_core::{
    Bytes, Entry, EntryStore, ExecutionContext, GetOptions, ManualClock, Namespace, Result, Store,
    async_trait, delegate,
};
use cubbyhole_layers::{CacheOptions, Cached};

use crate::layer::{Inner, Layer};

pub(crate) struct CachedLayer;

impl Layer for CachedLayer {
    #[expect(clippy::expect_used, reason = "a failed unwrap is a failed test")]
    fn around(inner: Inner, clock: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let options = CacheOptions::new().with_clock(Arc::new(clock.clone()));
        Arc::new(Cached::new(SlowReads(inner), options).expect("the options are valid"))
    }
}

/// Lets other tasks run between a read and its answer, as a remote backend does. Otherwise hardly any
/// write would complete between the read and the fill.
struct SlowReads(Inner);

#[async_trait]
impl Store<Bytes> for SlowReads {
    delegate!(Bytes, |store| store.0 =>
        get, put_with_options, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
impl EntryStore<Bytes> for SlowReads {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        let entry = self.0.get_entry(ctx, ns, key, options).await;
        if tokio::runtime::Handle::try_current().is_ok() {
            for _ in 0..fastrand::u8(0..4) {
                tokio::task::yield_now().await;
            }
        }
        entry
    }

    delegate!(Bytes, |store| store.0 =>
        get_many, stat, put_entry, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time, max_value_bytes
    );
}
