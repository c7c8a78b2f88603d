//! The stored form of a compressed value.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cubbyhole_core::{Bytes, Error, ExecutionContext, Namespace, Result};
use tokio::runtime::Handle;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{
    CParameter, compress_bound, find_frame_compressed_size, get_frame_content_size,
};

use crate::transform::Transform;

/// The first byte of a value that is stored as it is.
pub(super) const AS_IT_IS: u8 = 0;
/// The first byte of a value that is stored as one zstd frame.
pub(super) const ZSTD: u8 = 1;
/// Values below this size are not compressed: the frame takes up to 17 bytes.
pub(super) const MIN_BYTES: usize = 64;
/// Stored frames from this content size are decompressed off the runtime's threads. That takes about
/// 0.2 ms.
const BLOCKING_DECOMPRESSION: usize = 128 * 1024;
/// The number of unused contexts that are kept. One takes up to 4 MiB at level 3, and 80 MiB at 19.
const IDLE_CONTEXTS: usize = 4;

/// Compresses values.
#[derive(Clone)]
pub(super) struct Zstd {
    level: i32,
    /// The longest value that is compressed, and that a frame may decompress to.
    most: usize,
    compressors: Arc<Pool<Compressor<'static>>>,
    decompressors: Arc<Pool<Decompressor<'static>>>,
}

impl Zstd {
    pub(super) fn new(level: i32, most: usize) -> Self {
        Self { level, most, compressors: Arc::default(), decompressors: Arc::default() }
    }

    pub(super) fn with_level(self, level: i32) -> Self {
        // The contexts of the pool are set to the old level.
        Self::new(level, self.most)
    }

    /// Returns the stored form of a value.
    pub(super) fn compress(&self, value: &[u8]) -> Result<Bytes> {
        if (MIN_BYTES..=self.most).contains(&value.len())
            && let Some(stored) = self.frame(value)?
        {
            return Ok(stored);
        }
        let mut stored = Vec::with_capacity(1 + value.len());
        stored.push(AS_IT_IS);
        stored.extend_from_slice(value);
        Ok(Bytes::from(stored))
    }

    /// Returns the compressed form, or `None` if it is not smaller than the value.
    fn frame(&self, value: &[u8]) -> Result<Option<Bytes>> {
        let new = || {
            let mut compressor = Compressor::new(self.level)?;
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            Ok(compressor)
        };
        // In a smaller buffer zstd gives up although the frame would just fit.
        let mut stored = vec![ZSTD; 1 + compress_bound(value.len())];
        let length = self
            .compressors
            .with(new, |compressor| compressor.compress_to_buffer(value, &mut stored[1..]))
            .flatten()
            .map_err(|error| Error::resource_exhausted("cannot compress").with_source(error))?;
        if length >= value.len() {
            return Ok(None);
        }
        // A copy has no spare capacity, which a store in memory would keep.
        Ok(Some(Bytes::copy_from_slice(&stored[..=length])))
    }

    /// Returns the value of a stored form.
    pub(super) fn decompress(&self, stored: &Bytes) -> Result<Bytes> {
        match stored.first() {
            Some(&AS_IT_IS) => Ok(stored.slice(1..)),
            Some(&ZSTD) => self.decompress_frame(&stored[1..]),
            Some(first) => Err(Error::corrupt(format!(
                "the stored value begins with byte {first}, not 0 or 1: it was written without \
                 compression, or is damaged"
            ))),
            None => Err(Error::corrupt(
                "the stored value is empty: it was written without compression, or is damaged",
            )),
        }
    }

    fn decompress_frame(&self, frame: &[u8]) -> Result<Bytes> {
        let length = content_length(frame)?;
        if length > self.most {
            return Err(Error::corrupt(format!(
                "the compressed value claims {length} bytes, more than the limit of {}",
                self.most
            )));
        }
        if find_frame_compressed_size(frame).ok() != Some(frame.len()) {
            return Err(damaged());
        }
        let decompress = |decompressor: &mut Decompressor<'static>| {
            decompressor.decompress(frame, length).map_err(|error| damaged().with_source(error))
        };
        let value = self
            .decompressors
            .with(Decompressor::new, decompress)
            .map_err(|error| Error::resource_exhausted("cannot decompress").with_source(error))??;
        if value.len() != length {
            return Err(damaged());
        }
        Ok(Bytes::from(value))
    }

    /// Returns the size from which values are compressed off the runtime's threads. That takes about
    /// 0.3 ms.
    const fn blocking_compression(&self) -> usize {
        match self.level {
            ..=3 => 64 * 1024,
            4..=9 => 8 * 1024,
            _ => 2 * 1024,
        }
    }
}

impl Transform for Zstd {
    const OVERHEAD: usize = 1;

    async fn seal(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        value: Bytes,
    ) -> Result<Bytes> {
        if value.len() < self.blocking_compression() {
            return self.compress(&value);
        }
        let zstd = self.clone();
        off_thread(ctx, move || zstd.compress(&value)).await
    }

    async fn open(
        &self,
        ctx: &ExecutionContext,
        _: &Namespace,
        _: &str,
        stored: Bytes,
    ) -> Result<Bytes> {
        let short = match stored.split_first() {
            Some((&ZSTD, frame)) => content_length(frame)? < BLOCKING_DECOMPRESSION,
            _ => true,
        };
        if short {
            return self.decompress(&stored);
        }
        let zstd = self.clone();
        off_thread(ctx, move || zstd.decompress(&stored)).await
    }
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Returns the length of the value that a frame claims to contain.
fn content_length(frame: &[u8]) -> Result<usize> {
    match get_frame_content_size(frame) {
        // This layer writes no shorter frames. Frames to skip have length 0.
        Ok(Some(length)) if length >= MIN_BYTES as u64 => {
            usize::try_from(length).map_err(|_| damaged())
        }
        _ => Err(damaged()),
    }
}

fn damaged() -> Error {
    Error::corrupt("the compressed value is damaged")
}

/// Runs `work` on a thread for blocking work, or here if there is no tokio runtime.
///
/// If the context ends first, the work continues and its result is dropped.
async fn off_thread(
    ctx: &ExecutionContext,
    work: impl FnOnce() -> Result<Bytes> + Send + 'static,
) -> Result<Bytes> {
    let Ok(runtime) = Handle::try_current() else { return work() };
    ctx.race(runtime.spawn_blocking(work)).await?.unwrap_or_else(|error| {
        Err(if error.is_cancelled() {
            Error::unavailable("the tokio runtime is shutting down")
        } else {
            Error::internal("compression panicked").with_source(error)
        })
    })
}

/// Contexts of zstd for reuse. Creating one costs more than compressing a small value.
struct Pool<C>(Mutex<Vec<C>>);

impl<C> Pool<C> {
    /// Calls `work` with a context of the pool or a new one.
    fn with<T>(
        &self,
        new: impl FnOnce() -> io::Result<C>,
        work: impl FnOnce(&mut C) -> T,
    ) -> io::Result<T> {
        let pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = match pooled {
            Some(context) => context,
            None => new()?,
        };
        let result = work(&mut context);
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < IDLE_CONTEXTS {
            pool.push(context);
        }
        Ok(result)
    }
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
