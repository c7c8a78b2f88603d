//! How an embedded store is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Clock, Error, Result, SystemClock};
use redb::StorageBackend;

use crate::url_path;

/// How an embedded store is opened: the path, and what differs from the defaults.
///
/// ```
/// use cubbyhole_embedded::{Durability, Config};
///
/// let config = Config::new("state.redb").with_durability(Durability::Relaxed);
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

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Once it is on disk: what was acknowledged survives power loss.
    #[default]
    Immediate,
    /// Before it is on disk: a crash, power loss or a failure of the disk may lose the
    /// writes acknowledged in the last [`RELAXED_FLUSH_INTERVAL`], always the latest ones, and
    /// never a part of one. After a failure of the disk the next write, or `close`, says so.
    Relaxed,
}

/// How long a relaxed store holds acknowledged writes back from the disk at most: 200 ms.
pub const RELAXED_FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// The memory that pages of the file may take by default: 1 GiB. It is taken as pages are read.
pub const DEFAULT_CACHE_BYTES: usize = 1024 * 1024 * 1024;

/// Opens the bytes beneath the engine; called again whenever the file is opened anew.
pub(crate) type OpenStorage =
    Arc<dyn Fn() -> std::io::Result<Box<dyn StorageBackend>> + Send + Sync>;

impl Config {
    /// The file at `path`, created if it is not there, on the system's clock, durable.
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

    /// Reads what follows `redb:` in a URL: a path, and `?durability=relaxed` or
    /// `?read_only=true` if asked for.
    ///
    /// `%` and two hexadecimal digits in the path are one byte: `%3F` is `?`, `%25` is `%`, and on
    /// Unix a path need not be UTF-8. Any other `%`, and `#`, is itself.
    /// [`to_url`](Self::to_url) encodes a path.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty path, a host, an unknown option, a control character that is
    /// not encoded, a NUL, and bytes that the platform cannot have in a path.
    pub fn from_url_path(text: &str) -> Result<Self> {
        if text.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the URL holds a control character, such as a line end: remove it, or write it \
                 percent-encoded (%0A, %0D) if it is a part of the path",
            ));
        }
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        if path.is_empty() {
            return Err(Error::invalid_argument("the path is missing: write `redb:PATH`"));
        }
        if path.starts_with("//") && !path.starts_with("///") {
            return Err(Error::invalid_argument(
                "`redb:` takes a path and no host: write `redb:PATH` or `redb:/PATH`",
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
                        "an option of the URL is not known: `redb:` takes \
                         `durability=immediate`, `durability=relaxed`, `read_only=true` or \
                         `read_only=false`",
                    ));
                }
            };
        }
        Ok(config)
    }

    /// The URL of this file: its path, percent-encoded where a URL needs that, and its durability.
    /// `cubbyhole::open` and [`from_url_path`](Self::from_url_path) read it back.
    ///
    /// ```
    /// use cubbyhole_embedded::Config;
    ///
    /// let config = Config::new("/srv/what?.redb");
    /// assert_eq!(config.to_url()?, "redb:/srv/what%3F.redb");
    /// # Ok::<(), cubbyhole_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a path that no URL can name: an empty one, one with a NUL, and on
    /// Windows one that is not Unicode.
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

    /// Whether a file that is not there is created; otherwise it is `Unavailable`.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the file without writing to it: one on a read-only volume, or that this user may only
    /// read. Opening shows everything that was acknowledged, after a crash too: the log is replayed
    /// in memory, which takes a few MiB. The file keeps every byte, and one that is not there is
    /// not created.
    ///
    /// Writes, `take`, `touch`, reads that extend a TTL, sweeps and `compact` are
    /// `PermissionDenied`. Expired entries are absent, as ever; that a reader saw one expire is not
    /// recorded.
    ///
    /// Any number of processes may have a file open read-only. While one has, it cannot be opened
    /// for writing, and the other way round.
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

    /// When a write is answered.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The largest value that is taken; 16 MiB unless set.
    #[must_use]
    pub fn with_max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// The memory that pages of the file may take; [`DEFAULT_CACHE_BYTES`] unless set.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Whether opening verifies the checksum of every page, which reads the whole file. A damaged
    /// file is then refused as `Corrupt`; otherwise damage shows when it is met.
    #[must_use]
    pub fn with_integrity_check(mut self, check: bool) -> Self {
        self.integrity_check = check;
        self
    }

    /// Judges expiry by this clock. A clock that steps back revives nothing: the store keeps a
    /// high-water mark, in the file with every write and on closing, and while the clock is behind
    /// it, its time is the mark plus the time that has passed since opening. So a TTL counts while
    /// the store is open. (What only reads saw since the last write, or in a read-only store, may be
    /// back after a crash and a step back.) See [`HighWaterClock`](cubbyhole_core::HighWaterClock).
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// While another has the file open, opening waits for up to that long; not at all unless set.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Keeps the bytes by way of `open` and not in the file at the path: for tests that inject
    /// faults. Called again whenever the store opens its file anew.
    #[doc(hidden)] // Not of the stable surface: it shows the engine's own trait.
    #[must_use]
    pub fn with_storage(
        mut self,
        open: impl Fn() -> std::io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
    ) -> Self {
        self.storage = Some(Arc::new(open));
        self
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn create(&self) -> bool {
        self.create && !self.read_only
    }

    /// Whether the file is opened without writing to it.
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
    fn bad_url_path_is_refused() {
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
    fn to_url_is_read_back() {
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
