//! `doctor --repair`: repairs indexes, handles orphaned values, and sets back the time of a store.

use clap::ValueEnum;
use cubbyhole::{
    ClockAction, ClockAhead, Namespace, OrphanAction, OrphanedValue, Orphans, RepairOptions,
    RepairReport, Timestamp,
};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{count, human_bytes};
use crate::session::{Session, confirm};

/// The treatment of orphaned values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum OrphanChoice {
    /// List them
    #[default]
    List,
    /// Add them to the index as new entries
    Register,
    /// Remove them, after a confirmation
    Remove,
}

#[derive(Serialize)]
struct RepairLine<'a> {
    repaired: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    orphans: Option<OrphansLine<'a>>,
}

#[derive(Serialize)]
struct OrphansLine<'a> {
    action: OrphanAction,
    values: u64,
    namespaces: u64,
    bytes: u64,
    /// At most [`RepairOptions::DEFAULT_LISTED_ORPHANS`].
    listed: Vec<OrphanLine<'a>>,
}

#[derive(Serialize)]
struct OrphanLine<'a> {
    namespace: &'a Namespace,
    key: &'a str,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// Repairs the store, and returns the number of orphaned values that are left. Unless `yes` is set,
/// asks before values are removed or entries are revived.
pub(super) async fn run(
    session: &mut Session,
    action: OrphanChoice,
    yes: bool,
) -> Result<u64, Failure> {
    let asked = match action {
        OrphanChoice::List => OrphanAction::List,
        OrphanChoice::Register => OrphanAction::Register,
        OrphanChoice::Remove => OrphanAction::Remove,
    };
    let asks_for_orphans = asked == OrphanAction::Remove && !yes;
    let first = RepairOptions::new()
        .with_orphans(if asks_for_orphans { OrphanAction::List } else { asked })
        .with_clock(if yes { ClockAction::SetBack } else { ClockAction::Report });
    let found = repair(session, &first).await?;
    if asks_for_orphans && found.orphans.values > 0 {
        confirm(session, "remove", &describe(&found.orphans), "from").await?;
        repair(session, &RepairOptions::new().with_orphans(OrphanAction::Remove)).await?;
    }
    if let Some(ahead) = found.clock_ahead.filter(|_| !yes) {
        if ahead.revived > 0 {
            confirm(session, "revive", &describe_revived(&ahead), "in").await?;
        }
        repair(session, &RepairOptions::new()).await?;
    }
    Ok(if asked == OrphanAction::List { found.orphans.values } else { 0 })
}

async fn repair(session: &mut Session, options: &RepairOptions) -> Result<RepairReport, Failure> {
    let repaired = cubbyhole::repair_with_options(&session.ctx, &session.store.url, options).await;
    let mut report = repaired.map_err(|error| session.explain(error))?;
    // An incomplete repair also reports what it repaired.
    show(&report, options, session)?;
    match report.failure.take() {
        Some(error) => Err(session.explain(error)),
        None => Ok(report),
    }
}

fn show(
    report: &RepairReport,
    options: &RepairOptions,
    session: &mut Session,
) -> Result<(), Failure> {
    let RepairReport { repaired, orphans, clock_ahead, failure } = report;
    let action = options.orphans();
    let is_found = orphans.values > 0;
    let is_first_look = clock_ahead.is_some() && options.clock() == ClockAction::Report;
    if is_first_look {
        // Only the following repair is shown.
        return Ok(());
    }
    if session.out.json() {
        let orphans = is_found.then(|| OrphansLine {
            action,
            values: orphans.values,
            namespaces: orphans.namespaces,
            bytes: orphans.bytes,
            listed: orphans.listed.iter().map(OrphanLine::new).collect(),
        });
        return session.out.object(&RepairLine { repaired, orphans });
    }
    for line in repaired {
        session.out.line(&format!("repaired {line}"))?;
    }
    if action == OrphanAction::List && is_found {
        for orphan in &orphans.listed {
            let expires = orphan.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            let OrphanedValue { namespace, key, bytes, .. } = orphan;
            let fields = [
                "orphaned".to_owned(),
                namespace.to_string(),
                key.clone(),
                bytes.to_string(),
                expires,
            ];
            session.out.fields(&fields)?;
        }
        let listed = orphans.listed.len() as u64;
        let rest = if listed < orphans.values {
            format!("; the first {listed} found are listed")
        } else {
            String::new()
        };
        session.out.note(&format!("{}{rest}", describe(orphans)));
    }
    if repaired.is_empty() && !is_found && failure.is_none() {
        session.out.note("there was nothing to repair");
    }
    Ok(())
}

fn describe(orphans: &Orphans) -> String {
    format!(
        "{} ({}) in {}",
        count(orphans.values, "orphaned value", "orphaned values"),
        human_bytes(orphans.bytes),
        count(orphans.namespaces, "namespace", "namespaces")
    )
}

fn describe_revived(ahead: &ClockAhead) -> String {
    format!(
        "{} in {} (the store's time is {}, and this machine's clock shows {})",
        count(ahead.revived, "expired entry", "expired entries"),
        count(ahead.revived_namespaces, "namespace", "namespaces"),
        ahead.store_time,
        ahead.clock
    )
}

impl<'a> OrphanLine<'a> {
    fn new(orphan: &'a OrphanedValue) -> Self {
        let OrphanedValue { namespace, key, bytes, expires_at } = orphan;
        Self { namespace, key, bytes: *bytes, expires_at: *expires_at }
    }
}
