//! A private key prefix on a Redis server.

use cubbyhole::{EntryStore, EntryStoreExt, ExecutionContext, NamespacePrefix, Store};
use cubbyhole_testkit::shared;

use crate::support::{TestResult, block_on};

/// A store with a private key prefix.
pub(crate) struct Prefix {
    pub(crate) store: String,
}

impl Prefix {
    pub(crate) fn new() -> TestResult<Self> {
        Ok(Self { store: shared::with_new_prefix(shared::redis_url()?, "examples") })
    }
}

/// Erases the store, because the server can be the developer's. Only fences remain, which expire.
impl Drop for Prefix {
    fn drop(&mut self) {
        // Errors are ignored: remaining keys have a unique prefix and affect no other test.
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
