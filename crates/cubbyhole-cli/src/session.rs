//! What a command works with: the context, the store that was chosen, and the output.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Error, ErrorKind, ExecutionContext, OpenOptions};

use crate::error::Failure;
use crate::output::Output;

/// The environment variable that names the store where `--store` does not.
pub(crate) const VARIABLE: &str = "CUBBYHOLE_STORE";

/// A command reads most pages once; a service's cache would only take memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Commands are short: one that finds the file open waits for its turn.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Closing must get its chance also after Ctrl-C or the deadline, but not for ever.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Who named the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Option,
    Environment,
    Default,
    /// The option of a command that writes to a second store.
    Target,
}

/// The store's URL, and who named it.
#[derive(Debug, Clone)]
pub(crate) struct StoreChoice {
    pub(crate) url: String,
    pub(crate) origin: Origin,
}

impl StoreChoice {
    /// The file of an embedded store.
    pub(crate) fn file(&self) -> Option<&Path> {
        let path = self.url.strip_prefix("redb:")?;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        Some(Path::new(path))
    }

    /// What to write in its place, if it looks like a path. Never for what may hold a password.
    fn as_path(&self) -> Option<String> {
        let url = self.url.as_str();
        let named = ["redb:", "memory:"].iter().any(|scheme| url.starts_with(scheme));
        let like_a_path = url.contains(['/', '\\', '.']) || Path::new(url).exists();
        let secret = url.contains("://") || url.contains('@');
        (!named && like_a_path && !secret).then(|| format!("redb:{url}"))
    }

    /// Adds who named the store, or how to name another, to an error about what was named.
    fn explain(&self, error: Error) -> Failure {
        let missing = || self.file().is_some_and(|file| !file.exists());
        let by = match (error.kind(), self.origin) {
            // Of two stores, which of them it is about.
            (_, Origin::Target) => "--to",
            (ErrorKind::Unavailable, Origin::Default) if missing() => {
                let message = format!("{error}; name the store with --store URL or {VARIABLE}");
                return Error::unavailable(message).into();
            }
            (ErrorKind::InvalidArgument | ErrorKind::Unsupported, Origin::Option) => "--store",
            (ErrorKind::InvalidArgument | ErrorKind::Unsupported, Origin::Environment) => VARIABLE,
            _ => return error.into(),
        };
        let mut message = format!("{error} (the store is named by {by})");
        if let Some(better) = self.as_path() {
            message.push_str(&format!("; for a file write {better}"));
        }
        let explained = Error::new(error.kind(), message);
        match std::error::Error::source(&error) {
            Some(cause) => explained.with_source(std::io::Error::other(cause.to_string())).into(),
            None => explained.into(),
        }
    }
}

/// Whether two paths lead to one file that is there.
pub(crate) fn same_file(one: &Path, other: &Path) -> bool {
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<impl PartialEq> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<impl PartialEq> {
    std::fs::canonicalize(path).ok()
}

pub(crate) struct Session {
    pub(crate) ctx: ExecutionContext,
    pub(crate) store: StoreChoice,
    pub(crate) out: Output,
    opened: Vec<Arc<dyn Backend>>,
    /// What was given for the whole, for a command that counts its own time.
    pub(crate) timeout: Option<Duration>,
}

impl Session {
    pub(crate) fn new(ctx: ExecutionContext, store: StoreChoice, out: Output) -> Self {
        Self { ctx, store, out, timeout: None, opened: Vec::new() }
    }

    /// Opens the store, which must be there. [`close`](Self::close) closes it.
    pub(crate) async fn open(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_with(&OpenOptions::new().create(false)).await
    }

    /// Opens the store and creates an embedded file that is not there yet.
    pub(crate) async fn open_or_create(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_with(&OpenOptions::new()).await
    }

    async fn open_with(&mut self, options: &OpenOptions) -> Result<Arc<dyn Backend>, Failure> {
        let options = options.clone().cache_bytes(CACHE_BYTES).lock_wait(LOCK_WAIT);
        let store = options.open(&self.ctx, &self.store.url).await;
        let store = store.map_err(|error| self.explain(error))?;
        self.opened.push(Arc::clone(&store));
        Ok(store)
    }

    /// Opens a second store, which takes what is in the first; `None` if it is a file that is not
    /// there and `only_look` says to create none.
    pub(crate) async fn open_target(
        &mut self,
        url: &str,
        only_look: bool,
    ) -> Result<Option<Arc<dyn Backend>>, Failure> {
        let target = StoreChoice { url: url.to_owned(), origin: Origin::Target };
        if url == "memory:" {
            return Err(Failure::Usage(
                "--to memory: would end with this command; name a store that stays".to_owned(),
            ));
        }
        if let Some(file) = target.file() {
            if self.store.file().is_some_and(|source| same_file(source, file)) {
                return Err(Failure::Usage(
                    "--to names the store that is copied; name another".to_owned(),
                ));
            }
            if only_look && !file.exists() {
                return Ok(None);
            }
        }
        let options = OpenOptions::new().cache_bytes(CACHE_BYTES).lock_wait(LOCK_WAIT);
        let store = options.open(&self.ctx, url).await.map_err(|error| target.explain(error))?;
        self.opened.push(Arc::clone(&store));
        Ok(Some(store))
    }

    /// Adds who named the store, or how to name another, to an error about what was named.
    pub(crate) fn explain(&self, error: Error) -> Failure {
        self.store.explain(error)
    }

    /// Closes what was opened.
    pub(crate) async fn close(&mut self) -> Result<(), Failure> {
        // Not the command's own context: it may have ended, and this is what tidies up.
        let ctx = ExecutionContext::new().with_timeout(CLOSE_TIMEOUT);
        let mut outcome = Ok(());
        for store in self.opened.drain(..) {
            outcome = outcome.and(store.close(&ctx).await);
        }
        Ok(outcome?)
    }
}
