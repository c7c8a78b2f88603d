//! `evict`: sweeps expired entries out, once.

use clap::Args;
use serde::Serialize;

use crate::error::Failure;
use crate::output::count;
use crate::session::Session;

const EXAMPLES: &str = "\
Expired entries are invisible before too; this frees their space. Made for cron.

Example:
  cubbyhole evict";

/// Sweep expired entries out of the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Evict {}

#[derive(Serialize)]
struct Evicted {
    evicted: usize,
}

impl Evict {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open().await?;
        let evicted = store.evict_expired(&session.ctx).await?;
        if session.out.json() {
            session.out.object(&Evicted { evicted })?;
        }
        let swept = count(evicted as u64, "expired entry", "expired entries");
        session.out.note(&format!("swept {swept}"));
        Ok(())
    }
}
