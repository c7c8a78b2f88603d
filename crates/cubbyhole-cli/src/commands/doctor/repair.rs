//! `doctor --repair`: repairs indexes, and lists, registers or removes orphaned values.

use clap::ValueEnum;
use cubbyhole::{
    Namespace, OrphanAction, OrphanedValue, Orphans, RepairOptions, RepairReport, Timestamp,
};
use serde::Serialize;

use crate::confirm::confirm;
use crate::error::Failure;
use crate::output::{count, human_bytes};
use crate::session::Session;

/// What happens to orphaned values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Action {
    /// List them and leave them as they are
    #[default]
    List,
    /// Add them to the index again, as new entries
    Register,
    /// Remove them; asks first
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

/// Repairs, and answers how many orphaned values are left.
pub(super) async fn run(session: &mut Session, action: Action, yes: bool) -> Result<u64, Failure> {
    match action {
        Action::List => repair(session, OrphanAction::List).await.map(|orphans| orphans.values),
        Action::Register => repair(session, OrphanAction::Register).await.map(|_| 0),
        Action::Remove if yes => repair(session, OrphanAction::Remove).await.map(|_| 0),
        Action::Remove => {
            let found = repair(session, OrphanAction::List).await?;
            if found.values > 0 {
                confirm(session, "remove", &describe(&found)).await?;
                repair(session, OrphanAction::Remove).await?;
            }
            Ok(0)
        }
    }
}

async fn repair(session: &mut Session, action: OrphanAction) -> Result<Orphans, Failure> {
    let options = RepairOptions::new().with_orphans(action);
    let repaired = cubbyhole::repair_with_options(&session.ctx, &session.store.url, &options).await;
    let report = repaired.map_err(|error| session.explain(error))?;
    // An incomplete repair reports the work it did, too.
    show(&report, action, session)?;
    match report.failure {
        Some(error) => Err(session.explain(error)),
        None => Ok(report.orphans),
    }
}

fn show(report: &RepairReport, action: OrphanAction, session: &mut Session) -> Result<(), Failure> {
    let RepairReport { repaired, orphans, failure } = report;
    let is_found = orphans.values > 0;
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

impl<'a> OrphanLine<'a> {
    fn new(orphan: &'a OrphanedValue) -> Self {
        let OrphanedValue { namespace, key, bytes, expires_at } = orphan;
        Self { namespace, key, bytes: *bytes, expires_at: *expires_at }
    }
}
