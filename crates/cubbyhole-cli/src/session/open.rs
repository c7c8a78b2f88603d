//! The session of a command: its context, its store and its output. Opens and closes stores.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Error, ErrorKind, ExecutionContext, OpenOptions};

use super::choice::StoreChoice;
use super::settings::Settings;
use crate::error::Failure;
use crate::logging::TARGET;
use crate::output::{Output, shown_path};

/// Smaller than the default, because a command reads most pages once.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// How long a command waits while another process has the file open.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long closing may take after Ctrl-C or the deadline.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

fn log_opened(store: &StoreChoice) {
    let named_by = store.origin.named_by();
    let named_by = named_by.as_deref().unwrap_or("default");
    tracing::info!(target: TARGET, store = store.shown(), named_by, "the store is open");
}

/// Whether two paths lead to the same existing file.
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
    pub(crate) settings: Arc<Settings>,
    opened: Vec<Arc<dyn Backend>>,
    /// Whether an opened store is a file.
    opened_file: bool,
    /// The timeout, for a command that applies it to each of its steps.
    pub(crate) timeout: Option<Duration>,
}

impl Session {
    pub(crate) fn new(ctx: ExecutionContext, store: StoreChoice, out: Output) -> Self {
        let settings = Arc::default();
        Self { ctx, store, out, settings, timeout: None, opened: Vec::new(), opened_file: false }
    }

    /// Sets the settings, for a command that resolves another store or shows the configuration.
    pub(crate) fn with_settings(mut self, settings: Arc<Settings>) -> Self {
        self.settings = settings;
        self
    }

    /// Opens an existing store for writing. [`close`](Self::close) closes it.
    pub(crate) async fn open(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        let store = self.open_with(&OpenOptions::new().with_create(false)).await?;
        self.store.check_writable()?;
        Ok(store)
    }

    /// Opens an existing store for reading. An embedded file is not written to: it may be on a
    /// read-only volume, and several commands can read it at the same time.
    pub(crate) async fn open_read_only(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_with(&OpenOptions::new().with_read_only(true)).await
    }

    /// Opens the store for writing, and creates a missing embedded file.
    pub(crate) async fn open_or_create(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        let store = self.open_with(&OpenOptions::new()).await?;
        self.store.check_writable()?;
        Ok(store)
    }

    async fn open_with(&mut self, options: &OpenOptions) -> Result<Arc<dyn Backend>, Failure> {
        let options = options.clone().with_cache_bytes(CACHE_BYTES).with_lock_wait(LOCK_WAIT);
        let store = options.open(&self.ctx, &self.store.url).await;
        let store = store.map_err(|error| self.explain(error))?;
        log_opened(&self.store);
        self.opened_file |= self.store.file().is_some();
        self.opened.push(Arc::clone(&store));
        Ok(store)
    }

    /// Returns the second store of `copy`, named by a URL or a profile.
    pub(crate) fn choose_target(&self, named: &str) -> Result<StoreChoice, Failure> {
        let target = self.settings.resolve(named)?;
        if target.is_in_memory() {
            return Err(Failure::Usage(
                "--to memory: is lost when this command ends; name a store that is kept".to_owned(),
            ));
        }
        Ok(target)
    }

    /// Whether the target of `copy` is the store that is copied: the same file or an equal URL. Two
    /// URLs can name one server differently.
    pub(crate) fn is_source(&self, target: &StoreChoice) -> bool {
        match (self.store.file(), target.file()) {
            (Some(source), Some(target)) => same_file(&source, &target),
            _ => self.store.url == target.url,
        }
    }

    /// Opens the target of `copy`. With `read_only`, a missing file is not created, and `None` is
    /// returned for it.
    pub(crate) async fn open_target(
        &mut self,
        target: &StoreChoice,
        read_only: bool,
    ) -> Result<Option<Arc<dyn Backend>>, Failure> {
        if let Some(file) = target.file() {
            // Opening an empty file makes it a store, like opening a missing one.
            let empty = std::fs::metadata(&file).map_or(true, |about| about.len() == 0);
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let text =
                    format!("--to: there is no folder {}; create it first", shown_path(folder));
                return Err(Failure::Usage(text));
            }
            if read_only && empty {
                return Ok(None);
            }
        }
        let options = OpenOptions::new()
            .with_read_only(read_only)
            .with_cache_bytes(CACHE_BYTES)
            .with_lock_wait(LOCK_WAIT);
        let store = options.open(&self.ctx, &target.url).await;
        let store = store.map_err(|error| target.explain(error))?;
        log_opened(target);
        self.opened_file |= target.file().is_some();
        self.opened.push(Arc::clone(&store));
        Ok(Some(store))
    }

    /// Adds to an error what named the store, or how to name another one.
    pub(crate) fn explain(&self, error: Error) -> Failure {
        self.store.explain(error)
    }

    /// Closes the opened stores.
    pub(crate) async fn close(&mut self) -> Result<(), Failure> {
        // A new context: the one of the command may have ended.
        let ctx = ExecutionContext::new();
        let opened = std::mem::take(&mut self.opened);
        let mut closing = std::pin::pin!(async {
            let mut outcome = Ok(());
            for store in opened {
                outcome = outcome.and(store.close(&ctx).await);
            }
            outcome
        });
        // Closing a file after an erasure rewrites it, which has no time limit.
        let closed = match self.opened_file {
            true => self.ctx.race(&mut closing).await.ok(),
            false => None,
        };
        let outcome = match closed {
            Some(outcome) => outcome,
            None => ctx.clone().with_timeout(CLOSE_TIMEOUT).race(closing).await.and_then(|end| end),
        };
        match outcome {
            // A stopped command does not wait for a server. Acknowledged writes are kept.
            Err(error)
                if error.kind() == ErrorKind::DeadlineExceeded && self.ctx.check().is_err() =>
            {
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }
}
