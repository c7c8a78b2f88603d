//! How the examples open their store: without layers, or with all layers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::{
    CacheOptions, DEFAULT_COMPRESSION_LEVEL, Encryption, KeyFile, Layers, Limits, RetryOptions,
    Timeouts, TtlRule,
};
use cubbyhole::{Backend, ExecutionContext, OpenOptions, Result};

/// The variable with the path of a key file. If it is set, [`open`] adds all layers.
pub const KEY_FILE_VARIABLE: &str = "CUBBYHOLE_KEY_FILE";

/// Opens the store of an example. In your program, call `cubbyhole::open`.
///
/// # Errors
/// The errors of `cubbyhole::open` and of [`all_layers`].
pub async fn open(ctx: &ExecutionContext, url: &str) -> Result<Arc<dyn Backend>> {
    let layers = match std::env::var_os(KEY_FILE_VARIABLE) {
        Some(path) => all_layers(Path::new(&path))?,
        None => Layers::new(),
    };
    OpenOptions::new().with_layers(layers).open(ctx, url).await
}

/// Returns every layer that serves all examples. A missing key file is created.
///
/// There is no scope and no read-only layer: all examples write, and `service` sweeps the whole store.
///
/// # Errors
/// The errors of [`KeyFile::open`] and [`KeyFile::create`].
pub fn all_layers(key_file: &Path) -> Result<Layers> {
    let keys = match key_file.exists() {
        true => KeyFile::open(key_file)?,
        false => KeyFile::create(key_file)?,
    };
    // Large enough that no example reaches them.
    let limits = Limits::new()
        .with_value_bytes(1024 * 1024)
        .with_rate(100_000, None)
        .with_concurrency(1_000);
    let timeouts = Timeouts::new()
        .with_read(Duration::from_secs(10))
        .with_write(Duration::from_secs(10))
        .with_walk(Duration::from_secs(30));
    // Several processes can share the store. A read sees their writes after this time at the latest.
    let cache = CacheOptions::new().with_max_stale(Duration::from_secs(1));
    Ok(Layers::new()
        .with_limits(limits)
        .with_ttl_rule(TtlRule::new().with_max(Duration::from_secs(365 * 24 * 60 * 60)))
        .with_cache(cache)
        .with_timeouts(timeouts)
        .with_retry(RetryOptions::new())
        .with_compression(DEFAULT_COMPRESSION_LEVEL)
        .with_encryption(Encryption::new(Arc::new(keys))))
}
