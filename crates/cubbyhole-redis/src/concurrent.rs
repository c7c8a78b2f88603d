//! Concurrent calls.

use cubbyhole_core::Result;
use futures_util::{StreamExt, TryStreamExt, stream};

/// The maximum number of concurrent calls of one operation, over the shared connections.
pub(crate) const MAX_CONCURRENT_CALLS: usize = 128;

/// Runs calls concurrently and returns their results in order, or the first error.
pub(crate) async fn try_all<T>(calls: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(calls).buffered(MAX_CONCURRENT_CALLS).try_collect().await
}
