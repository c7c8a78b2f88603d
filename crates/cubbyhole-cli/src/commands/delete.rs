//! `delete`: deletes one entry, or the entries whose keys begin with a prefix.

use clap::Args;
use cubbyhole::{Condition, Namespace, Version};
use serde::Serialize;

use super::common::not_found;
use super::removal::{Removal, RemovalOptions};
use crate::args::parse::{parse_key, parse_namespace, parse_version};
use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
With --prefix, the command shows on a terminal what it would delete and asks; otherwise it needs
--yes. Repeat an interrupted deletion to continue it. Namespaces below NAMESPACE keep their entries;
`cubbyhole erase` deletes these too.

Examples:
  cubbyhole delete acme:agent-7 greeting
  cubbyhole delete acme:agent-7 --prefix draft- --dry-run
  cubbyhole delete acme:agent-7 --prefix draft- --yes";

/// Delete an entry (exit code 1 if it does not exist), or all entries with a key prefix
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// Key; write one that begins with `-` after `--`
    #[arg(value_parser = parse_key, required_unless_present = "prefix")]
    #[arg(conflicts_with_all = ["prefix", "yes", "dry_run"])]
    key: Option<String>,
    /// Delete all entries of the namespace whose keys begin with this text; no character is special
    #[arg(long, value_name = "TEXT", value_parser = parse_key, allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["if_present", "if_version"])]
    prefix: Option<String>,
    /// Fail with exit code 3, not 1, if the entry does not exist
    #[arg(long, conflicts_with = "if_version")]
    if_present: bool,
    /// Delete only if the entry has this version
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    if_version: Option<Version>,
    #[command(flatten)]
    options: RemovalOptions,
}

#[derive(Serialize)]
struct Deleted {
    deleted: bool,
}

impl Delete {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let namespace = self.namespace;
        let key = match (self.key, self.prefix) {
            (None, prefix) => {
                let prefix = prefix.unwrap_or_default();
                return Removal::Keys { namespace, prefix }.run(self.options, session).await;
            }
            (Some(key), _) => key,
        };
        let condition = match self.if_version {
            Some(version) => Condition::IfVersion(version),
            None if self.if_present => Condition::IfPresent,
            None => Condition::Always,
        };
        let store = session.open().await?;
        if !store.delete_entry(&session.ctx, &namespace, &key, condition).await? {
            return Err(not_found(&namespace, &key));
        }
        if session.out.json() {
            session.out.object(&Deleted { deleted: true })?;
        }
        Ok(())
    }
}
