//! `namespaces`: lists the namespaces under a prefix.

use clap::Args;
use cubbyhole::{Backend, ExecutionContext, Namespace, NamespacePrefix};
use serde::Serialize;

use super::common::PAGE_NAMES;
use super::usage::{NamespaceUsage, count_one};
use crate::args::parse::parse_prefix;
use crate::error::Failure;
use crate::output::{Align, Table, human_bytes, terminal_width};
use crate::session::Session;

const EXAMPLES: &str = "\
A prefix matches whole segments: acme:a matches acme:a and acme:a:b, never acme:ab.

Examples:
  cubbyhole namespaces acme
  cubbyhole namespaces acme:agent-7 --long";

/// List the namespaces under a prefix that have at least one live entry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Namespaces {
    /// Prefix: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: NamespacePrefix,
    /// Show the number and bytes of live entries before each name (slow: reads every key)
    #[arg(long)]
    long: bool,
    /// Write raw names, each followed by NUL
    #[arg(short = '0', long = "null", conflicts_with_all = ["long", "json"])]
    null: bool,
}

#[derive(Serialize)]
struct NamespaceLine<'a> {
    namespace: &'a Namespace,
    #[serde(flatten)]
    counts: Option<NamespaceCounts>,
}

#[derive(Serialize)]
struct NamespaceCounts {
    entries: u64,
    bytes: Option<u64>,
}

impl NamespaceCounts {
    /// Counts one namespace. The usage that the store reports would include the namespaces below
    /// it.
    async fn of(
        store: &dyn Backend,
        ctx: &ExecutionContext,
        namespace: &Namespace,
    ) -> Result<Self, Failure> {
        let NamespaceUsage { entries, bytes, .. } = count_one(store, ctx, namespace, None).await?;
        Ok(Self { entries, bytes })
    }
}

impl Namespaces {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open_read_only().await?;
        let mut after: Option<Namespace> = None;
        let mut table = self.table(session);
        loop {
            let page = store
                .scan_namespaces(&session.ctx, &self.prefix, after.as_ref(), PAGE_NAMES)
                .await?;
            for namespace in &page.items {
                let counts = match self.long {
                    true => Some(NamespaceCounts::of(&*store, &session.ctx, namespace).await?),
                    false => None,
                };
                match (&mut table, &counts) {
                    (Some(table), Some(counts)) => table.push(row(namespace, counts)),
                    _ => self.show(namespace, counts, session)?,
                }
            }
            if let Some(table) = &mut table {
                for line in table.render(terminal_width()) {
                    session.out.line(&line)?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns a table for a terminal. Pipes get lines for programs.
    fn table(&self, session: &Session) -> Option<Table> {
        let wanted = self.long && session.out.data_on_terminal() && !session.out.json();
        wanted.then(|| {
            Table::new(&[
                ("ENTRIES", Align::Right),
                ("SIZE", Align::Right),
                ("NAMESPACE", Align::Left),
            ])
        })
    }

    fn show(
        &self,
        namespace: &Namespace,
        counts: Option<NamespaceCounts>,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let out = &mut session.out;
        if out.json() {
            return out.object(&NamespaceLine { namespace, counts });
        }
        if self.null {
            out.raw(namespace.as_str().as_bytes())?;
            return out.raw(b"\0");
        }
        match counts {
            None => out.line(namespace.as_str()),
            Some(NamespaceCounts { entries, bytes }) => {
                let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
                out.line(&format!("{entries:>8}  {bytes:>12}  {}", namespace.as_str()))
            }
        }
    }
}

fn row(namespace: &Namespace, counts: &NamespaceCounts) -> Vec<String> {
    let bytes = counts.bytes.map_or_else(|| "-".to_owned(), human_bytes);
    vec![counts.entries.to_string(), bytes, namespace.as_str().to_owned()]
}
