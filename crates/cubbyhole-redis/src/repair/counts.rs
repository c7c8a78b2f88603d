//! The counts of a repair, and its first failure.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use cubbyhole_core::{
    Error, ErrorKind, Namespace, OrphanAction, OrphanedValue, RepairReport, Result, Timestamp,
};

use super::part_findings::PartFindings;
use super::value_findings::ValueFindings;
use crate::index::IndexFinding;

/// The counts of a repair, and its first failure.
#[derive(Default)]
pub(super) struct RepairCounts {
    pub(super) tenants: u64,
    pub(super) namespaces: u64,
    pub(super) namespaces_without_entries: u64,
    pub(super) markers: u64,
    pub(super) expiries: u64,
    pub(super) without_value: u64,
    pub(super) unlisted: u64,
    pub(super) action: OrphanAction,
    pub(super) report: RepairReport,
    pub(super) orphaned_namespaces: HashSet<Namespace>,
    /// Hashes of the keys of orphaned values, because `SCAN` may return a key twice.
    pub(super) orphans_seen: HashSet<u64>,
}

impl RepairCounts {
    /// Records a failure and returns `None`. An error that ends the whole repair is stored in
    /// `ended`.
    pub(super) fn note<T>(&mut self, result: Result<T>, ended: &mut Result<()>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(error) if ends_repair(&error) => *ended = Err(error),
            Err(error) => drop(self.report.failure.get_or_insert(error)),
        }
        None
    }

    /// Counts the findings for some values, and lists at most `limit` orphaned values in total.
    pub(super) fn count(&mut self, found: ValueFindings, limit: usize) {
        let ValueFindings { ns, findings } = found;
        for (key, finding) in findings {
            match finding {
                IndexFinding::Consistent => {}
                IndexFinding::WrongExpiry => self.expiries += 1,
                IndexFinding::MissingValue => self.without_value += 1,
                IndexFinding::Unlisted => self.unlisted += 1,
                IndexFinding::NotAString => {
                    self.report.failure.get_or_insert_with(not_a_string);
                }
                IndexFinding::Orphaned { bytes, expires } => {
                    self.count_orphan(&ns, key, bytes, expires, limit);
                }
            }
        }
    }

    pub(super) fn count_part(&mut self, part: PartFindings) {
        self.expiries += part.expiries;
        self.without_value += part.without_value;
        self.unlisted += part.unlisted;
        if let Some(failure) = part.failure {
            self.report.failure.get_or_insert(failure);
        }
    }

    pub(super) fn count_orphan(
        &mut self,
        ns: &Namespace,
        key: String,
        bytes: u64,
        expires: u64,
        limit: usize,
    ) {
        let mut hasher = DefaultHasher::new();
        (ns.as_str(), &key).hash(&mut hasher);
        if self.action == OrphanAction::List && !self.orphans_seen.insert(hasher.finish()) {
            return;
        }
        let orphans = &mut self.report.orphans;
        orphans.values += 1;
        orphans.bytes += bytes;
        if orphans.listed.len() < limit {
            // An expiry past the year 9999, set by another program, counts as never.
            let expires_at = Some(expires).filter(|at| *at > 0);
            let expires_at = expires_at.and_then(|at| Timestamp::from_millis(at).ok());
            let namespace = ns.clone();
            orphans.listed.push(OrphanedValue { namespace, key, bytes, expires_at });
        }
        if !self.orphaned_namespaces.contains(ns) {
            self.orphaned_namespaces.insert(ns.clone());
        }
    }

    /// Returns the report of a repair that `ended`, if at all, with an error.
    pub(super) fn report(self, ended: Option<Error>) -> RepairReport {
        let mut report = self.report;
        // The error that ended the repair takes precedence over earlier failures.
        report.failure = ended.or(report.failure);
        report.orphans.namespaces = self.orphaned_namespaces.len() as u64;
        report.orphans.listed.sort();
        let (registered, removed) = match self.action {
            OrphanAction::List => (0, 0),
            OrphanAction::Register => (report.orphans.values, 0),
            OrphanAction::Remove => (0, report.orphans.values),
        };
        let lines = [
            (self.tenants, "tenants that hold entries were listed again"),
            (self.namespaces, "namespaces that hold entries were listed again"),
            (self.namespaces_without_entries, "namespaces without entries were listed again"),
            (self.markers, "namespaces were marked as registered again"),
            (self.without_value, "index entries whose value is gone were removed"),
            (self.unlisted, "entries were restored in the index"),
            (self.expiries, "expiries were restored in the index"),
            (registered, "orphaned values were registered"),
            (removed, "orphaned values were removed"),
        ];
        let done = lines.into_iter().filter(|(count, _)| *count > 0);
        report.repaired = done.map(|(count, what)| format!("{count} {what}")).collect();
        report
    }
}

/// Returns whether an error ends the repair: an outage or the end of the context does, a damaged
/// namespace does not.
pub(super) fn ends_repair(error: &Error) -> bool {
    use ErrorKind::{Cancelled, DeadlineExceeded, PermissionDenied, Unavailable};
    matches!(error.kind(), Cancelled | DeadlineExceeded | PermissionDenied | Unavailable)
}

pub(super) fn not_a_string() -> Error {
    Error::corrupt(
        "a key under the store's prefix has the name of a value but is not a string: another \
         program wrote it",
    )
}
