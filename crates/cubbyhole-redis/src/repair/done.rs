//! The count of a repair: findings, changes and the first failure.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use cubbyhole_core::{
    Error, ErrorKind, Namespace, OrphanAction, OrphanedValue, RepairReport, Result, Timestamp,
};

use crate::index::Compared;

/// What was found and done.
#[derive(Default)]
pub(super) struct Done {
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
    /// Hashes of the names of the values: a server may tell a key twice.
    pub(super) orphans_seen: HashSet<u64>,
}

/// What became of some keys of a namespace.
pub(super) struct Outcome {
    pub(super) ns: Namespace,
    pub(super) compared: Vec<(String, Compared)>,
}

/// What a namespace holds, and so whether it must be listed: one that has its marker and no entries
/// must be too, or the next put into it would not list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Holds {
    #[default]
    Nothing,
    NoEntries,
    Entries,
}

/// What became of a part of an index.
#[derive(Default)]
pub(super) struct PartOutcome {
    pub(super) expiries: u64,
    pub(super) without_value: u64,
    pub(super) unlisted: u64,
    pub(super) holds: Holds,
    pub(super) failure: Option<Error>,
}

impl Done {
    /// Takes note of what keeps one namespace from being repaired. What ends the whole repair goes to
    /// `ended`.
    pub(super) fn note<T>(&mut self, result: Result<T>, ended: &mut Result<()>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(error) if ends_repair(&error) => *ended = Err(error),
            Err(error) => drop(self.report.failure.get_or_insert(error)),
        }
        None
    }

    pub(super) fn count(&mut self, outcome: Outcome, limit: usize) {
        let Outcome { ns, compared } = outcome;
        for (key, compared) in compared {
            match compared {
                Compared::InLine => {}
                Compared::OtherExpiry => self.expiries += 1,
                Compared::WithoutValue => self.without_value += 1,
                Compared::Unlisted => self.unlisted += 1,
                Compared::NoString => drop(self.report.failure.get_or_insert_with(no_string)),
                Compared::Orphaned { bytes, expires } => {
                    self.count_orphan(&ns, key, bytes, expires, limit);
                }
            }
        }
    }

    pub(super) fn count_part(&mut self, part: PartOutcome) {
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
            // An instant past the year 9999, which only another program can have set, never comes.
            let expires_at = Some(expires).filter(|at| *at > 0);
            let expires_at = expires_at.and_then(|at| Timestamp::from_millis(at).ok());
            let namespace = ns.clone();
            orphans.listed.push(OrphanedValue { namespace, key, bytes, expires_at });
        }
        if !self.orphaned_namespaces.contains(ns) {
            self.orphaned_namespaces.insert(ns.clone());
        }
    }

    pub(super) fn report(self, ended: Option<Error>) -> RepairReport {
        let mut report = self.report;
        // What ended it counts before what it met on the way.
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

/// Whether nothing can be repaired after that: a namespace that is damaged is passed over, and an
/// outage or the end of the context is not.
pub(super) fn ends_repair(error: &Error) -> bool {
    use ErrorKind::{Cancelled, DeadlineExceeded, PermissionDenied, Unavailable};
    matches!(error.kind(), Cancelled | DeadlineExceeded | PermissionDenied | Unavailable)
}

pub(super) fn no_string() -> Error {
    Error::corrupt(
        "a key under the store's prefix is named like a value and is no string: another program \
         wrote it",
    )
}
