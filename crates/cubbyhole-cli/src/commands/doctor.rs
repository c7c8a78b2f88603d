//! `doctor`: looks the store over.

use clap::Args;
use cubbyhole::{Check, Diagnosis, Verdict};
use serde::Serialize;

use crate::error::{EXIT_OTHER, Failure};
use crate::output::count;
use crate::session::Session;

const EXAMPLES: &str = "\
Works also where the store cannot be opened. Exit code 5 or 6 if there is a problem.

Example:
  cubbyhole doctor";

/// Look the store over: what it holds, and what should be looked after
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {}

#[derive(Serialize)]
struct DiagnosisLine<'a> {
    verdict: Verdict,
    checks: &'a [Check],
}

impl Doctor {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
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
        if let Err(failure) = session.open().await
            && failure.exit_code(None) != EXIT_OTHER
        {
            return Err(failure);
        }
        Err(Failure::Incomplete(format!(
            "the store has {}; the advice above says what to do",
            count(found, "problem", "problems")
        )))
    }
}

fn show(diagnosis: &Diagnosis, session: &mut Session) -> Result<(), Failure> {
    let widest = diagnosis.checks.iter().map(|check| check.name.chars().count()).max();
    let width = widest.unwrap_or(0);
    for check in &diagnosis.checks {
        session
            .out
            .line(&format!("{:<7}  {:<width$}  {}", check.verdict, check.name, check.finding))?;
        if let Some(advice) = &check.advice {
            session.out.line(&format!("{:<7}  {:<width$}  -> {advice}", "", ""))?;
        }
    }
    Ok(())
}
