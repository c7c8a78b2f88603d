//! What is called.

/// Declares the operations and counts them, so that none lacks a name or a place.
macro_rules! operations {
    ($($variant:ident => $name:literal,)*) => {
        /// An operation of a store, named as its errors name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($variant,)*
        }

        impl Operation {
            /// How many there are; `self as usize` is below.
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
    PutEntry => "put_entry",
    DeleteEntry => "delete_entry",
    Write => "write",
    Scan => "scan",
    ScanNamespaces => "scan_namespaces",
    ScanTenants => "scan_tenants",
    Touch => "touch",
    Take => "take",
    Erase => "erase",
    Usage => "usage",
    CurrentTime => "current_time",
    Close => "close",
    Compact => "compact",
}
