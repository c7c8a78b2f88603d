//! `erase`: removes all entries under a prefix.

use clap::Args;
use cubbyhole::NamespacePrefix;

use super::removal::{Removal, RemovalOptions};
use crate::args::parse::parse_prefix;
use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
On a terminal the command shows what it would erase and asks; otherwise it needs --yes. Repeat an
interrupted erasure to continue it. The last line reports the removed entries, the time, and how
many entries are left. Concurrent writes can survive, so stop the writers first.

In a file, no byte of an erased entry is left when the command ends, because it rewrites the file.
docs/operations.md says when the bytes are gone on servers. Backups, lagging replicas and exports
are not erased. Neither are values on Redis whose index was evicted, and \"no entry is left there\"
does not count them; `cubbyhole doctor --repair --orphans list` finds them.

Examples:
  cubbyhole erase acme:agent-7 --dry-run
  cubbyhole erase acme --yes";

/// Remove all entries under a prefix: a conversation, an agent or a tenant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Erase {
    /// Prefix: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: NamespacePrefix,
    #[command(flatten)]
    options: RemovalOptions,
}

impl Erase {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        Removal::Namespaces(self.prefix).run(self.options, session).await
    }
}
