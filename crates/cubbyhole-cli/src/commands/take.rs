//! `take`: shows one entry and removes it in the same step.

use clap::Args;

use super::get::Which;
use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Example:
  cubbyhole take acme:queue job-1      (of several that take it at once, one gets it)";

/// Get an entry and delete it, in one atomic step
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Take {
    #[command(flatten)]
    which: Which,
}

impl Take {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open().await?;
        let Which { namespace, key, .. } = &self.which;
        let entry = store.take(&session.ctx, namespace, key).await?;
        self.which.show(entry, &mut session.out)
    }
}
