//! `config`: shows the settings from the command line, the environment and the configuration file.

use std::path::Path;

use clap::{Args, Subcommand};
use cubbyhole::StoreUrl;
use serde::Serialize;

use crate::args::parse::format_duration;
use crate::error::Failure;
use crate::output::shown_path;
use crate::session::config_file::{ConfigFile, LocationBy, PasswordSource, Profile};
use crate::session::store_url::has_password;
use crate::session::{EffectiveStore, NamedBy, Origin, STORE_VARIABLE, Session};

const EXAMPLES: &str = "\
The file holds profiles: named stores, each with a timeout and the source of its password.

  default_profile = \"dev\"
  [profiles.dev]
  store = \"redb:~/dev.redb\"
  [profiles.prod]
  store = \"postgres://my_service@db.internal/state?sslmode=verify-full\"
  password_env = \"PROD_PASSWORD\"     # or password_file = \"prod.password\"
  timeout = \"30s\"
  [profiles.prod.layers]
  retry = true
  encryption = { key_file = \"prod.keys\" }

Relative paths in the file start at its folder, and `~/` is the home folder.

Example:
  cubbyhole config show";

const SHOW_EXAMPLES: &str = "\
Passwords are neither read nor shown.

Examples:
  cubbyhole config show
  cubbyhole config show --profile prod --json";

/// Show the configuration file and the settings in effect
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Config {
    #[command(subcommand)]
    action: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Show(Show),
}

/// Show the configuration file, the store in effect, what named it, and the profiles, without
/// secrets
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct Show {}

impl Config {
    pub(crate) fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self.action {
            ConfigCommand::Show(Show {}) => show(session),
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    file: ShownFile,
    store: ShownStore<'a>,
    timeout: Option<String>,
    /// The layers of the store in effect, from the outermost to the innermost.
    layers: Vec<&'static str>,
    default_profile: Option<&'a str>,
    profiles: Vec<ShownProfile<'a>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ShownFile {
    path: Option<String>,
    found: bool,
    named_by: &'static str,
}

#[derive(Serialize)]
struct ShownStore<'a> {
    url: String,
    named_by: &'static str,
    profile: Option<&'a str>,
    profile_named_by: Option<&'static str>,
    password: Option<ShownPassword>,
}

#[derive(Serialize)]
struct ShownPassword {
    from: &'static str,
    name: String,
    is_set: bool,
}

#[derive(Serialize)]
struct ShownProfile<'a> {
    name: &'a str,
    store: String,
    password: Option<ShownPassword>,
    timeout: Option<String>,
    /// The names of the layers, from the outermost to the innermost.
    layers: Vec<&'static str>,
}

fn show(session: &mut Session) -> Result<(), Failure> {
    let settings = std::sync::Arc::clone(&session.settings);
    let file = settings.file()?;
    let effective = settings.effective()?;
    let timeout =
        settings.options.timeout.or_else(|| effective.profile.and_then(|profile| profile.timeout));
    let shown = Shown {
        file: ShownFile {
            path: file.location.path.as_deref().map(text),
            found: file.found,
            named_by: file.location.by.as_str(),
        },
        store: shown_store(&effective),
        timeout: timeout.map(format_duration),
        layers: effective.profile.map(|profile| profile.layers.names()).unwrap_or_default(),
        default_profile: file.default_profile.as_deref(),
        profiles: file
            .profiles
            .iter()
            .map(|(name, profile)| shown_profile(name, profile))
            .collect(),
        warnings: warning(file).into_iter().collect(),
    };
    if session.out.json() {
        return session.out.object(&shown);
    }
    for line in lines(&shown, file) {
        session.out.line(&line)?;
    }
    for warning in &shown.warnings {
        session.out.note(&format!("warning: {warning}"));
    }
    Ok(())
}

