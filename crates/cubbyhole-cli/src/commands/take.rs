//! `take`: prints one entry and deletes it atomically.

use clap::Args;

use super::get::EntryArguments;
use crate::error::Failure;
use crate::output::{count, escape};
use crate::session::Session;

const EXAMPLES: &str = "\
Example:
  cubbyhole take acme:queue job-1      # of several concurrent callers, one gets the entry";

/// Get and delete an entry atomically
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
        // Flush now, because the entry no longer exists in the store.
        let shown = self.arguments.show(entry, &mut session.out).and_then(|()| session.out.flush());
        match (shown, bytes) {
            (Err(failure), Some(bytes)) => Err(value_lost(failure, &self.arguments, bytes)),
            (shown, _) => shown,
        }
    }
}

/// Returns the failure of writing the value of a deleted entry. A closed pipe is reported too.
fn value_lost(failure: Failure, arguments: &EntryArguments, bytes: u64) -> Failure {
    let what = format!(
        "`{}` in {} was taken, which deleted it, but its value of {} was not fully written",
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
