//! Asks for confirmation before entries are removed or revived.

use std::io::{self, IsTerminal};

use tokio::sync::oneshot;

use super::open::Session;
use crate::error::Failure;

/// Asks at the terminal whether to continue. The question is `verb`, `what`, `preposition` and the
/// store, as in "erase 3 entries from redb:a.redb".
///
/// # Errors
/// A usage error for any answer but `yes`, and one that names `--yes` if there is no terminal.
pub(crate) async fn confirm(
    session: &mut Session,
    verb: &str,
    what: &str,
    preposition: &str,
) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !session.out.messages_on_terminal() || session.out.json() {
        return Err(Failure::Usage(format!(
            "this would {verb} {what}; repeat the command with --yes to do it"
        )));
    }
    let store = session.store.shown();
    session.out.ask(&format!("{verb} {what} {preposition} {store}? Type `yes` to continue: "))?;
    let (sender, answer) = oneshot::channel();
    // A separate thread: Ctrl-C and the deadline end the wait, but not the read.
    std::thread::spawn(move || {
        let mut line = String::new();
        drop(sender.send(io::stdin().read_line(&mut line).map(|_| line)));
    });
    match session.ctx.race(answer).await? {
        Ok(Ok(line)) if line.trim() == "yes" => Ok(()),
        Ok(Ok(_)) => Err(Failure::Usage(match verb.strip_suffix('e') {
            Some(stem) => format!("nothing was {stem}ed"),
            None => format!("nothing was {verb}ed"),
        })),
        Ok(Err(error)) => Err(Failure::io("cannot read the answer", error)),
        Err(_) => {
            Err(cubbyhole::Error::internal("the thread that reads the answer has ended").into())
        }
    }
}