fn shown_store<'a>(effective: &'a EffectiveStore<'_>) -> ShownStore<'a> {
    let named_by = match &effective.origin {
        Origin::Option => "--store",
        Origin::File => "--store-file",
        Origin::Environment => STORE_VARIABLE,
        Origin::Profile { .. } => "profile",
        Origin::Target => "--to",
        Origin::Default => "default",
    };
    let profile = match &effective.origin {
        Origin::Profile { name, by } => Some((name.as_str(), *by)),
        _ => None,
    };
    ShownStore {
        url: StoreUrl::redact(&effective.url),
        named_by,
        profile: profile.map(|(name, _)| name),
        profile_named_by: profile.map(|(_, by)| NamedBy::as_str(by)),
        password: effective.profile.and_then(|profile| profile.password.as_ref().map(password)),
    }
}

fn shown_profile<'a>(name: &'a str, profile: &Profile) -> ShownProfile<'a> {
    ShownProfile {
        name,
        store: StoreUrl::redact(&profile.store),
        password: profile.password.as_ref().map(password),
        timeout: profile.timeout.map(format_duration),
        layers: profile.layers.names(),
    }
}

fn password(source: &PasswordSource) -> ShownPassword {
    let (from, name) = match source {
        PasswordSource::Environment(name) => ("environment", name.clone()),
        PasswordSource::File(path) => ("file", text(path)),
    };
    ShownPassword { from, name, is_set: source.is_set() }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Formats the configuration as text in two columns.
fn lines(shown: &Shown<'_>, file: &ConfigFile) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: &str| lines.push(format!("{name:<9} {text}"));
    let named = match file.location.by {
        LocationBy::Platform => String::new(),
        by => format!(" (named by {})", by.as_str()),
    };
    line(
        "file",
        &match (&shown.file.path, shown.file.found) {
            (Some(path), true) => format!("{path}{named}"),
            (Some(path), false) => format!("{path}, which does not exist"),
            (None, _) => "none: the platform has no configuration folder".to_owned(),
        },
    );
    line("store", &shown.store.url);
    line(
        "named by",
        &match (shown.store.profile, shown.store.profile_named_by) {
            (Some(name), Some(by)) => format!("the profile {name}, by {by}"),
            _ if shown.store.named_by == "default" => "nothing: it is the default".to_owned(),
            _ => shown.store.named_by.to_owned(),
        },
    );
    if let Some(password) = &shown.store.password {
        line("password", &describe_password(password));
    }
    line("timeout", shown.timeout.as_deref().unwrap_or("none"));
    if !shown.layers.is_empty() {
        line("layers", &shown.layers.join(", "));
    }
    let width = shown.profiles.iter().map(|profile| profile.name.chars().count()).max();
    let width = width.unwrap_or(0);
    for (index, profile) in shown.profiles.iter().enumerate() {
        let heading = if index == 0 { "profiles" } else { "" };
        line(heading, &format!("{:<width$}  {}", profile.name, profile.store));
    }
    if shown.profiles.is_empty() {
        line("profiles", "none");
    }
    lines
}

fn describe_password(password: &ShownPassword) -> String {
    match (password.from, password.is_set) {
        ("environment", true) => format!("in the variable {}, which is set", password.name),
        ("environment", false) => format!("in the variable {}, which is not set", password.name),
        (_, true) => format!("in the file {}", password.name),
        (_, false) => format!("in the file {}, which does not exist", password.name),
    }
}

/// Returns a warning if the file contains a password and other users can read it.
#[cfg(unix)]
fn warning(file: &ConfigFile) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;

    const OTHERS_READ: u32 = 0o044;
    let path = file.location.path.as_deref()?;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let holds = file.profiles.iter().find(|(_, profile)| {
        let encryption = profile.layers.encryption.as_ref();
        let tenant_keys = encryption.and_then(|encryption| encryption.tenant_keys.as_deref());
        has_password(&profile.store) || tenant_keys.is_some_and(has_password)
    });
    let (name, _) = holds.filter(|_| mode & OTHERS_READ != 0)?;
    Some(format!(
        "{shown} contains the password of the profile {name}, and other users can read the file: use \
         password_env or password_file, or run `chmod 600 {shown}`",
        shown = shown_path(path),
    ))
}

#[cfg(not(unix))]
fn warning(_file: &ConfigFile) -> Option<String> {
    None
}
