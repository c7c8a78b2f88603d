//! `compact`: returns free space to the operating system.

use clap::Args;

use crate::error::Failure;
use crate::output::human_bytes;
use crate::session::Session;

const EXAMPLES: &str = "\
A compacted file holds no byte of a deleted or overwritten entry. Compaction rewrites the entries
and temporarily needs free disk space of about their size.

Example:
  cubbyhole evict && cubbyhole compact";

/// Return unused space to the operating system
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compact {}

impl Compact {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        session.store.check_unscoped()?;
        let store = session.open().await?;
        let compaction = store.compact(&session.ctx).await?;
        if session.out.json() {
            session.out.object(&compaction)?;
        }
        let note = match (compaction.bytes_before, compaction.bytes_after) {
            (Some(before), Some(after)) => {
                format!("compacted from {} to {}", human_bytes(before), human_bytes(after))
            }
            _ => "compacted; this backend does not report its size".to_owned(),
        };
        session.out.note(&note);
        Ok(())
    }
}
