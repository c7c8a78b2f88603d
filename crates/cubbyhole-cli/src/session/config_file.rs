//! The configuration file: its location and its profiles.

pub(crate) mod layers;
mod reader;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cubbyhole::StoreUrl;
use etcetera::BaseStrategy;

use self::layers::LayerSettings;
use self::reader::Reader;
use super::store_url;
use crate::error::Failure;
use crate::logging::TARGET;
use crate::output::shown_path;

/// The environment variable that names the configuration file.
pub(crate) const CONFIG_VARIABLE: &str = "CUBBYHOLE_CONFIG";

/// The location of the configuration file.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// `None` if the platform has no configuration folder.
    pub(crate) path: Option<PathBuf>,
    pub(crate) by: LocationBy,
}

/// What named the location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocationBy {
    Option,
    Environment,
    Platform,
}

impl LocationBy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Option => "--config",
            Self::Environment => CONFIG_VARIABLE,
            Self::Platform => "platform",
        }
    }
}

impl Location {
    /// Finds the file: the one of `option`, else of the environment, else of the platform's folder.
    pub(crate) fn find(option: Option<&Path>) -> Self {
        if let Some(path) = option {
            return Self { path: Some(path.to_owned()), by: LocationBy::Option };
        }
        let variable: Option<OsString> = std::env::var_os(CONFIG_VARIABLE);
        if let Some(path) = variable.filter(|path| !path.is_empty()) {
            return Self { path: Some(path.into()), by: LocationBy::Environment };
        }
        let platform = etcetera::choose_base_strategy().ok();
        let path = platform.map(|base| base.config_dir().join("cubbyhole").join("config.toml"));
        Self { path, by: LocationBy::Platform }
    }
}

/// The contents of the configuration file; empty if there is no file.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) location: Location,
    pub(crate) found: bool,
    pub(crate) default_profile: Option<String>,
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// A named store.
pub(crate) struct Profile {
    /// The URL with absolute paths. It has no password if there is a [`PasswordSource`].
    pub(crate) store: String,
    pub(crate) password: Option<PasswordSource>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) layers: LayerSettings,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("store", &StoreUrl::redact(&self.store))
            .field("password", &self.password)
            .field("timeout", &self.timeout)
            .field("layers", &self.layers)
            .finish()
    }
}

/// The source of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PasswordSource {
    Environment(String),
    File(PathBuf),
}

impl PasswordSource {
    /// Whether the source exists. The password is not read.
    pub(crate) fn is_set(&self) -> bool {
        match self {
            Self::Environment(name) => std::env::var_os(name).is_some_and(|text| !text.is_empty()),
            Self::File(path) => path.exists(),
        }
    }

    /// Reads the password. The text of an error follows "the profile `NAME`".
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Environment(name) => match std::env::var_os(name) {
                Some(value) if !value.is_empty() => match value.into_string() {
                    Ok(text) => without_line_end(&text, name),
                    Err(_) => Err(format!("takes its password from {name}, which is not UTF-8")),
                },
                _ => Err(format!("takes its password from {name}, which is not set")),
            },
            Self::File(path) => {
                let shown = shown_path(path);
                let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => {
                        format!("takes its password from {shown}, which is not UTF-8")
                    }
                    _ => format!("takes its password from {shown}, which cannot be read: {error}"),
                })?;
                without_line_end(&text, &shown)
            }
        }
    }
}

/// Removes one line end, which an editor, `echo` or an environment file adds to a password.
fn without_line_end(text: &str, place: &str) -> Result<String, String> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let password = line.strip_suffix('\r').unwrap_or(line);
    if password.is_empty() {
        return Err(format!("takes its password from {place}, which is empty"));
    }
    Ok(password.to_owned())
}

impl Profile {
    /// Returns the URL of the store with the password.
    pub(crate) fn url(&self, name: &str) -> Result<String, Failure> {
        let Some(source) = &self.password else { return Ok(self.store.clone()) };
        let password = source
            .read()
            .map_err(|wrong| Failure::Usage(format!("the profile `{name}` {wrong}")))?;
        store_url::with_password(&self.store, &password)
            .map_err(|wrong| Failure::Usage(format!("the URL of the profile `{name}` {wrong}")))
    }
}

impl ConfigFile {
    /// Reads the file. A missing file in the platform's folder is not an error.
    pub(crate) fn read(location: Location) -> Result<Self, Failure> {
        let nothing = |location| Self {
            location,
            found: false,
            default_profile: None,
            profiles: BTreeMap::new(),
        };
        let Some(path) = location.path.clone() else { return Ok(nothing(location)) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match location.by {
                LocationBy::Platform => return Ok(nothing(location)),
                by => {
                    let (shown, by) = (shown_path(&path), by.as_str());
                    let message = format!("there is no configuration file {shown} (named by {by})");
                    return Err(Failure::Usage(message));
                }
            },
            Err(error) => {
                let message =
                    format!("cannot read the configuration file {}: {error}", shown_path(&path));
                return Err(Failure::Usage(message));
            }
        };
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let folder = absolute.parent().unwrap_or(Path::new(""));
        let reader = Reader { path: &path, text: &text, folder };
        let (default_profile, profiles) = reader.document()?;
        tracing::debug!(
            target: TARGET,
            file = shown_path(&path),
            profiles = profiles.len(),
            "read the configuration file"
        );
        Ok(Self { location, found: true, default_profile, profiles })
    }

    /// Returns a profile by name.
    pub(crate) fn profile(&self, name: &str) -> Result<&Profile, Failure> {
        self.profiles.get(name).ok_or_else(|| Failure::Usage(self.no_such_profile(name)))
    }

    fn no_such_profile(&self, name: &str) -> String {
        // Text that is not a valid name may be anything, even a password.
        let named = if is_name(name) { format!("profile `{name}`") } else { "such profile".into() };
        let place = match &self.location.path {
            Some(path) if self.found => shown_path(path),
            Some(path) => {
                return format!(
                    "there is no {named}, because there is no configuration file {}",
                    shown_path(path)
                );
            }
            None => {
                return format!(
                    "there is no {named}, because there is no configuration file; name one with \
                     --config FILE or {CONFIG_VARIABLE}"
                );
            }
        };
        if self.profiles.is_empty() {
            return format!("there is no {named}: {place} has no profiles");
        }
        let names: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        format!("there is no {named} in {place}; it has {}", names.join(", "))
    }
}

/// Whether the text is a valid profile name. A URL is not, and no shell needs quotes for a name.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}
