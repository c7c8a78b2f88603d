//! The session of a command: its context, its store and its output. Opens and closes stores.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::{Encrypted, Encryption, KeyStore};
use cubbyhole::{Backend, Error, ErrorKind, ExecutionContext, OpenOptions, StoreUrl};

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
    /// The opened stores of tenants' keys. A file can be open only once, and both stores of `copy` and
    /// a repeated attempt to open a store can use the same one.
    key_stores: Vec<(String, Arc<dyn Backend>)>,
    /// The store of tenants' keys that is opened for writing even for a read-only store.
    written_key_store: Option<String>,
    /// Whether an opened store is a file.
    opened_file: bool,
    /// The timeout, for a command that applies it to each of its steps.
    pub(crate) timeout: Option<Duration>,
}

impl Session {
    pub(crate) fn new(ctx: ExecutionContext, store: StoreChoice, out: Output) -> Self {
        let settings = Arc::default();
        Self {
            ctx,
            store,
            out,
            settings,
            timeout: None,
            opened: Vec::new(),
            key_stores: Vec::new(),
            written_key_store: None,
            opened_file: false,
        }
    }

    /// Sets the settings, for a command that resolves another store or shows the configuration.
    pub(crate) fn with_settings(mut self, settings: Arc<Settings>) -> Self {
        self.settings = settings;
        self
    }

    /// Opens an existing store for writing. [`close`](Self::close) closes it.
    pub(crate) async fn open(&mut self) -> Result<Arc<dyn Backend>, Failure> {
        self.store.check_layers_writable()?;
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
        self.store.check_layers_writable()?;
        let store = self.open_with(&OpenOptions::new()).await?;
        self.store.check_writable()?;
        Ok(store)
    }

    /// Opens the encryption layer of an existing store, for the operations on its keys.
    pub(crate) async fn open_encrypted(&mut self) -> Result<Encrypted<Arc<dyn Backend>>, Failure> {
        self.store.check_layers_writable()?;
        let options = OpenOptions::new().with_create(false);
        let options = self.with_layers(options, &self.store.clone()).await?;
        let store = options.open_encrypted(&self.ctx, &self.store.url).await;
        let store = store.map_err(|error| self.explain(error))?;
        log_opened(&self.store);
        self.opened_file |= self.store.file().is_some();
        self.opened.push(Arc::clone(store.inner()));
        self.store.check_writable()?;
        Ok(store)
    }

    /// Adds the layers of a store to the options. Reads the keys of the encryption, and opens their
    /// store if it is another one.
    async fn with_layers(
        &mut self,
        options: OpenOptions,
        store: &StoreChoice,
    ) -> Result<OpenOptions, Failure> {
        let options = options.with_cache_bytes(CACHE_BYTES).with_lock_wait(LOCK_WAIT);
        let mut layers = store.layers.layers.clone();
        if let Some(settings) = &store.layers.encryption {
            let mut encryption =
                Encryption::new(settings.keys.read()?).with_plaintext(settings.plaintext);
            if let Some(url) = settings.tenant_keys.as_ref().filter(|url| !store.is_at(url)) {
                let opened = self.open_key_store(&options, url, store).await?;
                encryption = encryption.with_key_store(KeyStore::apart(opened));
            }
            layers = layers.with_encryption(encryption);
        }
        Ok(options.with_layers(layers))
    }

    async fn open_key_store(
        &mut self,
        options: &OpenOptions,
        url: &str,
        store: &StoreChoice,
    ) -> Result<Arc<dyn Backend>, Failure> {
        if let Some((_, opened)) = self.key_stores.iter().find(|(other, _)| other == url) {
            return Ok(Arc::clone(opened));
        }
        let mut options = options.clone();
        if self.written_key_store.as_deref() == Some(url) {
            options = options.with_read_only(false);
        }
        let opened = options.open(&self.ctx, url).await.map_err(|error| {
            let shown = StoreUrl::redact(url);
            let message =
                format!("layer `encryption`, key `tenant_keys`, {shown}: {}", error.message());
            store.explain(error.with_message(message))
        })?;
        self.opened_file |= url.starts_with("redb:");
        self.opened.push(Arc::clone(&opened));
        self.key_stores.push((url.to_owned(), Arc::clone(&opened)));
        Ok(opened)
    }

    /// Compacts the opened file that has the tenants' keys. Free pages can hold overwritten keys.
    pub(crate) async fn compact_key_file(&self) -> cubbyhole::Result<()> {
        let (url, store) = match (self.key_stores.last(), self.opened.last()) {
            (Some((url, store)), _) => (url, store),
            (None, Some(store)) => (&self.store.url, store),
            (None, None) => return Ok(()),
        };
        if url.starts_with("redb:") {
            store.compact(&self.ctx).await?;
        }
        Ok(())
    }

    /// Opens the store of tenants' keys for writing from the beginning if both stores of `copy` use it.
    pub(crate) fn share_key_store(&mut self, target: &StoreChoice) {
        let key_store =
            |choice: &StoreChoice| choice.layers.encryption.as_ref()?.tenant_keys.clone();
        self.written_key_store =
            key_store(target).filter(|_| key_store(&self.store) == key_store(target));
    }

    async fn open_with(&mut self, options: &OpenOptions) -> Result<Arc<dyn Backend>, Failure> {
        let options = self.with_layers(options.clone(), &self.store.clone()).await?;
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
        if !read_only {
            target.check_layers_writable()?;
        }
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
        let options = OpenOptions::new().with_read_only(read_only);
        let options = self.with_layers(options, target).await?;
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
        self.key_stores.clear();
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
