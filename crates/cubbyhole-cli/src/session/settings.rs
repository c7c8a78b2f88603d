//! Chooses the store and the timeout from the command line, the environment and the configuration
//! file.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use cubbyhole::embedded;

use super::choice::{NamedBy, Origin, PROFILE_VARIABLE, STORE_VARIABLE, StoreChoice};
use super::config_file::layers::LayerSettings;
use super::config_file::{ConfigFile, Location, Profile};
use crate::args::globals::Globals;
use crate::error::Failure;

const DEFAULT_STORE: &str = "redb:cubbyhole.redb";

/// The global options that settings depend on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) store: Option<String>,
    pub(crate) store_file: Option<PathBuf>,
    pub(crate) profile: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
}

impl From<&Globals> for Options {
    fn from(globals: &Globals) -> Self {
        Self {
            store: globals.store.clone(),
            store_file: globals.store_file.clone(),
            profile: globals.profile.clone(),
            config: globals.config.clone(),
            timeout: globals.timeout,
        }
    }
}

/// The options and the configuration file. The file is read when it is first needed, so a command
/// that uses no profile does not fail because of it.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    file: OnceLock<ConfigFile>,
}

/// The store and the timeout of a command.
#[derive(Debug)]
pub(crate) struct ChosenStore {
    pub(crate) store: StoreChoice,
    pub(crate) timeout: Option<Duration>,
}

/// The store that a command would use. The URL does not include the password of the profile.
pub(crate) struct EffectiveStore<'a> {
    pub(crate) url: String,
    pub(crate) origin: Origin,
    pub(crate) profile: Option<&'a Profile>,
}

impl Settings {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, file: OnceLock::new() }
    }

    /// Chooses the store, with its password, and the timeout.
    pub(crate) fn choose(&self) -> Result<ChosenStore, Failure> {
        let EffectiveStore { url, origin, profile } = self.effective()?;
        let (url, timeout, layers) = match (&origin, profile) {
            (Origin::Profile { name, .. }, Some(profile)) => {
                (profile.url(name)?, profile.timeout, profile.layers.clone())
            }
            _ => (url, None, LayerSettings::default()),
        };
        let timeout = self.options.timeout.or(timeout);
        Ok(ChosenStore { store: StoreChoice { url, origin, layers }, timeout })
    }

    /// Returns the settings of a command that uses no store.
    pub(crate) fn without_store(&self) -> ChosenStore {
        let store = StoreChoice {
            url: DEFAULT_STORE.to_owned(),
            origin: Origin::Default,
            layers: LayerSettings::default(),
        };
        ChosenStore { store, timeout: self.options.timeout }
    }

    /// Resolves the value of `--to`: a URL or the name of a profile. Text with a `:` is a URL,
    /// because no name of a profile has one. The URL includes the password of the profile.
    pub(crate) fn resolve(&self, name_or_url: &str) -> Result<StoreChoice, Failure> {
        if name_or_url.contains(':') {
            return Ok(StoreChoice {
                url: name_or_url.to_owned(),
                origin: Origin::Target,
                layers: LayerSettings::default(),
            });
        }
        let profile = self.file()?.profile(name_or_url).map_err(|failure| match failure {
            // The text is quoted only if it cannot be a part of a URL.
            Failure::Usage(message) if !name_or_url.is_empty() && !name_or_url.contains('@') => {
                Failure::Usage(format!("{message}; for a file, write redb:{name_or_url}"))
            }
            failure => failure,
        })?;
        let origin = Origin::Profile { name: name_or_url.to_owned(), by: NamedBy::Target };
        let layers = profile.layers.clone();
        Ok(StoreChoice { url: profile.url(name_or_url)?, origin, layers })
    }

    /// Finds the store that a command would use. Options take precedence over the environment, and
    /// the environment over the configuration file.
    pub(crate) fn effective(&self) -> Result<EffectiveStore<'_>, Failure> {
        let named = |url: String, origin| EffectiveStore { url, origin, profile: None };
        let options = &self.options;
        if let Some(url) = &options.store {
            return Ok(named(url.clone(), Origin::Option));
        }
        if let Some(path) = &options.store_file {
            let url = embedded::Config::new(path).to_url();
            let url = url.map_err(|error| Failure::Usage(format!("--store-file: {error}")))?;
            return Ok(named(url, Origin::File));
        }
        let (name, by) = if let Some(name) = &options.profile {
            (name.clone(), NamedBy::Option)
        } else if let Some(url) = variable(STORE_VARIABLE)? {
            return Ok(named(url, Origin::Environment));
        } else if let Some(name) = variable(PROFILE_VARIABLE)? {
            (name, NamedBy::Environment)
        } else if let Some(name) = self.file()?.default_profile.clone() {
            (name, NamedBy::File)
        } else {
            return Ok(named(DEFAULT_STORE.to_owned(), Origin::Default));
        };
        let profile = self.file()?.profile(&name).map_err(|failure| match (failure, by) {
            (Failure::Usage(message), NamedBy::Environment) => {
                Failure::Usage(format!("{message} (the profile is named by {PROFILE_VARIABLE})"))
            }
            (failure, _) => failure,
        })?;
        let origin = Origin::Profile { name, by };
        Ok(EffectiveStore { url: profile.store.clone(), origin, profile: Some(profile) })
    }

    /// Returns the configuration file, and reads it on the first call.
    pub(crate) fn file(&self) -> Result<&ConfigFile, Failure> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = ConfigFile::read(Location::find(self.options.config.as_deref()))?;
        Ok(self.file.get_or_init(|| file))
    }
}

/// Returns an environment variable. An empty one counts as unset.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => match value.into_string() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Failure::Usage(format!(
                "{name} is not UTF-8; in the URL of a file, write other bytes as `%` and two \
                 hexadecimal digits"
            ))),
        },
        _ => Ok(None),
    }
}
