//! `usage`: how much is stored under a prefix.

use clap::Args;
use cubbyhole::{NamespacePrefix, Usage as StoreUsage};
use serde::Serialize;

use crate::arguments::parse_prefix;
use crate::error::Failure;
use crate::output::{Output, human_bytes};
use crate::session::Session;

const EXAMPLES: &str = "\
Example:
  cubbyhole usage acme";

/// Count namespaces, live entries, bytes and expired entries under a prefix
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Usage {
    /// Which: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: NamespacePrefix,
}

#[derive(Serialize)]
struct UsageLine<'a> {
    prefix: &'a str,
    namespaces: u64,
    entries: u64,
    bytes: Option<u64>,
    expired: u64,
}

impl Usage {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open().await?;
        let usage = store.usage(&session.ctx, &self.prefix).await?;
        show(&self.prefix, &usage, &mut session.out)
    }
}

/// Writes a count; `erase --dry-run` shows the same.
pub(crate) fn show(
    prefix: &NamespacePrefix,
    usage: &StoreUsage,
    out: &mut Output,
) -> Result<(), Failure> {
    let StoreUsage { namespaces, entries, bytes, expired } = *usage;
    let prefix = prefix.as_str();
    if out.json() {
        return out.object(&UsageLine { prefix, namespaces, entries, bytes, expired });
    }
    let bytes = match bytes {
        Some(bytes) if bytes < 1024 => bytes.to_string(),
        Some(bytes) => format!("{bytes} ({})", human_bytes(bytes)),
        None => "unknown".to_owned(),
    };
    out.line(&format!("prefix      {prefix}"))?;
    out.line(&format!("namespaces  {namespaces}"))?;
    out.line(&format!("entries     {entries}"))?;
    out.line(&format!("bytes       {bytes}"))?;
    out.line(&format!("expired     {expired}"))
}
