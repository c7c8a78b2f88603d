//! The configuration of an embedded store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Clock, Error, Result, SystemClock};
use redb::StorageBackend;

use crate::url_path;

/// The configuration of an embedded store: the path of its file, and options with defaults.
///
/// | option | default |
/// |---|---|
/// | [`with_create`](Self::with_create) | `true`: a missing file is created |
/// | [`with_read_only`](Self::with_read_only) | `false` |
/// | [`with_durability`](Self::with_durability) | [`Durability::Immediate`] |
/// | [`with_max_value_bytes`](Self::with_max_value_bytes) | 16 MiB |
/// | [`with_cache_bytes`](Self::with_cache_bytes) | 1 GiB |
/// | [`with_integrity_check`](Self::with_integrity_check) | `false` |
/// | [`with_lock_wait`](Self::with_lock_wait) | 0: opening does not wait |
/// | [`with_clock`](Self::with_clock) | the system clock |
///
/// ```
/// use std::time::Duration;
///
/// use cubbyhole_embedded::{Config, Durability};
///
/// let config = Config::new("state.redb")
///     .with_durability(Durability::Relaxed)
///     .with_cache_bytes(64 * 1024 * 1024)
///     .with_lock_wait(Duration::from_secs(2));
/// assert_eq!(config.path().to_str(), Some("state.redb"));
/// ```
#[derive(Clone)]
pub struct Config {
    path: PathBuf,
    create: bool,
    read_only: bool,
    durability: Durability,
    max_value_bytes: usize,
    cache_bytes: usize,
    integrity_check: bool,
    lock_wait: Duration,
    clock: Arc<dyn Clock>,
    storage: Option<OpenStorage>,
}

/// The durability of a write at the time when its call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The write is on disk. It survives a crash and power loss.
    #[default]
    Immediate,
    /// The write is in memory and reaches the disk within [`RELAXED_FLUSH_INTERVAL`]. A crash,
    /// power loss or disk failure can lose the writes of that time. Each write or batch is kept or
    /// lost as a whole, and the latest ones are lost first. After a disk failure, the next write or
    /// `close` returns an error.
    Relaxed,
}

/// The longest time between an acknowledged write of a relaxed store and its flush to disk: 200 ms.
pub const RELAXED_FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// The default limit of redb's page cache: 1 GiB. The cache grows as pages are read and written.
pub const DEFAULT_CACHE_BYTES: usize = 1024 * 1024 * 1024;

/// Opens the storage of the file. Called again each time the file is reopened.
pub(crate) type OpenStorage =
    Arc<dyn Fn() -> std::io::Result<Box<dyn StorageBackend>> + Send + Sync>;

