//! What a command works with: the context, the store that was chosen, and the output.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Error, ErrorKind, ExecutionContext, OpenOptions, embedded};

use crate::error::Failure;
use crate::logging::TARGET;
use crate::output::{Output, shown_path};
use crate::settings::Settings;
use crate::store_url::redacted;

/// The environment variable that names the store where `--store` does not.
pub(crate) const VARIABLE: &str = "CUBBYHOLE_STORE";

/// The environment variable that names the profile where `--profile` does not.
pub(crate) const PROFILE_VARIABLE: &str = "CUBBYHOLE_PROFILE";

/// A command reads most pages once; a service's cache would only take memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Commands are short: one that finds the file open waits for its turn.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Closing must get its chance also after Ctrl-C or the deadline, but not for ever.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Who named the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--store`.
    Option,
    /// `--store-file`.
    File,
    Environment,
    /// The profile of that name.
    Profile {
        name: String,
        by: NamedBy,
    },
    Default,
    /// The option of a command that writes to a second store.
    Target,
}

/// Who named the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedBy {
    Option,
    Environment,
    /// `default_profile` of the configuration file.
    File,
    /// The option of a command that writes to a second store.
    Target,
}

impl NamedBy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Option => "--profile",
            Self::Environment => PROFILE_VARIABLE,
            Self::File => "default_profile",
            Self::Target => "--to",
        }
    }
}

impl Origin {
    /// Who named the store, in words that follow "by"; nobody did where it is the default.
    pub(crate) fn named_by(&self) -> Option<String> {
        match self {
            Self::Option => Some("--store".to_owned()),
            Self::File => Some("--store-file".to_owned()),
            Self::Environment => Some(VARIABLE.to_owned()),
            Self::Profile { name, by } => Some(format!("the profile `{name}`, by {}", by.as_str())),
            Self::Target => Some("--to".to_owned()),
            Self::Default => None,
        }
    }

    /// Whether another call names the same store only if it is given the same options.
    pub(crate) fn is_option(&self) -> bool {
        matches!(self, Self::Option | Self::File | Self::Profile { by: NamedBy::Option, .. })
    }
}

/// The store's URL, and who named it.
#[derive(Debug, Clone)]
pub(crate) struct StoreChoice {
    pub(crate) url: String,
    pub(crate) origin: Origin,
}

impl StoreChoice {
    /// The file of an embedded store.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let config = embedded::Config::from_url_path(self.url.strip_prefix("redb:")?).ok()?;
        Some(config.path().to_owned())
    }

    /// Refuses a URL that says `read_only=true`, before a command that writes asks or has anything
    /// edited.
    fn check_writable(&self) -> Result<(), Failure> {
        let config = self.url.strip_prefix("redb:").map(embedded::Config::from_url_path);
        match config {
            Some(Ok(config)) if config.is_read_only() => Err(Error::permission_denied(format!(
                "{} is open read-only; open it for writing to change it",
                redacted(&self.url)
            ))
            .into()),
            _ => Ok(()),
        }
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
        let by = match (error.kind(), &self.origin) {
            // Of two stores, which of them it is about.
            (_, origin @ (Origin::Target | Origin::Profile { by: NamedBy::Target, .. })) => {
                origin.named_by()
            }
            (ErrorKind::Unavailable, Origin::Default) if missing() => {
                let message = format!(
                    "{error}; name the store with --store URL, {VARIABLE} or --profile NAME"
                );
                return Error::unavailable(message).into();
            }
            (ErrorKind::InvalidArgument | ErrorKind::Unsupported, origin) => origin.named_by(),
            // The name alone does not tell where it leads.
            (ErrorKind::Unavailable, origin @ Origin::Profile { .. }) => origin.named_by(),
            _ => None,
        };
        let Some(by) = by else { return error.into() };
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

fn told_as_open(store: &StoreChoice) {
    let named_by = store.origin.named_by();
    let named_by = named_by.as_deref().unwrap_or("default");
    tracing::info!(target: TARGET, store = redacted(&store.url), named_by, "the store is open");
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
        told_as_open(&self.store);
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
        if target.url == "memory:" {
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
        told_as_open(&target);
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
