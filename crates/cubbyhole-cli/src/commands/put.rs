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
  date | cubbyhole put acme:jobs nightly --if-absent";

/// Write an entry; the value is stored byte for byte
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Put {
    /// Where: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// The key; one that begins with `-` goes after `--`
    #[arg(value_parser = parse_key)]
    key: String,
    /// The value, byte for byte: `-` is a dash, and one like `--text` or `-v` goes after `--`.
    /// Without it, standard input is read to its end
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Take the value from a file (`-` for standard input)
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Expire after this long: 90s, 1h30m, 7d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Only if there is no such entry
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the entry is at this version
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    if_version: Option<Version>,
    /// Refuse a value that a JSON reader would not take
    #[arg(long)]
    json_value: bool,
}

#[derive(Serialize)]
struct PutLine {
    version: Version,
}

impl Put {
    /// `--` and a letter: `-1`, `-x`, `-` and `---` are plain values.
    pub(crate) fn value_looks_like_an_option(&self) -> bool {
        let name = self.value.as_deref().and_then(|value| value.strip_prefix("--"));
        name.is_some_and(|name| name.starts_with(char::is_alphabetic))
    }

    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        // Everything is checked before the store is opened: a mistake creates no file.
        let value = self.read_value(session).await?;
        if self.json_value {
            check_json(&value)?;
        }
        let mut options = PutOptions::new();
        if let Some(ttl) = self.ttl {
            options = options.with_ttl(ttl);
            options.expiry().check()?;
        }
        let condition = match self.if_version {
            Some(version) => Condition::IfVersion(version),
            None if self.if_absent => Condition::IfAbsent,
            None => Condition::Always,
        };
        // An entry at a known version can only be in a store that is there.
        let store = match condition {
            Condition::IfVersion(_) => session.open().await?,
            _ => session.open_or_create().await?,
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
                    "the value is missing: give VALUE or --file, or pipe it in".to_owned(),
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

/// Reads to the end on a thread of its own, so that a deadline and Ctrl-C end the wait.
async fn read_all(
    session: &Session,
    source: impl Read + Send + 'static,
    what: String,
) -> Result<Bytes, Failure> {
    let ctx = session.ctx.clone();
    let (sender, receiver) = oneshot::channel();
    // One byte past the limit shows that there is more; an endless input must not fill the memory.
    let most = limits::DEFAULT_MAX_VALUE_BYTES as u64 + 1;
    std::thread::spawn(move || {
        let mut value = Vec::new();
        let read = source.take(most).read_to_end(&mut value).map(|_| Bytes::from(value));
        drop(sender.send(read));
    });
    match ctx.race(receiver).await? {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::io(format!("cannot read {what}"), error)),
        Err(_) => Err(cubbyhole::Error::internal("the thread that reads the value ended").into()),
    }
}

pub(super) fn check_json(value: &[u8]) -> Result<(), Failure> {
    // Into a tree and not past it: what is nested too deep, or is out of a number's range, is
    // valid JSON that no reader of this project takes.
    match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(cubbyhole::Error::new(
            ErrorKind::InvalidArgument,
            format!("the value is not JSON that can be read back: {error}"),
        )
        .into()),
    }
}
