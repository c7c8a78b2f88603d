//! [`delegate!`](crate::delegate): the pass-through methods of a layer.
//!
//! Each method is written as `#[async_trait]` would expand it. It returns the boxed future of the
//! inner store and adds no second box.

/// Writes methods of [`Store`](crate::Store), [`EntryStore`](crate::EntryStore) or
/// [`Backend`](crate::Backend) that pass the call on to an inner store.
///
/// Use it in the trait impls of a layer, and write out only the methods that the layer changes. The
/// arguments are the type of the values, an expression for the inner store, and the list of methods.
/// A method that is neither listed nor written keeps the trait's default body, which may refuse the
/// call or return an empty result. Put `#[deny(clippy::missing_trait_methods)]` on the impl to make that an error.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use cubbyhole::{ExecutionContext, InMemoryStore, Namespace, Result, Store, async_trait, delegate};
///
/// /// Counts the calls of `get`.
/// struct Counting<S> {
///     inner: S,
///     reads: AtomicU64,
/// }
///
/// #[async_trait]
/// #[deny(clippy::missing_trait_methods)]
/// impl<V: Send + 'static, S: Store<V>> Store<V> for Counting<S> {
///     async fn get(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<Option<V>> {
///         self.reads.fetch_add(1, Ordering::Relaxed);
///         self.inner.get(ctx, ns, key).await
///     }
///
///     delegate!(V, |layer| layer.inner =>
///         put_with_options, delete, list, put, list_namespaces, evict_expired
///     );
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let store = Counting { inner: InMemoryStore::<u32>::new(), reads: AtomicU64::new(0) };
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:counters")?);
/// store.put(&ctx, &ns, "visits", 7).await?;
/// assert_eq!(store.get(&ctx, &ns, "visits").await?, Some(7));
/// assert_eq!(store.reads.into_inner(), 1);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! delegate {
    ($value:ty, |$this:ident| $inner:expr => $($method:ident),+ $(,)?) => {
        $($crate::delegate!(@$method $value, $this, $inner);)+
    };

    (@put_with_options $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] put_with_options(
            ns: &'n $crate::Namespace, key: &'k str, value: $value, options: $crate::PutOptions
        ) -> ());
    };
    (@get $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] get(
            ns: &'n $crate::Namespace, key: &'k str
        ) -> ::core::option::Option<$value>);
    };
    (@delete $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] delete(
            ns: &'n $crate::Namespace, key: &'k str
        ) -> ());
    };
    (@list $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'p] list(
            ns: &'n $crate::Namespace, prefix: ::core::option::Option<&'p str>
        ) -> ::std::vec::Vec<::std::string::String>);
    };
    (@put $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] put(
            ns: &'n $crate::Namespace, key: &'k str, value: $value
        ) -> ());
    };
    (@list_namespaces $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['p] list_namespaces(
            prefix: &'p $crate::NamespacePrefix
        ) -> ::std::vec::Vec<$crate::Namespace>);
    };
    (@evict_expired $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, [] evict_expired() -> usize);
    };

    (@get_entry $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] get_entry(
            ns: &'n $crate::Namespace, key: &'k str, options: $crate::GetOptions
        ) -> ::core::option::Option<$crate::Entry<$value>>);
    };
    (@get_many $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k 's] get_many(
            ns: &'n $crate::Namespace, keys: &'k [&'s str], options: $crate::GetOptions
        ) -> ::std::vec::Vec<$crate::Result<::core::option::Option<$crate::Entry<$value>>>>);
    };
    (@stat $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k 's] stat(
            ns: &'n $crate::Namespace, keys: &'k [&'s str]
        ) -> ::std::vec::Vec<::core::option::Option<$crate::EntryStat>>);
    };
    (@put_entry $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] put_entry(
            ns: &'n $crate::Namespace,
            key: &'k str,
            value: $value,
            options: $crate::PutOptions,
            condition: $crate::Condition
        ) -> $crate::Version);
    };
    (@delete_entry $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] delete_entry(
            ns: &'n $crate::Namespace, key: &'k str, condition: $crate::Condition
        ) -> bool);
    };
    (@write $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n] write(
            ns: &'n $crate::Namespace, batch: $crate::Batch<$value>
        ) -> ::std::vec::Vec<$crate::Written>);
    };
    (@scan $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n] scan(
            ns: &'n $crate::Namespace, options: $crate::ScanOptions
        ) -> $crate::Page<$crate::ScanItem<$value>, ::std::string::String>);
    };
    (@scan_recursive $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['p] scan_recursive(
            prefix: &'p $crate::NamespacePrefix, options: $crate::RecursiveScanOptions
        ) -> $crate::Page<($crate::Namespace, $crate::ScanItem<$value>), $crate::Position>);
    };
    (@scan_namespaces $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['p 'a] scan_namespaces(
            prefix: &'p $crate::NamespacePrefix,
            after: ::core::option::Option<&'a $crate::Namespace>,
            limit: usize
        ) -> $crate::Page<$crate::Namespace>);
    };
    (@scan_tenants $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['a] scan_tenants(
            after: ::core::option::Option<&'a $crate::TenantId>, limit: usize
        ) -> $crate::Page<$crate::TenantId>);
    };
    (@touch $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] touch(
            ns: &'n $crate::Namespace,
            key: &'k str,
            expiry: $crate::Expiry,
            condition: $crate::Condition
        ) -> bool);
    };
    (@take $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] take(
            ns: &'n $crate::Namespace, key: &'k str
        ) -> ::core::option::Option<$crate::Entry<$value>>);
    };
    (@delete_prefix $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n 'k] delete_prefix(
            ns: &'n $crate::Namespace, key_prefix: &'k str, limit: usize
        ) -> $crate::Erased);
    };
    (@erase $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['p] erase(
            prefix: &'p $crate::NamespacePrefix, limit: usize
        ) -> $crate::Erased);
    };
    (@usage $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['p] usage(
            prefix: &'p $crate::NamespacePrefix
        ) -> $crate::Usage);
    };
    (@current_time $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, ['n] current_time(
            ns: &'n $crate::Namespace
        ) -> $crate::Timestamp);
    };
    (@max_value_bytes $value:ty, $this:ident, $inner:expr) => {
        fn max_value_bytes(&self) -> ::core::option::Option<usize> {
            let $this = self;
            ($inner).max_value_bytes()
        }
    };

    (@close $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, [] close() -> ());
    };
    (@compact $value:ty, $this:ident, $inner:expr) => {
        $crate::delegate!(@fn $this, $inner, [] compact() -> $crate::Compaction);
    };

    (
        @fn $this:ident, $inner:expr,
        [$($life:lifetime)*] $name:ident($($arg:ident: $ty:ty),*) -> $out:ty
    ) => {
        fn $name<'me, 'c, $($life,)* 'async_trait>(
            &'me self,
            ctx: &'c $crate::ExecutionContext,
            $($arg: $ty),*
        ) -> ::core::pin::Pin<::std::boxed::Box<
            dyn ::core::future::Future<Output = $crate::Result<$out>>
                + ::core::marker::Send
                + 'async_trait,
        >>
        where
            'me: 'async_trait,
            'c: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            let $this = self;
            ($inner).$name(ctx, $($arg),*)
        }
    };
}
