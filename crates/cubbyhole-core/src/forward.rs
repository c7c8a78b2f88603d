//! `Arc<S>` and `Box<S>` are stores where `S` is, `dyn` stores included.
//!
//! Each method is written as `#[async_trait]` would expand it, so that it returns the inner boxed
//! future and adds no second box.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{
    Backend, Batch, Compaction, Condition, Entry, EntryStore, Erased, ExecutionContext, Expiry,
    GetOptions, Namespace, NamespacePrefix, Page, PutOptions, Result, ScanItem, ScanOptions, Store,
    TenantId, Timestamp, Usage, Version,
};

/// `[lifetimes of the references] fn name(borrowed arguments; owned arguments) -> answer`.
macro_rules! forward {
    ($([$($life:lifetime)*] fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(fn $name<'me, $($life,)* 'async_trait>(
            &'me self,
            $($arg: $ty),*
        ) -> Pin<Box<dyn Future<Output = Result<$out>> + Send + 'async_trait>>
        where
            'me: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            (**self).$name($($arg),*)
        })*
    };
}

macro_rules! forwarding_impls {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<V: Send + 'static, S: Store<V> + ?Sized> Store<V> for $pointer<S> {
            forward! {
                ['c 'n 'k] fn put_with_options(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str, value: V, options: PutOptions) -> ();
                ['c 'n 'k] fn get(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str) -> Option<V>;
                ['c 'n 'k] fn delete(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str) -> ();
                ['c 'n 'p] fn list(ctx: &'c ExecutionContext, ns: &'n Namespace, prefix: Option<&'p str>) -> Vec<String>;
                ['c 'n 'k] fn put(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str, value: V) -> ();
                ['c 'p] fn list_namespaces(ctx: &'c ExecutionContext, prefix: &'p NamespacePrefix) -> Vec<Namespace>;
                ['c] fn evict_expired(ctx: &'c ExecutionContext) -> usize;
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<V: Send + 'static, S: EntryStore<V> + ?Sized> EntryStore<V> for $pointer<S> {
            forward! {
                ['c 'n 'k] fn get_entry(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str, options: GetOptions) -> Option<Entry<V>>;
                ['c 'n 'k 's] fn get_many(ctx: &'c ExecutionContext, ns: &'n Namespace, keys: &'k [&'s str]) -> Vec<Result<Option<Entry<V>>>>;
                ['c 'n 'k] fn put_entry(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str, value: V, options: PutOptions, condition: Condition) -> Version;
                ['c 'n 'k] fn delete_entry(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str, condition: Condition) -> bool;
                ['c 'n] fn write(ctx: &'c ExecutionContext, ns: &'n Namespace, batch: Batch<V>) -> Vec<Option<Version>>;
                ['c 'n] fn scan(ctx: &'c ExecutionContext, ns: &'n Namespace, options: ScanOptions) -> Page<ScanItem<V>, String>;
                ['c 'p 'a] fn scan_namespaces(ctx: &'c ExecutionContext, prefix: &'p NamespacePrefix, after: Option<&'a Namespace>, limit: usize) -> Page<Namespace>;
                ['c 'a] fn scan_tenants(ctx: &'c ExecutionContext, after: Option<&'a TenantId>, limit: usize) -> Page<TenantId>;
                ['c 'n 'k] fn touch(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str, expiry: Expiry) -> bool;
                ['c 'n 'k] fn take(ctx: &'c ExecutionContext, ns: &'n Namespace, key: &'k str) -> Option<Entry<V>>;
                ['c 'p] fn erase(ctx: &'c ExecutionContext, prefix: &'p NamespacePrefix, limit: usize) -> Erased;
                ['c 'p] fn usage(ctx: &'c ExecutionContext, prefix: &'p NamespacePrefix) -> Usage;
                ['c 'n] fn current_time(ctx: &'c ExecutionContext, ns: &'n Namespace) -> Timestamp;
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<S: Backend + ?Sized> Backend for $pointer<S> {
            forward! {
                ['c] fn close(ctx: &'c ExecutionContext) -> ();
                ['c] fn compact(ctx: &'c ExecutionContext) -> Compaction;
            }
        }
    };
}

forwarding_impls!(Arc);
forwarding_impls!(Box);
