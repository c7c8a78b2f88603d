//! The store that a command works on, and the option or variable that named it.

use std::path::{Path, PathBuf};

use cubbyhole::{Error, ErrorKind, StoreUrl, embedded};

use crate::error::Failure;

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
        if self.embedded().is_some_and(|config| config.is_read_only()) {
            return Err(Error::permission_denied(format!(
                "{} is open read-only; open it for writing to change it",
                self.shown()
            ))
            .into());
        }
        Ok(())
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
