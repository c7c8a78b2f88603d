//! Calls that run concurrently.

use cubbyhole_core::Result;
use futures_util::{StreamExt, TryStreamExt, stream};

/// How many calls run at the same time, over the shared connections.
pub(crate) const MAX_CONCURRENT_CALLS: usize = 128;

/// Makes calls concurrently and returns their results in order, or the first error.
pub(crate) async fn try_all<T>(calls: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(calls).buffered(MAX_CONCURRENT_CALLS).try_collect().await
}
