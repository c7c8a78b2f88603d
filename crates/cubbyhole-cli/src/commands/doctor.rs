//! `doctor`: checks a store's health.

mod repair;

use clap::Args;
use cubbyhole::{Check, Diagnosis, StoreUrl, Verdict};
use serde::Serialize;

use crate::error::{EXIT_DEADLINE, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, EXIT_USAGE, Failure};
use crate::output::{Tone, count};
use crate::session::Session;
use crate::session::config_file::layers::EncryptionSettings;

const EXAMPLES: &str = "\
The store is checked even if it cannot be opened. The exit code is 0 without a problem (warnings are
allowed), 5 if the store is missing or open in another process, 2 if it is not a store, and 6 for
other problems. Without `--repair` nothing is written, and an embedded file may be read-only.

On Redis, a failover can lose the registration of a namespace but not its entries, and listings then
miss them. `--repair` registers it again. Eviction can remove the index of a namespace, or a part of
it, but not its values. If their metadata is left, `--repair` restores the index and keeps the
entries. Otherwise the values are orphaned: listings and `erase` may miss them. `--repair` lists
orphaned values, up to 1,000, with namespace, key, bytes and expiry. `--orphans register` turns them
into entries with a new version and the current time as `created_at`. `--orphans remove` removes
them. A repair reads every key; the store can be used at the same time.

With a profile that has the layer `encryption`, the command also checks that the keys can be read.

The time of an embedded file can be ahead of this machine's clock, because the clock was ahead once.
`--repair` sets it back. If that would revive expired entries, the command shows their number and
asks first. Other stores have nothing to repair.

Examples:
  cubbyhole doctor
  cubbyhole doctor --repair --store redis+cluster://10.0.0.1:7000
  cubbyhole doctor --repair --orphans remove --yes";

/// Check the health of a store, and repair it with --repair
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Repair the store before checking it
    #[arg(long)]
    repair: bool,
    /// How `--repair` treats orphaned values [default: list]
    #[arg(long, value_name = "ACTION", value_enum, requires = "repair")]
    orphans: Option<repair::OrphanChoice>,
    /// Do not ask before values are removed or expired entries are revived
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
            // A repair works below the layers.
            session.store.check_layers_writable()?;
            session.store.check_unscoped()?;
            orphans = repair::run(session, self.orphans.unwrap_or_default(), self.yes).await?;
        }
        let diagnosis = cubbyhole::diagnose(&session.ctx, &session.store.url).await;
        let mut diagnosis = diagnosis.map_err(|error| session.explain(error))?;
        let store_has_problem = diagnosis.verdict() == Verdict::Problem;
        if let Some(settings) = session.store.layers.encryption.clone() {
            check_encryption(&settings, session, &mut diagnosis).await?;
        }
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
                "{left}; repeat the command with `--orphans register` or `--orphans remove`"
            )));
        }
        if found == 0 {
            return Ok(());
        }
        if !store_has_problem {
            let found = count(found, "problem", "problems");
            return Err(Failure::Incomplete(format!("doctor found {found}")));
        }
        // The error of opening distinguishes a missing store from a damaged one.
        let opened = session.open_read_only().await.map(drop);
        let found = format!("doctor found {}", count(found, "problem", "problems"));
        Err(match opened {
            // The checks already show the error.
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

/// Checks the keys of the layer `encryption`, and the store of the tenants' keys if it is another one.
async fn check_encryption(
    settings: &EncryptionSettings,
    session: &Session,
    diagnosis: &mut Diagnosis,
) -> Result<(), Failure> {
    match settings.keys.read() {
        Ok(_) => diagnosis.ok("keys", "the keys of the layer `encryption` can be read"),
        Err(failure) => diagnosis.checks.push(Check {
            name: "keys".to_owned(),
            verdict: Verdict::Problem,
            finding: failure.message(),
            advice: Some(
                "no value is readable without the keys; restore them from a copy".to_owned(),
            ),
        }),
    }
    let Some(url) = settings.tenant_keys.as_ref().filter(|url| !session.store.is_at(url)) else {
        return Ok(());
    };
    let shown = StoreUrl::redact(url);
    let found = match cubbyhole::diagnose(&session.ctx, url).await {
        Ok(found) => found,
        // The command ends with the context.
        Err(error) if session.ctx.check().is_err() => return Err(error.into()),
        Err(error) => {
            diagnosis.checks.push(Check {
                name: "tenant keys".to_owned(),
                verdict: Verdict::Problem,
                finding: format!("{shown}: {}", error.message()),
                advice: Some(
                    "correct the key `tenant_keys` of the layer `encryption` in the profile"
                        .to_owned(),
                ),
            });
            return Ok(());
        }
    };
    if found.verdict() == Verdict::Ok {
        diagnosis.ok("tenant keys", format!("{shown} has no problem"));
    }
    for check in found.checks.into_iter().filter(|check| check.verdict != Verdict::Ok) {
        let finding = format!("{shown}: {}: {}", check.name, check.finding);
        diagnosis.checks.push(Check { name: "tenant keys".to_owned(), finding, ..check });
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
