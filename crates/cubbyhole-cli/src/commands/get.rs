//! `get`: prints one entry.

use clap::Args;
use cubbyhole::{Bytes, Entry, GetOptions, Namespace};

use super::common::not_found;
use crate::args::parse::{parse_key, parse_namespace};
use crate::entries::record::{EntryLine, to_base64};
use crate::error::Failure;
use crate::output::{Output, escape, exact_duration};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cubbyhole get acme:agent-7 greeting
  cubbyhole get acme:agent-7 greeting --entry
  cubbyhole get acme:sessions s-1 --refresh
  cubbyhole get acme:agent-7 avatar > avatar.png";

/// Write the value of an entry to stdout, unchanged
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Get {
    #[command(flatten)]
    arguments: EntryArguments,
    /// Restart the idle TTL of the entry; other entries are only read
    #[arg(long)]
    refresh: bool,
}

/// The arguments that name an entry, and how to print it.
#[derive(Debug, Args)]
pub(crate) struct EntryArguments {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    pub(crate) namespace: Namespace,
    /// Key; write one that begins with `-` after `--`
    #[arg(value_parser = parse_key)]
    pub(crate) key: String,
    /// Also show the version and the times
    #[arg(long)]
    pub(crate) entry: bool,
}

impl Get {
    /// Whether the command writes to the store.
    pub(crate) fn writes(&self) -> bool {
        self.refresh
    }

    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let (store, options) = match self.refresh {
            true => (session.open().await?, GetOptions::new().refreshing()),
            false => (session.open_read_only().await?, GetOptions::new()),
        };
        let EntryArguments { namespace, key, .. } = &self.arguments;
        let entry = store.get_entry(&session.ctx, namespace, key, options).await?;
        self.arguments.show(entry, &mut session.out)
    }
}

impl EntryArguments {
    /// Writes the entry, or fails if it does not exist.
    pub(crate) fn show(
        &self,
        entry: Option<Entry<Bytes>>,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let entry = entry.ok_or_else(|| not_found(&self.namespace, &self.key))?;
        if out.json() {
            let line = EntryLine::new(&self.namespace, &self.key);
            return out.object(&line.with_value(&entry.value).with_meta(&entry.meta));
        }
        if self.entry {
            return show_entry(&entry, out);
        }
        out.raw(&entry.value)?;
        if out.data_on_terminal() {
            out.raw(b"\n")?;
        }
        Ok(())
    }
}

fn show_entry(entry: &Entry<Bytes>, out: &mut Output) -> Result<(), Failure> {
    let meta = &entry.meta;
    let expires = meta.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    out.line(&format!("version     {}", meta.version))?;
    out.line(&format!("created_at  {}", meta.created_at))?;
    out.line(&format!("updated_at  {}", meta.updated_at))?;
    out.line(&format!("expires_at  {expires}"))?;
    if let Some(ttl) = meta.idle_ttl {
        out.line(&format!("idle_ttl    {}", exact_duration(ttl)))?;
    }
    out.line(&format!("bytes       {}", entry.value.len()))?;
    match std::str::from_utf8(&entry.value) {
        Ok(text) => out.line(&format!("value       {}", escape(text))),
        Err(_) => out.line(&format!("base64      {}", to_base64(&entry.value))),
    }
}
