//! What a command works with: the context, the store that was chosen, and the output.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Error, ErrorKind, ExecutionContext, OpenOptions};

use super::choice::StoreChoice;
use super::settings::Settings;
use crate::error::Failure;
use crate::logging::TARGET;
use crate::output::{Output, shown_path};

/// A command reads most pages once; a service's cache would only take memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Commands are short: one that finds the file open waits for its turn.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Closing must get its chance also after Ctrl-C or the deadline, but not for ever.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

fn log_opened(store: &StoreChoice) {
    let named_by = store.origin.named_by();
    let named_by = named_by.as_deref().unwrap_or("default");
    tracing::info!(target: TARGET, store = store.shown(), named_by, "the store is open");
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
    pub(crate) settings: Arc<Settings>,
    opened: Vec<Arc<dyn Backend>>,
    /// Whether one of them is a file.
    opened_file: bool,
    /// What was given for the whole, for a command that counts its own time.
    pub(crate) timeout: Option<Duration>,
}

impl Session {
    pub(crate) fn new(ctx: ExecutionContext, store: StoreChoice, out: Output) -> Self {
        let settings = Arc::default();
        Self { ctx, store, out, settings, timeout: None, opened: Vec::new(), opened_file: false }
    }

    /// What the command line and the configuration file say, for a command that asks.
    pub(crate) fn with_settings(mut self, settings: Arc<Settings>) -> Self {
        self.settings = settings;
        self
    }

    /// Opens the store, which must be there, for a command that writes. [`close`](Self::close)
    /// closes it.
    pub(crate) async fn open(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        let store = self.open_with(&OpenOptions::new().with_create(false)).await?;
        self.store.check_writable()?;
        Ok(store)
    }

    /// Opens the store, which must be there, for a command that only reads. An embedded file is not
    /// written to: it may be on a read-only volume, and several commands may read it at a time.
    pub(crate) async fn open_read_only(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_with(&OpenOptions::new().with_read_only(true)).await
    }

    /// Opens the store and creates an embedded file that is not there yet.
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

    /// Opens a second store, which takes what is in the first; `None` if it is a file that is not
    /// there and `only_look` says to create none. It is named by a URL or a profile.
    pub(crate) async fn open_target(
        &mut self,
        named: &str,
        only_look: bool,
    ) -> Result<Option<Arc<dyn Backend>>, Failure> {
        let target = self.settings.resolve(named)?;
        if target.is_in_memory() {
            return Err(Failure::Usage(
                "--to memory: would end with this command; name a store that stays".to_owned(),
            ));
        }
        if let Some(file) = target.file() {
            if self.store.file().is_some_and(|source| same_file(&source, &file)) {
                return Err(Failure::Usage(
                    "--to names the store that is copied; name another".to_owned(),
                ));
            }
            // An empty file becomes a store when it is opened, as one that is not there does.
            let empty = std::fs::metadata(&file).map_or(true, |about| about.len() == 0);
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let text =
                    format!("--to: there is no folder {}; make it first", shown_path(folder));
                return Err(Failure::Usage(text));
            }
            if only_look && empty {
                return Ok(None);
            }
        }
        let options = OpenOptions::new()
            .with_read_only(only_look)
            .with_cache_bytes(CACHE_BYTES)
            .with_lock_wait(LOCK_WAIT);
        let store = options.open(&self.ctx, &target.url).await;
        let store = store.map_err(|error| target.explain(error))?;
        log_opened(&target);
        self.opened_file |= target.file().is_some();
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
        let ctx = ExecutionContext::new();
        let opened = std::mem::take(&mut self.opened);
        let mut closing = std::pin::pin!(async {
            let mut outcome = Ok(());
            for store in opened {
                outcome = outcome.and(store.close(&ctx).await);
            }
            outcome
        });
        // After an erasure a file is rewritten when it is closed, however long that takes.
        let closed = match self.opened_file {
            true => self.ctx.race(&mut closing).await.ok(),
            false => None,
        };
        let outcome = match closed {
            Some(outcome) => outcome,
            None => ctx.clone().with_timeout(CLOSE_TIMEOUT).race(closing).await.and_then(|end| end),
        };
        match outcome {
            // Whoever stopped the command waits for no server; what was acknowledged is kept.
            Err(error)
                if error.kind() == ErrorKind::DeadlineExceeded && self.ctx.check().is_err() =>
            {
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }
}
