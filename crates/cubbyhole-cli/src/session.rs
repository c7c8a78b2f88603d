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
}

pub(crate) struct Session {
    pub(crate) ctx: ExecutionContext,
    pub(crate) store: StoreChoice,
    pub(crate) out: Output,
    /// What was given for the whole, for a command that counts its own time.
    pub(crate) timeout: Option<Duration>,
    opened: Option<Arc<dyn Backend>>,
}

impl Session {
    pub(crate) fn new(ctx: ExecutionContext, store: StoreChoice, out: Output) -> Self {
        Self { ctx, store, out, timeout: None, opened: None }
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
        self.opened = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Adds who named the store, or how to name another, to an error about what was named.
    pub(crate) fn explain(&self, error: Error) -> Failure {
        let missing = || self.store.file().is_some_and(|file| !file.exists());
        let by = match (error.kind(), self.store.origin) {
            (ErrorKind::Unavailable, Origin::Default) if missing() => {
                let message = format!("{error}; name the store with --store URL or {VARIABLE}");
                return Error::unavailable(message).into();
            }
            (ErrorKind::InvalidArgument | ErrorKind::Unsupported, Origin::Option) => "--store",
            (ErrorKind::InvalidArgument | ErrorKind::Unsupported, Origin::Environment) => VARIABLE,
            _ => return error.into(),
        };
        let mut message = format!("{error} (the store is named by {by})");
        if let Some(better) = self.store.as_path() {
            message.push_str(&format!("; for a file write {better}"));
        }
        let explained = Error::new(error.kind(), message);
        match std::error::Error::source(&error) {
            Some(cause) => explained.with_source(std::io::Error::other(cause.to_string())).into(),
            None => explained.into(),
        }
    }

    /// Closes the store, if one was opened.
    pub(crate) async fn close(&mut self) -> Result<(), Failure> {
        let Some(store) = self.opened.take() else { return Ok(()) };
        // Not the command's own context: it may have ended, and this is what tidies up.
        let ctx = ExecutionContext::new().with_timeout(CLOSE_TIMEOUT);
        Ok(store.close(&ctx).await?)
    }
}
