//! Asking before entries are removed or revived.

use std::io::{self, IsTerminal};

use tokio::sync::oneshot;

use super::open::Session;
use crate::error::Failure;

/// Asks the person at the terminal whether to do it: `verb` and `what`, as in "erase" and "3 entries",
/// and "from" or "in" the store.
///
/// # Errors
/// Another answer than `yes`; where there is no terminal, that it needs `--yes`.
pub(crate) async fn confirm(
    session: &mut Session,
    verb: &str,
    what: &str,
    preposition: &str,
) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !session.out.messages_on_terminal() || session.out.json() {
        return Err(Failure::Usage(format!(
            "this would {verb} {what}; repeat it with --yes to do so"
        )));
    }
    let store = session.store.shown();
    session.out.ask(&format!("{verb} {what} {preposition} {store}? Type `yes` to do so: "))?;
    let (sender, answer) = oneshot::channel();
    // Of its own, so that Ctrl-C and a deadline end the wait.
    std::thread::spawn(move || {
        let mut line = String::new();
        drop(sender.send(io::stdin().read_line(&mut line).map(|_| line)));
    });
    match session.ctx.race(answer).await? {
        Ok(Ok(line)) if line.trim() == "yes" => Ok(()),
        Ok(Ok(_)) => Err(Failure::Usage(format!("nothing was {verb}d"))),
        Ok(Err(error)) => Err(Failure::io("the answer could not be read", error)),
        Err(_) => Err(cubbyhole::Error::internal("the thread that asks has ended").into()),
    }
}
