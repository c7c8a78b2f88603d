//! `Arc<S>` and `Box<S>` are stores if `S` is, including `dyn` stores.

use std::sync::Arc;

use crate::{Backend, EntryStore, Store, delegate};

macro_rules! impl_for_pointer {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<V: Send + 'static, S: Store<V> + ?Sized> Store<V> for $pointer<S> {
            delegate!(V, |pointer| **pointer =>
                put_with_options, get, delete, list, put, list_namespaces, evict_expired
            );
        }

        #[deny(clippy::missing_trait_methods)]
        impl<V: Send + 'static, S: EntryStore<V> + ?Sized> EntryStore<V> for $pointer<S> {
            delegate!(V, |pointer| **pointer =>
                get_entry, get_many, stat, put_entry, delete_entry, write, scan, scan_recursive,
                scan_namespaces, scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
                max_value_bytes
            );
        }

        #[deny(clippy::missing_trait_methods)]
        impl<S: Backend + ?Sized> Backend for $pointer<S> {
            delegate!((), |pointer| **pointer => close, compact);
        }
    };
}

impl_for_pointer!(Arc);
impl_for_pointer!(Box);
