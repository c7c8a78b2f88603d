//! `Compressed`: values compressed with zstd.

#[cfg(test)]
mod tests;
mod transform;

use std::fmt;

use async_trait::async_trait;
use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Backend, Bytes, EntryStore, Error, Result, Store, delegate};

use crate::transform::Transformed;
use transform::Zstd;

/// The compression level unless another is set: zstd's own default.
pub const DEFAULT_COMPRESSION_LEVEL: i32 = 3;

/// A layer that compresses values with zstd where that makes them smaller.
///
/// A stored value begins with one byte: 0 for a value as it is, 1 for a zstd frame with a checksum.
/// Values below 64 bytes are stored as they are, and so is every value that zstd does not shorten.
///
/// # Existing stores
///
/// A value that was written without this layer lacks this byte. The layer does not guess: the
/// value is `Corrupt`, or is returned without its first byte if that byte is 0. Use the layer from the first
/// write on. To compress an existing store, copy its entries into a new one through this layer.
///
/// # Limits and sizes
///
/// - [`max_value_bytes`](EntryStore::max_value_bytes) is one byte lower than that of the inner store.
///   Every accepted value therefore fits.
/// - Sizes in [`stat`](EntryStore::stat), [`usage`](EntryStore::usage) and scans are those of the
///   stored values.
/// - A read decompresses at most 16 MiB, or the limit of the store if that is higher. A longer value,
///   a damaged frame and an unknown first byte are `Corrupt`. If you lower a limit above 16 MiB, larger
///   values that were compressed before become unreadable.
/// - The checksum detects damage of compressed values. A value that is stored as it is has none.
///
/// # Blocking
///
/// In a tokio runtime, values that take longer than about 0.3 ms are compressed and decompressed on
/// its threads for blocking work. Compression moves there from 64 KiB at levels up to 3, from 8 KiB at
/// levels up to 9, and from 2 KiB above. Decompression moves there from 128 KiB.
///
/// [`take`](EntryStore::take) reads the entry, and then deletes the version that it read.
///
/// ```
/// use cubbyhole_core::{Bytes, EntryStore, ExecutionContext, Namespace, Store};
/// use cubbyhole_layers::Compressed;
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let memory = InMemoryStore::<Bytes>::builder().with_value_size(Bytes::len).build();
/// let store = Compressed::new(memory).with_level(6)?;
///
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
/// let value = Bytes::from("again and ".repeat(1000));
/// store.put(&ctx, &ns, "k", value.clone()).await?;
/// assert_eq!(store.get(&ctx, &ns, "k").await?, Some(value));
///
/// let stored = store.stat(&ctx, &ns, &["k"]).await?[0].unwrap();
/// assert!(stored.value_bytes.unwrap() < 100);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Compressed<S>(Transformed<Zstd, S>);

impl<S: EntryStore<Bytes>> Compressed<S> {
    /// Wraps `inner`, with compression level 3.
    #[must_use]
    pub fn new(inner: S) -> Self {
        // At least the default: values stay readable after the limit of the store is lowered.
        let most = inner.max_value_bytes().unwrap_or(0).max(DEFAULT_MAX_VALUE_BYTES);
        Self(Transformed { transform: Zstd::new(DEFAULT_COMPRESSION_LEVEL, most), inner })
    }
}

impl<S> Compressed<S> {
    /// Sets the compression level of zstd, from 1, the fastest, to 19, the smallest. Values of every
    /// level can be read at any level.
    ///
    /// # Errors
    /// `InvalidArgument` for any other level.
    pub fn with_level(self, level: i32) -> Result<Self> {
        check_level(level)?;
        let Transformed { transform, inner } = self.0;
        Ok(Self(Transformed { transform: transform.with_level(level), inner }))
    }

    /// Returns the inner store.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.0.inner
    }
}

/// Checks a compression level.
pub(crate) fn check_level(level: i32) -> Result<()> {
    if (1..=19).contains(&level) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("the compression level {level} is outside 1 to 19")))
}

impl<S: fmt::Debug> fmt::Debug for Compressed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transformed { transform, inner } = &self.0;
        f.debug_struct("Compressed").field("zstd", transform).field("inner", inner).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> Store<Bytes> for Compressed<S> {
    delegate!(Bytes, |layer| layer.0 =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: EntryStore<Bytes>> EntryStore<Bytes> for Compressed<S> {
    delegate!(Bytes, |layer| layer.0 =>
        get_entry, get_many, stat, put_entry, delete_entry, write, scan, scan_recursive,
        scan_namespaces, scan_tenants, touch, take, delete_prefix, erase, usage, current_time,
        max_value_bytes
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Backend> Backend for Compressed<S> {
    delegate!(Bytes, |layer| layer.0 => close, compact);
}
