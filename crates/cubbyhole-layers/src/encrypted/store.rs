//! `Encrypted` as a store: it refuses the reserved tenant, and passes every other call on.

use std::future::Future;
use std::pin::Pin;

use cubbyhole_core::limits::{MAX_PAGE_ITEMS, check_page_limit};
use cubbyhole_core::{
    Backend, Batch, Bytes, Condition, Entry, EntryStat, EntryStore, Erased, Error,
    ExecutionContext, Expiry, GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ResultExt, ScanItem, ScanOptions, Store, TenantId, Timestamp,
    Usage, Version, Written, async_trait, delegate,
};

use super::Encrypted;
use super::key_store::RESERVED_TENANT;

/// Writes methods that refuse the reserved tenant. They return the future of the inner store, without
/// a second box.
macro_rules! guarded {
    ($($operation:literal $name:ident[$($life:lifetime)*](
        $place:ident: $place_ty:ty $(, $arg:ident: $ty:ty)*
    ) -> $out:ty;)+) => {$(
        fn $name<'me, 'c, 'n, $($life,)* 'async_trait>(
            &'me self,
            ctx: &'c ExecutionContext,
            $place: &'n $place_ty,
            $($arg: $ty),*
        ) -> Pin<Box<dyn Future<Output = Result<$out>> + Send + 'async_trait>>
        where
            'me: 'async_trait,
            'c: 'async_trait,
            'n: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            if is_reserved($place.as_str()) {
                return Box::pin(refuse(ctx, $operation));
            }
            self.sealed.$name(ctx, $place, $($arg),*)
        }
    )+};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> Store<Bytes> for Encrypted<S> {
    guarded! {
        "put" put_with_options['k](
            ns: Namespace, key: &'k str, value: Bytes, options: PutOptions
        ) -> ();
        "get" get['k](ns: Namespace, key: &'k str) -> Option<Bytes>;
        "delete" delete['k](ns: Namespace, key: &'k str) -> ();
        "list" list['p](ns: Namespace, prefix: Option<&'p str>) -> Vec<String>;
        "put" put['k](ns: Namespace, key: &'k str, value: Bytes) -> ();
        "list_namespaces" list_namespaces[](prefix: NamespacePrefix) -> Vec<Namespace>;
    }

    delegate!(Bytes, |layer| layer.sealed => evict_expired);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> EntryStore<Bytes> for Encrypted<S> {
    guarded! {
        "get_entry" get_entry['k](
            ns: Namespace, key: &'k str, options: GetOptions
        ) -> Option<Entry<Bytes>>;
        "get_many" get_many['k 's](
            ns: Namespace, keys: &'k [&'s str], options: GetOptions
        ) -> Vec<Result<Option<Entry<Bytes>>>>;
        "stat" stat['k 's](ns: Namespace, keys: &'k [&'s str]) -> Vec<Option<EntryStat>>;
        "put_entry" put_entry['k](
            ns: Namespace, key: &'k str, value: Bytes, options: PutOptions, condition: Condition
        ) -> Version;
        "delete_entry" delete_entry['k](
            ns: Namespace, key: &'k str, condition: Condition
        ) -> bool;
        "write" write[](ns: Namespace, batch: Batch<Bytes>) -> Vec<Written>;
        "scan" scan[](ns: Namespace, options: ScanOptions) -> Page<ScanItem<Bytes>, String>;
        "scan_recursive" scan_recursive[](
            prefix: NamespacePrefix, options: RecursiveScanOptions
        ) -> Page<(Namespace, ScanItem<Bytes>), Position>;
        "scan_namespaces" scan_namespaces['a](
            prefix: NamespacePrefix, after: Option<&'a Namespace>, limit: usize
        ) -> Page<Namespace>;
        "touch" touch['k](
            ns: Namespace, key: &'k str, expiry: Expiry, condition: Condition
        ) -> bool;
        "take" take['k](ns: Namespace, key: &'k str) -> Option<Entry<Bytes>>;
        "delete_prefix" delete_prefix['k](
            ns: Namespace, key_prefix: &'k str, limit: usize
        ) -> Erased;
        "erase" erase[](prefix: NamespacePrefix, limit: usize) -> Erased;
        "usage" usage[](prefix: NamespacePrefix) -> Usage;
        "current_time" current_time[](ns: Namespace) -> Timestamp;
    }

    async fn scan_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let inner = &self.sealed.inner;
        if check_page_limit(limit).is_err() {
            return inner.scan_tenants(ctx, after, limit).await;
        }
        // One more than the limit decides whether there is a next page.
        let mut tenants: Vec<TenantId> = Vec::new();
        let mut after = after.cloned();
        loop {
            let step = (limit + 1).saturating_sub(tenants.len()).min(MAX_PAGE_ITEMS);
            let page = inner.scan_tenants(ctx, after.as_ref(), step).await?;
            tenants.extend(page.items.into_iter().filter(|id| !is_reserved(id.as_rendered())));
            match page.next {
                Some(next) if tenants.len() <= limit => after = Some(next),
                _ => return Ok(Page::from_items(tenants, limit)),
            }
        }
    }

    delegate!(Bytes, |layer| layer.sealed => max_value_bytes);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Encrypted<S> {
    delegate!(Bytes, |layer| layer.sealed => close, compact);
}

/// Returns whether a namespace, a prefix or a tenant, as written there, is in the reserved tenant.
pub(super) fn is_reserved(rendered: &str) -> bool {
    rendered
        .strip_prefix(RESERVED_TENANT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

pub(super) async fn refuse<T>(ctx: &ExecutionContext, operation: &'static str) -> Result<T> {
    let refused = ctx.begin().await.and_then(|()| {
        Err(Error::permission_denied(format!(
            "the tenant `{RESERVED_TENANT}` has the keys of the encryption layer; use another tenant"
        )))
    });
    refused.in_operation(operation)
}
