//! The options that every command takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PathBufValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::parse::parse_duration;

/// The global options, which are accepted before and after the name of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// URL of the store: redb:PATH, postgres://…, redis://…, redis+cluster://… or memory: [default:
    /// --profile, else $CUBBYHOLE_STORE, else $CUBBYHOLE_PROFILE, else default_profile of the
    /// configuration file, else redb:cubbyhole.redb]
    // clap's `env` is not used: its help and errors would show a password in the variable.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Path of an embedded store, without percent-encoding
    #[arg(long, global = true, value_name = "PATH", value_parser = PathBufValueParser::new())]
    pub(crate) store_file: Option<PathBuf>,
    /// Profile in the configuration file that names the store; takes precedence over
    /// $CUBBYHOLE_STORE
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Configuration file [default: $CUBBYHOLE_CONFIG, else cubbyhole/config.toml in the platform's
    /// configuration folder; see `cubbyhole config show`]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Give up after this time: 500ms, 30s, 5m [default: the timeout of the profile, else none]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Write JSON: one object per line on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log to stderr; -vv logs more, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Format of the log [default: text; json with --json]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Globals {
    /// Counts the options that name a store.
    pub(crate) fn count_store_options(&self) -> usize {
        let named = [self.store.is_some(), self.store_file.is_some(), self.profile.is_some()];
        named.into_iter().filter(|named| *named).count()
    }
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text per event
    Text,
    /// One JSON object per line
    Json,
}
