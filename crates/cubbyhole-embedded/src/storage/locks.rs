//! The lock methods that each storage layer passes on.

/// Implements the lock methods of redb's `StorageBackend` by calling the same methods of `$inner`.
/// The second form names the methods of `$inner` to call for exclusive locks.
macro_rules! delegate_locks {
    ($self:ident => $inner:expr) => {
        delegate_locks!($self => $inner, try_lock_range, lock_range);
    };
    ($self:ident => $inner:expr, $try_exclusive:ident, $exclusive:ident) => {
        fn try_lock_range(
            &$self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            $inner.$try_exclusive(start, end)
        }

        fn try_lock_shared_range(
            &$self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            $inner.try_lock_shared_range(start, end)
        }

        fn lock_range(
            &$self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            $inner.$exclusive(start, end)
        }

        fn lock_shared_range(
            &$self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            $inner.lock_shared_range(start, end)
        }

        fn unlock_range(
            &$self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            $inner.unlock_range(start, end)
        }

        fn query_lock_range(
            &$self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            $inner.query_lock_range(start, end)
        }
    };
}

pub(super) use delegate_locks;
