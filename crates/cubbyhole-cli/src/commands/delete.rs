//! `delete`: deletes one entry.

use clap::Args;
use cubbyhole::{Condition, Namespace, Version};
use serde::Serialize;

use super::common::not_found;
use crate::args::parse::{parse_key, parse_namespace, parse_version};
use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Example:
  cubbyhole delete acme:agent-7 greeting";

/// Delete an entry; the exit code is 1 if it does not exist
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// Key; write one that begins with `-` after `--`
    #[arg(value_parser = parse_key)]
    key: String,
    /// Delete only if the entry has this version
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    if_version: Option<Version>,
}

#[derive(Serialize)]
struct Deleted {
    deleted: bool,
}

impl Delete {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open().await?;
        let condition = self.if_version.map_or(Condition::Always, Condition::IfVersion);
        if !store.delete_entry(&session.ctx, &self.namespace, &self.key, condition).await? {
            return Err(not_found(&self.namespace, &self.key));
        }
        if session.out.json() {
            session.out.object(&Deleted { deleted: true })?;
        }
        Ok(())
    }
}
