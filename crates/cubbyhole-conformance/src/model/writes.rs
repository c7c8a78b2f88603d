//! Operations that write entries of one namespace.

use cubbyhole_core::{Batch, Condition, Operation as Write, PutOptions, Version, Written};

use super::condition::{check_conditional, holds};
use super::operation::{Change, KEYS, Lifetime, Location, WriteCondition};
use super::play::{Player, key};
use super::state::ModelExpiry;
use crate::Sample;
use crate::outcome::{Outcome, Stop, check, check_eq};
use crate::world::is_conflict;

/// One write of a batch, in terms of the model.
struct PlannedWrite {
    at: Location,
    /// The number of the value and its expiry, or `None` to delete the entry.
    put: Option<(u64, ModelExpiry)>,
    condition: Condition,
}

impl<V: Sample> Player<'_, V> {
    pub(super) async fn put(&mut self, at: Location, number: u64, lifetime: Lifetime) -> Outcome {
        // Not every `put_with_options` accepts an instant or an idle TTL.
        let only_ttl = !self.w.can().all_put_options;
        let lifetime = match self.playable(lifetime) {
            Lifetime::Expired => Lifetime::Unlimited,
            Lifetime::Idle(millis) | Lifetime::IdleUntil(millis, _) if only_ttl => {
                Lifetime::Millis(millis)
            }
            lifetime => lifetime,
        };
        let (expiry, expires) = self.expiry(lifetime)?;
        let options = PutOptions::new().with_expiry(expiry);
        let before = self.model.live(at).map(|live| live.version);
        let (w, ns, value) = (self.w, self.ns(at), V::sample(number));
        w.store().put_with_options(w.ctx(), ns, key(at), value, options).await?;
        // `put_with_options` does not return the version, so the model reads it.
        let entry = w.live(ns, key(at)).await?;
        check!(
            Some(entry.meta.version) != before,
            "put at {at:?} must draw a new version, but the version is unchanged"
        );
        self.model.put(at, number, entry.meta.version, expires);
        self.compare(at, Some(entry), "put")
    }

    pub(super) async fn put_entry(
        &mut self,
        at: Location,
        number: u64,
        lifetime: Lifetime,
        condition: WriteCondition,
    ) -> Outcome {
        let (expiry, expires) = self.expiry(self.playable(lifetime))?;
        let condition = self.condition(at, condition);
        let options = PutOptions::new().with_expiry(expiry);
        let written = self.w.put_entry(self.ns(at), key(at), number, options, condition).await;
        let current = self.current(at);
        if let Some(version) = check_conditional(written, condition, current, "put_entry")? {
            self.model.put(at, number, version, expires);
        }
        Ok(())
    }

    pub(super) async fn delete_entry(
        &mut self,
        at: Location,
        condition: WriteCondition,
    ) -> Outcome {
        let condition = self.condition(at, condition);
        let (w, ns) = (self.w, self.ns(at));
        let deleted = w.store().delete_entry(w.ctx(), ns, key(at), condition).await;
        let current = self.current(at);
        if let Some(found) = check_conditional(deleted, condition, current, "delete_entry")? {
            check_eq!(found, current.is_some(), "whether delete_entry found an entry at {at:?}");
            self.model.remove(at);
        }
        Ok(())
    }

    pub(super) async fn take(&mut self, at: Location) -> Outcome {
        let (w, ns) = (self.w, self.ns(at));
        let taken = w.store().take(w.ctx(), ns, key(at)).await?;
        self.compare(at, taken, "take")?;
        self.model.remove(at);
        Ok(())
    }

    pub(super) async fn touch(
        &mut self,
        at: Location,
        lifetime: Lifetime,
        condition: WriteCondition,
    ) -> Outcome {
        let (expiry, expires) = self.expiry(self.playable(lifetime))?;
        let condition = self.condition(at, condition);
        let (w, ns) = (self.w, self.ns(at));
        let touched = w.store().touch(w.ctx(), ns, key(at), expiry, condition).await;
        let current = self.current(at);
        if let Some(found) = check_conditional(touched, condition, current, "touch")? {
            check_eq!(found, current.is_some(), "whether touch found an entry at {at:?}");
            if found {
                self.model.set_expiry(at, expires);
            }
        }
        Ok(())
    }

    pub(super) async fn write(&mut self, ns: usize, changes: &[Change]) -> Outcome {
        let (batch, plan) = self.plan(ns, changes)?;
        let w = self.w;
        let written = w.store().write(w.ctx(), &self.namespaces[ns], batch).await;
        let mut conflict = None;
        for (index, planned) in plan.iter().enumerate() {
            let current = self.current(planned.at);
            if !holds(planned.condition, current) && conflict.is_none() {
                conflict = Some((index, current));
            }
        }
        let written = match (written, conflict) {
            (Err(error), Some(expected)) if is_conflict(&error) => {
                let reported = (error.batch_index(), error.current_version());
                let expected = (Some(expected.0), expected.1);
                check_eq!(reported, expected, "index and current version in a conflict of write");
                return Ok(());
            }
            (written, conflict) => {
                let written = written?;
                check!(
                    conflict.is_none(),
                    "write succeeds, but a condition does not hold (index, version): {conflict:?}"
                );
                written
            }
        };
        check_eq!(written.len(), plan.len(), "the number of results that write returns");
        for (planned, written) in plan.into_iter().zip(written) {
            let was_live = self.current(planned.at).is_some();
            match (planned.put, written) {
                (Some((number, expires)), Written::Put(version)) => {
                    self.model.put(planned.at, number, version, expires);
                }
                (None, Written::Deleted(found)) => {
                    let at = planned.at;
                    check_eq!(found, was_live, "whether write found an entry to delete at {at:?}");
                    self.model.remove(at);
                }
                (put, written) => {
                    let message = format!("write returns {written:?} for the operation {put:?}");
                    return Err(Stop::failed(message));
                }
            }
        }
        Ok(())
    }

    /// Returns the changes as a batch and in terms of the model. Only the first change of each key
    /// counts.
    fn plan(&mut self, ns: usize, changes: &[Change]) -> Outcome<(Batch<V>, Vec<PlannedWrite>)> {
        let mut batch = Batch::new();
        let mut plan: Vec<PlannedWrite> = Vec::new();
        for change in changes {
            let at = Location { namespace: ns, key: change.key };
            if plan.iter().any(|planned| planned.at == at) {
                continue;
            }
            let condition = self.condition(at, change.condition);
            let key = key(at).to_owned();
            let put = match change.put {
                Some((number, lifetime)) => Some((number, self.expiry(self.playable(lifetime))?)),
                None => None,
            };
            batch.push(match put {
                Some((number, (expiry, _))) => {
                    let options = PutOptions::new().with_expiry(expiry);
                    Write::Put { key, value: V::sample(number), options, condition }
                }
                None => Write::Delete { key, condition },
            });
            let put = put.map(|(number, (_, expires))| (number, expires));
            plan.push(PlannedWrite { at, put, condition });
        }
        Ok((batch, plan))
    }

    /// Deletes the keys of a prefix in steps, until nothing is left.
    pub(super) async fn delete_prefix(
        &mut self,
        ns: usize,
        prefix: Option<usize>,
        limit: usize,
    ) -> Outcome {
        let prefix = prefix.map_or("", |key| KEYS[key]);
        let live = self.model.keys(ns).into_iter().filter(|(key, _)| key.starts_with(prefix));
        let expected = live.count() as u64;
        let (w, mut removed) = (self.w, 0);
        loop {
            let namespace = &self.namespaces[ns];
            let step = w.store().delete_prefix(w.ctx(), namespace, prefix, limit).await?;
            check!(
                step.removed <= limit as u64,
                "a step of delete_prefix with limit {limit} removes {} entries",
                step.removed
            );
            removed += step.removed;
            if step.done {
                break;
            }
        }
        check_eq!(removed, expected, "the entries that delete_prefix removes at {prefix:?}");
        self.model.delete_prefix(ns, prefix);
        Ok(())
    }

    /// Returns the version of the live entry.
    fn current(&mut self, at: Location) -> Option<Version> {
        self.model.live(at).map(|live| live.version)
    }
}
