//! The store that a command works on, and the option or variable that named it.

use std::path::{Path, PathBuf};

use cubbyhole::{BackendKind, Error, ErrorKind, StoreUrl};

use crate::error::Failure;

/// The environment variable that names the store where `--store` does not.
pub(crate) const STORE_VARIABLE: &str = "CUBBYHOLE_STORE";

/// The environment variable that names the profile where `--profile` does not.
pub(crate) const PROFILE_VARIABLE: &str = "CUBBYHOLE_PROFILE";

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
            Self::Environment => Some(STORE_VARIABLE.to_owned()),
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
        Some(self.parsed()?.path()?.to_owned())
    }

    /// Whether the store is in memory and ends with the command.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.parsed().is_some_and(|url| url.backend() == BackendKind::Memory)
    }

    /// The URL without secrets.
    pub(crate) fn shown(&self) -> String {
        StoreUrl::redact(&self.url)
    }

    /// `None` for a URL that is wrong; opening it says why.
    fn parsed(&self) -> Option<StoreUrl> {
        StoreUrl::parse(&self.url).ok()
    }

    /// Refuses a URL that says `read_only=true`, before a command that writes asks or has anything
    /// edited.
    pub(super) fn check_writable(&self) -> Result<(), Failure> {
        if self.parsed().is_some_and(|url| url.is_read_only()) {
            return Err(Error::permission_denied(format!(
                "{} is open read-only; open it for writing to change it",
                self.shown()
            ))
            .into());
        }
        Ok(())
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
    pub(super) fn explain(&self, error: Error) -> Failure {
        let missing = || self.file().is_some_and(|file| !file.exists());
        let by = match (error.kind(), &self.origin) {
            // Of two stores, which of them it is about.
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
