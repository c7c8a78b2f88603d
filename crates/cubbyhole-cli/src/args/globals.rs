//! The options that every command takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PathBufValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::parse::parse_duration;

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The store: redb:PATH, postgres://…, redis://…, redis+cluster://… or memory: [default: the profile of --profile, else $CUBBYHOLE_STORE, else the profile of $CUBBYHOLE_PROFILE or default_profile, else redb:cubbyhole.redb]
    // Not clap's `env`: its help and its errors would show a password in the variable.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// The store in this file, for a path that would need percent-encoding in a URL
    #[arg(long, global = true, value_name = "PATH", value_parser = PathBufValueParser::new())]
    pub(crate) store_file: Option<PathBuf>,
    /// The store of this profile in the configuration file; wins over $CUBBYHOLE_STORE
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The configuration file [default: $CUBBYHOLE_CONFIG, else cubbyhole/config.toml in the platform's usual place; `cubbyhole config show` tells it]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Give up after this long: 500ms, 30s, 5m [default: the profile's, else never]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// One exact JSON object a line on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell on stderr what is done; -vv tells more, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How -v tells it [default: text, and json with --json]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Globals {
    /// How many options name the store.
    pub(crate) fn names_of_the_store(&self) -> usize {
        let named = [self.store.is_some(), self.store_file.is_some(), self.profile.is_some()];
        named.into_iter().filter(|named| *named).count()
    }
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// One JSON object a line
    Json,
}
