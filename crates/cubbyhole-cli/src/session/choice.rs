//! The store that a command works on, and the option or variable that named it.

use std::path::{Path, PathBuf};

use cubbyhole::{Error, ErrorKind, NamespacePrefix, StoreUrl, embedded};

use super::config_file::layers::LayerSettings;
use super::open::same_file;
use crate::args::scope::Scope;
use crate::error::Failure;
use crate::output::escape;

/// The environment variable that names the store.
pub(crate) const STORE_VARIABLE: &str = "CUBBYHOLE_STORE";

/// The environment variable that names the profile.
pub(crate) const PROFILE_VARIABLE: &str = "CUBBYHOLE_PROFILE";

/// The option or setting that named the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--store`.
    Option,
    /// `--store-file`.
    File,
    /// [`STORE_VARIABLE`].
    Environment,
    /// A profile, by name.
    Profile { name: String, by: NamedBy },
    /// The default store.
    Default,
    /// `--to`, the second store of `copy`.
    Target,
}

/// The option or setting that named the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// `--profile`.
    Option,
    /// [`PROFILE_VARIABLE`].
    Environment,
    /// `default_profile` of the configuration file.
    File,
    /// `--to`, the second store of `copy`.
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
    /// Returns what named the store, in words that follow "named by", and `None` for the default.
    pub(crate) fn named_by(&self) -> Option<String> {
        match self {
            Self::Option => Some("--store".to_owned()),
            Self::File => Some("--store-file".to_owned()),
            Self::Environment => Some(STORE_VARIABLE.to_owned()),
            Self::Profile { name, by } => Some(format!("the profile `{name}`, by {}", by.as_str())),
            Self::Target => Some("--to".to_owned()),
            Self::Default => None,
        }
    }

    /// Returns the name of the profile.
    fn profile(&self) -> Option<&str> {
        match self {
            Self::Profile { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether another command must repeat the options to use the same store.
    pub(crate) fn is_option(&self) -> bool {
        matches!(self, Self::Option | Self::File | Self::Profile { by: NamedBy::Option, .. })
    }
}

/// The URL of the store, and what named it.
#[derive(Debug, Clone)]
pub(crate) struct StoreChoice {
    pub(crate) url: String,
    pub(crate) origin: Origin,
    /// The layers of the profile. A store that is named by a URL has none.
    pub(crate) layers: LayerSettings,
}

impl StoreChoice {
    /// Returns the path of an embedded store.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        Some(self.embedded()?.path().to_owned())
    }

    /// Whether the store is in memory, and therefore lost when the command ends.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.url == "memory:"
    }

    /// Returns the URL without secrets.
    pub(crate) fn shown(&self) -> String {
        StoreUrl::redact(&self.url)
    }

    /// Returns the configuration of an embedded store. Returns `None` for a wrong URL; opening the
    /// store reports the error. URLs of servers are not parsed, because that reads libpq's files.
    fn embedded(&self) -> Option<embedded::Config> {
        embedded::Config::from_url_path(self.url.strip_prefix("redb:")?).ok()
    }

    /// Refuses a URL with `read_only=true`. A command that writes checks this before it asks a
    /// question or starts an editor.
    pub(super) fn check_writable(&self) -> Result<(), Failure> {
        self.check_layers_writable()?;
        if self.embedded().is_some_and(|config| config.is_read_only()) {
            return Err(self.read_only().into());
        }
        Ok(())
    }

    /// Refuses a profile whose layers have `read_only = true`, before a file is created or opened for
    /// writing.
    pub(crate) fn check_layers_writable(&self) -> Result<(), Failure> {
        if !self.layers.layers.is_read_only() {
            return Ok(());
        }
        let message = format!(
            "{} has the layer `read_only`; use a profile without it to change the store",
            self.shown_profile()
        );
        Err(Error::permission_denied(message).into())
    }

    /// Refuses a profile with a scope, for a command on the whole store.
    pub(crate) fn check_unscoped(&self) -> Result<(), Failure> {
        let Some(scope) = self.layers.layers.scope() else { return Ok(()) };
        let message = format!(
            "{} has the scope {}, and this command works on the whole store; use a profile without a \
             scope",
            self.shown_profile(),
            escape(scope.as_str())
        );
        Err(Error::permission_denied(message).into())
    }

    /// Whether the store is at this URL: an equal URL or the same file.
    pub(crate) fn is_at(&self, url: &str) -> bool {
        let other = Self {
            url: url.to_owned(),
            origin: self.origin.clone(),
            layers: LayerSettings::default(),
        };
        match (self.file(), other.file()) {
            (Some(one), Some(other)) => one == other || same_file(&one, &other),
            _ => self.url == url,
        }
    }

    fn shown_profile(&self) -> String {
        match self.origin.profile() {
            Some(name) => format!("the profile `{name}`"),
            None => self.shown(),
        }
    }

    /// Narrows a command on the whole store to the scope of the profile.
    ///
    /// # Errors
    /// `PermissionDenied` if the command names a prefix outside the scope.
    pub(crate) fn narrow(&self, scope: Scope) -> Result<Scope, Failure> {
        match scope.prefix() {
            Some(prefix) => self.check_in_scope(prefix).map(|()| scope),
            None => Ok(Scope(self.layers.layers.scope().cloned())),
        }
    }

    /// Refuses a target that is the same store with other layers, because a file can be open only once.
    pub(crate) fn check_same_layers(&self, target: &Self) -> Result<(), Failure> {
        let layered = |choice: &Self| !choice.layers.names().is_empty();
        if self.origin.profile() == target.origin.profile() || !(layered(self) || layered(target)) {
            return Ok(());
        }
        Err(Failure::Usage(
            "--to: names the same store, perhaps with other layers; copy into another store, or name \
             the same profile"
                .to_owned(),
        ))
    }

    /// Refuses a prefix outside the scope of the profile, for commands that work below the layers.
    pub(crate) fn check_in_scope(&self, prefix: &NamespacePrefix) -> Result<(), Failure> {
        match self.layers.layers.scope() {
            Some(scope) if !scope.matches(prefix.as_namespace()) => {
                let message = format!(
                    "the prefix is outside the scope of {}, {}",
                    self.shown_profile(),
                    escape(scope.as_str())
                );
                Err(Error::permission_denied(message).into())
            }
            _ => Ok(()),
        }
    }

    fn read_only(&self) -> Error {
        Error::permission_denied(format!(
            "{} is open read-only; open it for writing to change it",
            self.shown()
        ))
    }

    /// Returns the URL to suggest for text that looks like a path, unless the text may hold a
    /// password.
    fn as_path(&self) -> Option<String> {
        let url = self.url.as_str();
        let named = ["redb:", "memory:"].iter().any(|scheme| url.starts_with(scheme));
        let like_a_path = url.contains(['/', '\\', '.']) || Path::new(url).exists();
        let secret = url.contains("://") || url.contains('@');
        (!named && like_a_path && !secret).then(|| format!("redb:{url}"))
    }

    /// Adds to an error what named the store, or how to name another one.
    pub(super) fn explain(&self, error: Error) -> Failure {
        let missing = || self.file().is_some_and(|file| !file.exists());
        let by = match (error.kind(), &self.origin) {
            // With two stores, the message says which of them failed.
            (_, origin @ (Origin::Target | Origin::Profile { by: NamedBy::Target, .. })) => {
                origin.named_by()
            }
            (ErrorKind::Unavailable, Origin::Default) if missing() => {
                let message = format!(
                    "{error}; name the store with --store URL, {STORE_VARIABLE} or --profile NAME"
                );
                return Error::unavailable(message).into();
            }
            (ErrorKind::InvalidArgument | ErrorKind::Unsupported, origin) => origin.named_by(),
            // The name of a profile does not show its URL.
            (ErrorKind::Unavailable, origin @ Origin::Profile { .. }) => origin.named_by(),
            _ => None,
        };
        let Some(by) = by else { return error.into() };
        let mut message = format!("{error} (the store is named by {by})");
        if let Some(better) = self.as_path() {
            message.push_str(&format!("; for a file, write {better}"));
        }
        let explained = Error::new(error.kind(), message);
        match std::error::Error::source(&error) {
            Some(cause) => explained.with_source(std::io::Error::other(cause.to_string())).into(),
            None => explained.into(),
        }
    }
}
