//! The conformance suite over a backend on real servers.

/// Implements `Harness` for `$harness<Bytes>` and `$harness<Document>`.
///
/// The type has two async methods: `open` opens a store of type `$store`, and `advance_clock` advances
/// the clock of its servers.
#[macro_export]
macro_rules! backend_harness {
    ($harness:ident, $store:ty) => {
        $crate::backend_harness!(@impl $harness, $store, ::cubbyhole_core::Bytes, |store| {
            ::std::sync::Arc::new(store)
        });
        $crate::backend_harness!(@impl $harness, $store, ::cubbyhole_conformance::Document, |store| {
            ::std::sync::Arc::new(::cubbyhole_core::TypedExt::typed(store))
        });
    };
    (@impl $harness:ident, $store:ty, $value:ty, $wrap:expr) => {
        #[::cubbyhole_core::async_trait]
        impl ::cubbyhole_conformance::Harness for $harness<$value> {
            type Value = $value;

            async fn store(&self) -> ::std::sync::Arc<dyn ::cubbyhole_core::EntryStore<$value>> {
                let wrap: fn($store) -> ::std::sync::Arc<dyn ::cubbyhole_core::EntryStore<$value>> =
                    $wrap;
                wrap(self.open().await)
            }

            async fn closed_store(
                &self,
            ) -> Option<::std::sync::Arc<dyn ::cubbyhole_core::EntryStore<$value>>> {
                let (store, context) = (self.open().await, ::cubbyhole_core::ExecutionContext::new());
                ::cubbyhole_core::Backend::close(&store, &context).await.ok()?;
                let wrap: fn($store) -> ::std::sync::Arc<dyn ::cubbyhole_core::EntryStore<$value>> =
                    $wrap;
                Some(wrap(store))
            }

            async fn advance(&self, duration: ::std::time::Duration) {
                self.advance_clock(duration).await;
            }
        }
    };
}
