//! The operations of a store, as spans, events and labels name them.

/// Declares `Operation` with the name of each variant and the number of variants.
macro_rules! operations {
    ($($variant:ident => $name:literal,)*) => {
        /// An operation of a store. Its name is the one that the store's errors use.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($variant,)*
        }

        impl Operation {
            /// The number of operations; `self as usize` is less.
            pub(crate) const COUNT: usize = [$($name),*].len();

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    Open => "open",
    Put => "put",
    Get => "get",
    Delete => "delete",
    List => "list",
    ListNamespaces => "list_namespaces",
    EvictExpired => "evict_expired",
    GetEntry => "get_entry",
    GetMany => "get_many",
    Stat => "stat",
    PutEntry => "put_entry",
    DeleteEntry => "delete_entry",
    Write => "write",
    Scan => "scan",
    ScanRecursive => "scan_recursive",
    ScanNamespaces => "scan_namespaces",
    ScanTenants => "scan_tenants",
    Touch => "touch",
    Take => "take",
    DeletePrefix => "delete_prefix",
    Erase => "erase",
    Usage => "usage",
    CurrentTime => "current_time",
    Close => "close",
    Compact => "compact",
}
