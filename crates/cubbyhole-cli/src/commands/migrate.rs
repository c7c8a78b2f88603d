//! `migrate`: migrates the store to the current format.

use clap::Args;
use serde::Serialize;

use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
On PostgreSQL this also creates the schema and its roles. Connect as a role with CREATE privileges.
The application's role only needs the role <schema>_app.

Examples:
  cubbyhole migrate --store redb:state.redb
  cubbyhole migrate --store postgres://postgres@localhost/state";

/// Migrate the store to the current format
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Migrate {}

#[derive(Serialize)]
struct Migrated<'a> {
    done: &'a [String],
}

impl Migrate {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        // A migration works below the layers.
        session.store.check_layers_writable()?;
        session.store.check_unscoped()?;
        let done = cubbyhole::migrate(&session.ctx, &session.store.url).await;
        let done = done.map_err(|error| session.explain(error))?;
        if session.out.json() {
            return session.out.object(&Migrated { done: &done });
        }
        if done.is_empty() {
            session.out.note("the store is up to date");
        }
        for line in &done {
            session.out.line(line)?;
        }
        Ok(())
    }
}
