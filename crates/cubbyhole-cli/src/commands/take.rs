//! `take`: shows one entry and removes it in the same step.

use clap::Args;

use super::get::EntryArguments;
use crate::error::Failure;
use crate::output::{count, escape};
use crate::session::Session;

const EXAMPLES: &str = "\
Example:
  cubbyhole take acme:queue job-1      (of several that take it at once, one gets it)";

/// Get an entry and delete it, in one atomic step
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Take {
    #[command(flatten)]
    arguments: EntryArguments,
}

impl Take {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        session.out.check_data_can_be_written()?;
        let store = session.open().await?;
        let EntryArguments { namespace, key, .. } = &self.arguments;
        let entry = store.take(&session.ctx, namespace, key).await?;
        let bytes = entry.as_ref().map(|entry| entry.value.len() as u64);
        // Flushed here: from now on the entry is nowhere else.
        let shown = self.arguments.show(entry, &mut session.out).and_then(|()| session.out.flush());
        match (shown, bytes) {
            (Err(failure), Some(bytes)) => Err(lost(failure, &self.arguments, bytes)),
            (shown, _) => shown,
        }
    }
}

/// The value could not be handed over, and the entry is gone; that is news also to a closed pipe.
fn lost(failure: Failure, arguments: &EntryArguments, bytes: u64) -> Failure {
    let what = format!(
        "`{}` in {} was taken, which deleted it, and its value of {} was not written in full",
        escape(&arguments.key),
        escape(arguments.namespace.as_str()),
        count(bytes, "byte", "bytes"),
    );
    let error = match failure {
        Failure::Io { error, .. } => error,
        _ => std::io::Error::from(std::io::ErrorKind::BrokenPipe),
    };
    Failure::io(what, error)
}
