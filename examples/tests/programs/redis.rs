//! A prefix of its own on Redis.

use cubbyhole::{EntryStore, EntryStoreExt, ExecutionContext, NamespacePrefix, Store};
use cubbyhole_testkit::shared;

use crate::support::{Outcome, block_on};

/// A store with a prefix of its own on Redis.
pub(crate) struct Prefix {
    pub(crate) store: String,
}

impl Prefix {
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self { store: shared::with_new_prefix(shared::redis_url()?, "examples") })
    }
}

/// Leaves nothing on a server that may be the developer's own, but fences that expire.
impl Drop for Prefix {
    fn drop(&mut self) {
        // Without it a test fails no less; what is left has a prefix of its own.
        drop(block_on(async {
            let ctx = ExecutionContext::new();
            let store = cubbyhole::open(&ctx, &self.store).await?;
            for tenant in store.scan_tenants(&ctx, None, 1000).await?.items {
                store.erase_all(&ctx, &NamespacePrefix::from(tenant)).await?;
            }
            store.evict_expired(&ctx).await?;
            Ok(store.close(&ctx).await?)
        }));
    }
}
