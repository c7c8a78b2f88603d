//! `doctor`: looks the store over.

mod repair;

use clap::Args;
use cubbyhole::{Check, Diagnosis, Verdict};
use serde::Serialize;

use crate::error::{EXIT_DEADLINE, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, EXIT_USAGE, Failure};
use crate::output::{Tone, count};
use crate::session::Session;

const EXAMPLES: &str = "\
Works also where the store cannot be opened. If there is a problem the exit code is 5 (there is no
store, or another process has it open), 2 (that is not a store) or 6 (anything else); what is only a
warning is code 0. Without `--repair` nothing is written: an embedded file may be read-only.

On Redis, a failover can lose the registration of a namespace and not its entries: no listing shows them.
`--repair` lists them again. Eviction can take the index of a namespace, or a part of it, and leave its
values. If their meta data is left, `--repair` restores the index and keeps the entries. Otherwise the values
are orphaned: listings and `erase` may miss them. `--repair` lists orphaned values, up to 1,000: namespace,
key, bytes, expiry. `--orphans register` makes entries of them again, with a new version and the present as
`created_at`, `--orphans remove` removes them. It looks at every key, and others may go on meanwhile.

An embedded file's time can be ahead of this machine's clock, because that was ahead once. `--repair` sets it
back. It first says how many expired entries that revives, and asks if there are any. Other stores have
nothing to repair.

Examples:
  cubbyhole doctor
  cubbyhole doctor --repair --store redis+cluster://10.0.0.1:7000
  cubbyhole doctor --repair --orphans remove --yes";

/// Look the store over: what it holds, and what should be looked after
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Repair what can be repaired first
    #[arg(long)]
    repair: bool,
    /// What `--repair` does with orphaned values [default: list]
    #[arg(long, value_name = "ACTION", value_enum, requires = "repair")]
    orphans: Option<repair::OrphanChoice>,
    /// Do not ask before values are removed or expired entries revived
    #[arg(long, requires = "repair")]
    yes: bool,
}

#[derive(Serialize)]
struct DiagnosisLine<'a> {
    verdict: Verdict,
    checks: &'a [Check],
}

impl Doctor {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut orphans = 0;
        if self.repair {
            orphans = repair::run(session, self.orphans.unwrap_or_default(), self.yes).await?;
        }
        let diagnosis = cubbyhole::diagnose(&session.ctx, &session.store.url).await;
        let diagnosis = diagnosis.map_err(|error| session.explain(error))?;
        if session.out.json() {
            let (verdict, checks) = (diagnosis.verdict(), &diagnosis.checks);
            session.out.object(&DiagnosisLine { verdict, checks })?;
        } else {
            show(&diagnosis, session)?;
        }
        let problems = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Problem);
        let found = problems.count() as u64;
        if found == 0 && orphans > 0 {
            let left = count(orphans, "orphaned value is left", "orphaned values are left");
            return Err(Failure::Incomplete(format!(
                "{left}; repeat it with `--orphans register` or `--orphans remove`"
            )));
        }
        if found == 0 {
            return Ok(());
        }
        // A store that is not there is told from one that is ill by what opening it answers.
        let opened = session.open_read_only().await.map(drop);
        let found = format!("doctor found {}", count(found, "problem", "problems"));
        Err(match opened {
            // What it is stands in the checks already.
            Err(failure) => match failure.exit_code(None) {
                EXIT_UNAVAILABLE => cubbyhole::Error::unavailable(found).into(),
                EXIT_USAGE => Failure::Usage(found),
                EXIT_DEADLINE | EXIT_INTERRUPTED => failure,
                _ => Failure::Incomplete(found),
            },
            Ok(()) => Failure::Incomplete(found),
        })
    }
}

fn show(diagnosis: &Diagnosis, session: &mut Session) -> Result<(), Failure> {
    let widest = diagnosis.checks.iter().map(|check| check.name.chars().count()).max();
    let width = widest.unwrap_or(0);
    for check in &diagnosis.checks {
        let tone = match check.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Warning => Tone::Warning,
            Verdict::Problem => Tone::Problem,
        };
        let verdict = format!("{:<7}", check.verdict);
        let rest = format!("  {:<width$}  {}", check.name, check.finding);
        session.out.toned_line(&verdict, tone, &rest)?;
        if let Some(advice) = &check.advice {
            session.out.line(&format!("{:<7}  {:<width$}  -> {advice}", "", ""))?;
        }
    }
    Ok(())
}