impl Config {
    /// Configures the file at `path` with the default options.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: true,
            read_only: false,
            durability: Durability::Immediate,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            cache_bytes: DEFAULT_CACHE_BYTES,
            integrity_check: false,
            lock_wait: Duration::ZERO,
            clock: Arc::new(SystemClock),
            storage: None,
        }
    }

    /// Parses the part of a URL after `redb:`, which is a path with optional parameters.
    ///
    /// | parameter | values |
    /// |---|---|
    /// | `durability` | `immediate` (default), `relaxed` |
    /// | `read_only` | `false` (default), `true` |
    ///
    /// In the path, `%` and two hexadecimal digits encode one byte: `%3F` is `?`, `%25` is `%`. On
    /// Unix the decoded path need not be UTF-8. Any other `%` and `#` are literal.
    /// [`to_url`](Self::to_url) encodes a path.
    ///
    /// ```
    /// use cubbyhole_embedded::Config;
    ///
    /// let config = Config::from_url_path("/srv/state.redb?read_only=true")?;
    /// assert_eq!(config.path().to_str(), Some("/srv/state.redb"));
    /// assert!(config.is_read_only());
    /// # Ok::<(), cubbyhole_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for an empty path, a host, an unknown parameter, an unencoded control
    /// character, NUL, or bytes that are not valid in a path on this platform.
    pub fn from_url_path(text: &str) -> Result<Self> {
        if text.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the URL contains a control character, such as a line end: remove it, or \
                 percent-encode it (%0A, %0D) if it is part of the path",
            ));
        }
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        if path.is_empty() {
            return Err(Error::invalid_argument("the path is missing: write `redb:PATH`"));
        }
        if path.starts_with("//") && !path.starts_with("///") {
            return Err(Error::invalid_argument(
                "`redb:` takes a path, not a host: write `redb:PATH` or `redb:/PATH`",
            ));
        }
        let path = url_path::decoded(path)?;
        let mut config = Self::new(path);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            config = match option {
                "durability=immediate" => config.with_durability(Durability::Immediate),
                "durability=relaxed" => config.with_durability(Durability::Relaxed),
                "read_only=true" => config.with_read_only(true),
                "read_only=false" => config.with_read_only(false),
                _ => {
                    return Err(Error::invalid_argument(
                        "unknown parameter in the URL: `redb:` takes \
                         `durability=immediate`, `durability=relaxed`, `read_only=true` or \
                         `read_only=false`",
                    ));
                }
            };
        }
        Ok(config)
    }

    /// Returns the `redb:` URL of this configuration: the percent-encoded path, the durability if
    /// relaxed, and `read_only` if set. `cubbyhole::open` accepts it, and so does
    /// [`from_url_path`](Self::from_url_path) without `redb:`. The other options are not part of a
    /// URL.
    ///
    /// ```
    /// use cubbyhole_embedded::Config;
    ///
    /// let config = Config::new("/srv/ready?.redb");
    /// assert_eq!(config.to_url()?, "redb:/srv/ready%3F.redb");
    /// # Ok::<(), cubbyhole_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if the path is empty, contains NUL or, on Windows, is not valid Unicode.
    pub fn to_url(&self) -> Result<String> {
        let mut options = Vec::new();
        if self.durability == Durability::Relaxed {
            options.push("durability=relaxed");
        }
        if self.read_only {
            options.push("read_only=true");
        }
        let query = if options.is_empty() { "" } else { "?" };
        Ok(format!("redb:{}{query}{}", url_path::encoded(&self.path)?, options.join("&")))
    }

    /// Sets whether opening creates a missing file. If not, opening a missing file fails with
    /// `Unavailable`. The folder of the file must exist in both cases.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets whether to open the file without changing it. This works on a read-only volume, and for
    /// users who may only read the file. A missing file is not created.
    ///
    /// A read-only store contains all acknowledged writes, even after a crash: opening replays the
    /// log in memory, which takes a few MiB. Writes, `take`, `touch`, reads that extend a TTL,
    /// `erase`, sweeps and `compact` fail with `PermissionDenied`. Expired entries are absent, but
    /// the instant up to which a reader saw entries expire is not recorded in the file.
    ///
    /// Several processes can have a file open read-only at the same time. A file cannot be open for
    /// reading and for writing at the same time.
    ///
    /// ```
    /// use cubbyhole_core::{ErrorKind, ExecutionContext, Namespace, Store};
    /// use cubbyhole_embedded::{Config, EmbeddedStore};
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("state.redb");
    /// # let ctx = ExecutionContext::new();
    /// # drop(EmbeddedStore::open(&ctx, Config::new(&path)).await?);
    /// let config = Config::new(path).with_read_only(true);
    /// let store = EmbeddedStore::open(&ctx, config).await?;
    /// let ns = Namespace::parse("acme:agent-7")?;
    /// assert_eq!(store.get(&ctx, &ns, "greeting").await?, None);
    /// let refused = store.put(&ctx, &ns, "greeting", "hello".into()).await;
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets whether a write returns before or after it is on disk.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the largest value in bytes that a write accepts. A larger one fails with
    /// `InvalidArgument`. Reads are not limited.
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Sets the limit of redb's page cache in bytes. The default is [`DEFAULT_CACHE_BYTES`].
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets whether opening verifies all checksums, which reads the whole file. Opening a damaged
    /// file then fails with `Corrupt`. Without this check, a read of a damaged block fails.
    #[must_use]
    pub fn with_integrity_check(mut self, check: bool) -> Self {
        self.integrity_check = check;
        self
    }

    /// Sets the clock for expiry and timestamps. Tests use
    /// [`ManualClock`](cubbyhole_core::ManualClock).
    ///
    /// A clock that steps back revives no entry. The store keeps a high-water mark and writes it to
    /// the file with every write and on closing. While the clock is behind the mark, the store's
    /// time is the mark plus the time since opening, so TTLs continue to count while the store is
    /// open. See [`HighWaterClock`](cubbyhole_core::HighWaterClock).
    ///
    /// There is one exception. If only reads saw an entry expire and no write followed, or if the
    /// store was read-only, the entry can be live again after a crash and a step back of the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how long opening waits while the file is open elsewhere. After that time it fails with
    /// `Unavailable`. The default is zero: opening fails immediately.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Uses the storage that `open` returns instead of the file at the path, for tests that inject
    /// faults. `open` is called again each time the store reopens its file.
    #[doc(hidden)] // Not part of the stable API, because it exposes a trait of redb.
    #[must_use]
    pub fn with_storage(
        mut self,
        open: impl Fn() -> std::io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
    ) -> Self {
        self.storage = Some(Arc::new(open));
        self
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn create(&self) -> bool {
        self.create && !self.read_only
    }

    /// Returns whether the file is opened [read-only](Self::with_read_only).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    pub(crate) fn integrity_check(&self) -> bool {
        self.integrity_check
    }

    pub(crate) fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    pub(crate) fn storage(&self) -> Option<&OpenStorage> {
        self.storage.as_ref()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("create", &self.create)
            .field("read_only", &self.read_only)
            .field("durability", &self.durability)
            .field("max_value_bytes", &self.max_value_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_path_without_escapes_is_literal() {
        for path in ["a.redb", "/a b/ü.redb", "./x:y", "///abs", "100%.redb", "a%zz", "%2", "a#b"]
        {
            let config = Config::from_url_path(path).unwrap();
            assert_eq!(config.path(), Path::new(path));
            assert_eq!(config.durability(), Durability::Immediate);
        }
        let relaxed = Config::from_url_path("a.redb?durability=relaxed").unwrap();
        assert_eq!(relaxed.durability(), Durability::Relaxed);
        for (text, read_only) in
            [("a", false), ("a?read_only=true", true), ("a?read_only=false", false)]
        {
            let config = Config::from_url_path(text).unwrap();
            assert_eq!(config.is_read_only(), read_only, "{text}");
        }
    }

    #[test]
    fn malformed_url_path_is_invalid_argument() {
        for text in [
            "",
            "?durability=relaxed",
            "//host/a",
            "a?durability=none",
            "a?x=y",
            "a?read_only=1",
            "a\r",
            "a\nb",
            "a?durability=relaxed\r",
            "a\u{85}",
            "a%00",
        ] {
            let error = Config::from_url_path(text).unwrap_err();
            assert_eq!(error.kind(), cubbyhole_core::ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn url_round_trips_through_from_url_path() {
        for (path, url) in [
            ("a.redb", "redb:a.redb"),
            ("/srv/ü/what?.redb", "redb:/srv/ü/what%3F.redb"),
            ("a%20b", "redb:a%2520b"),
            ("a#b", "redb:a#b"),
            ("a\r\n", "redb:a%0D%0A"),
            ("//host/a", "redb:%2F/host/a"),
        ] {
            let config = Config::new(path).with_durability(Durability::Relaxed);
            let relaxed = config.to_url().unwrap();
            assert_eq!(relaxed, format!("{url}?durability=relaxed"));
            let read = Config::from_url_path(&relaxed["redb:".len()..]).unwrap();
            assert_eq!((read.path(), read.durability()), (Path::new(path), Durability::Relaxed));
            assert_eq!(Config::new(path).to_url().unwrap(), url);
        }
        let config = Config::new("a").with_read_only(true);
        assert_eq!(config.to_url().unwrap(), "redb:a?read_only=true");
        let both = config.with_durability(Durability::Relaxed).to_url().unwrap();
        assert_eq!(both, "redb:a?durability=relaxed&read_only=true");
        assert!(Config::from_url_path(&both["redb:".len()..]).unwrap().is_read_only());
        for path in ["", "a\0b"] {
            assert!(Config::new(path).to_url().is_err());
        }
    }
}
