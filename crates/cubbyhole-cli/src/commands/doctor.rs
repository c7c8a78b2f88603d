//! `doctor`: looks the store over.

use clap::Args;
use cubbyhole::{Check, Diagnosis, Verdict};
use serde::Serialize;

use crate::error::{EXIT_DEADLINE, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, EXIT_USAGE, Failure};
use crate::output::count;
use crate::session::Session;
use crate::style::Tone;

const EXAMPLES: &str = "\
Works also where the store cannot be opened. If there is a problem the exit code is 5 (there is no
store, or another process has it open), 2 (that is not a store) or 6 (anything else); what is only a
warning is code 0. Without `--repair` nothing is written: an embedded file may be read-only.

A failover of Redis can lose the registration of a namespace and not its entries: they are then in no
listing. `--repair` lists them again; it looks at every key, and others may go on meanwhile. A file
whose time is ahead of this machine's clock, because that was ahead once: `--repair` sets it back, and
says what that revives. Other stores have nothing to repair.

Examples:
  cubbyhole doctor
  cubbyhole doctor --repair --store redis+cluster://10.0.0.1:7000";

/// Look the store over: what it holds, and what should be looked after
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Repair what can be repaired first
    #[arg(long)]
    repair: bool,
}

#[derive(Serialize)]
struct RepairLine<'a> {
    repaired: &'a [String],
}

#[derive(Serialize)]
struct DiagnosisLine<'a> {
    verdict: Verdict,
    checks: &'a [Check],
}

impl Doctor {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        if self.repair {
            repair(session).await?;
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

async fn repair(session: &mut Session) -> Result<(), Failure> {
    let repaired = cubbyhole::repair(&session.ctx, &session.store.url).await;
    let repaired = repaired.map_err(|error| session.explain(error))?;
    if session.out.json() {
        return session.out.object(&RepairLine { repaired: &repaired });
    }
    for line in &repaired {
        session.out.line(&format!("repaired {line}"))?;
    }
    if repaired.is_empty() {
        session.out.note("there was nothing to repair");
    }
    Ok(())
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
