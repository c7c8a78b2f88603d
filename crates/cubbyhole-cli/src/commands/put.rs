//! `put`: writes one entry.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cubbyhole::{Bytes, Condition, ErrorKind, Namespace, PutOptions, Version, limits};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::args::parse::{parse_duration, parse_key, parse_namespace, parse_version};
use crate::error::Failure;
use crate::output::{shown_path, streams};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cubbyhole put acme:agent-7 greeting hello
  cubbyhole put acme:agent-7 draft --file draft.md --ttl 7d
  cubbyhole put acme:sessions s-1 '{\"user\":\"ada\"}' --idle-ttl 30m
  date | cubbyhole put acme:jobs nightly --if-absent";

/// Write an entry; the value is stored unchanged
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Put {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// Key; write one that begins with `-` after `--`
    #[arg(value_parser = parse_key)]
    key: String,
    /// Value, or standard input if it is omitted. `-` is the value `-`; write a value like `--text`
    /// or `-v` after `--`
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Read the value from a file (`-` for standard input)
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Time to live: 90s, 1h30m, 7d [default: the entry never expires]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Time to live after the last write or refreshing read, as in `cubbyhole get --refresh`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "ttl")]
    idle_ttl: Option<Duration>,
    /// Write only if the entry does not exist
    #[arg(long, conflicts_with_all = ["if_present", "if_version"])]
    if_absent: bool,
    /// Write only if the entry exists
    #[arg(long, conflicts_with = "if_version")]
    if_present: bool,
    /// Write only if the entry has this version
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    if_version: Option<Version>,
    /// Refuse a value that does not parse as JSON
    #[arg(long)]
    json_value: bool,
}

#[derive(Serialize)]
struct PutLine {
    version: Version,
}

impl Put {
    /// Whether the value is `--` and a letter. `-1`, `-x`, `-` and `---` are plain values.
    pub(crate) fn value_resembles_option(&self) -> bool {
        let name = self.value.as_deref().and_then(|value| value.strip_prefix("--"));
        name.is_some_and(|name| name.starts_with(char::is_alphabetic))
    }

    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        // Check everything before opening the store, which may create a file.
        let value = self.read_value(session).await?;
        if self.json_value {
            check_json(&value)?;
        }
        let mut options = PutOptions::new();
        if let Some(ttl) = self.ttl {
            options = options.with_ttl(ttl);
        }
        if let Some(ttl) = self.idle_ttl {
            options = options.with_idle_ttl(ttl);
        }
        options.expiry().check()?;
        let condition = match self.if_version {
            Some(version) => Condition::IfVersion(version),
            None if self.if_absent => Condition::IfAbsent,
            None if self.if_present => Condition::IfPresent,
            None => Condition::Always,
        };
        // An existing entry can only be in an existing store.
        let store = match condition {
            Condition::IfVersion(_) | Condition::IfPresent => session.open().await?,
            Condition::IfAbsent | Condition::Always => session.open_or_create().await?,
        };
        let version = store
            .put_entry(&session.ctx, &self.namespace, &self.key, value, options, condition)
            .await?;
        if session.out.json() {
            session.out.object(&PutLine { version })?;
        }
        Ok(())
    }

    async fn read_value(&self, session: &Session) -> Result<Bytes, Failure> {
        let value = match (&self.value, &self.file) {
            (Some(value), _) => Bytes::copy_from_slice(value.as_bytes()),
            (None, Some(path)) if path.as_os_str() != "-" => {
                let shown = shown_path(path);
                let file = File::open(path)
                    .map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
                read_all(session, file, shown).await?
            }
            (None, _) if io::stdin().is_terminal() => {
                return Err(Failure::Usage(
                    "the value is missing: give VALUE or --file, or pipe it to standard input"
                        .to_owned(),
                ));
            }
            (None, _) => {
                let what = "standard input".to_owned();
                let stdin = streams::stdin();
                let stdin =
                    stdin.map_err(|error| Failure::io(format!("cannot read {what}"), error));
                read_all(session, stdin?, what).await?
            }
        };
        limits::check_value_bytes(value.len(), limits::DEFAULT_MAX_VALUE_BYTES)?;
        Ok(value)
    }
}

/// Reads to the end on a separate thread. The deadline and Ctrl-C end the wait, but not the read.
async fn read_all(
    session: &Session,
    source: impl Read + Send + 'static,
    what: String,
) -> Result<Bytes, Failure> {
    let ctx = session.ctx.clone();
    let (sender, receiver) = oneshot::channel();
    // One byte past the limit detects a larger value without reading an endless input.
    let most = limits::DEFAULT_MAX_VALUE_BYTES as u64 + 1;
    std::thread::spawn(move || {
        let mut value = Vec::new();
        let read = source.take(most).read_to_end(&mut value).map(|_| Bytes::from(value));
        drop(sender.send(read));
    });
    match ctx.race(receiver).await? {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::io(format!("cannot read {what}"), error)),
        Err(_) => {
            Err(cubbyhole::Error::internal("the thread that reads the value has ended").into())
        }
    }
}

pub(super) fn check_json(value: &[u8]) -> Result<(), Failure> {
    // Parses into a tree, as the readers of this project do: they reject deep nesting and numbers
    // out of range, which are valid JSON.
    match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(cubbyhole::Error::new(
            ErrorKind::InvalidArgument,
            format!("cannot parse the value as JSON: {error}"),
        )
        .into()),
    }
}
