//! Plays a sequence on a store and on the model, and compares every answer.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, Entry, EntryMeta, EntryStoreExt, Expiry, GetOptions, Namespace,
    NamespacePrefix, Operation as Write, PutOptions, Result, ScanOptions, Timestamp, Version,
};

use super::operation::{Change, KEYS, Life, Operation, PLACES, Place, When};
use super::state::{Instant, LONG_AGO, Model, Row, rendered};
use crate::case::{Outcome, check, check_eq};
use crate::world::is_conflict;
use crate::{Sample, World};

const DAY: u64 = 86_400_000;

/// Plays the operations in fresh tenants, then looks at everything once more, and erases it.
pub(super) async fn play<V: Sample>(w: &World<V>, operations: &[Operation]) -> Outcome {
    let mut player = Player::begin(w).await?;
    let played = player.play(operations).await;
    if played.is_err() {
        // What a failed sequence leaves must not disturb the next, or none would be the shortest;
        // what is reported is why the sequence failed, not that a broken store cannot be cleaned.
        for tenant in bare_tenants() {
            let prefix = NamespacePrefix::from(&player.namespaces[tenant]);
            drop(w.store().erase_all(w.ctx(), &prefix).await);
        }
        drop(w.store().evict_expired(w.ctx()).await);
    }
    played
}

struct Player<'w, V: Sample> {
    w: &'w World<V>,
    model: Model,
    namespaces: Vec<Namespace>,
    tenants: [String; 2],
    /// The store's time when the sequence began, where time stands still unless it is moved.
    began: Option<Timestamp>,
}

/// One write of a batch, as the model makes it.
struct Planned {
    at: Place,
    /// The number of the value and when it expires; `None` deletes.
    put: Option<(u64, Option<Instant>)>,
    condition: Condition,
}

impl<'w, V: Sample> Player<'w, V> {
    async fn begin(w: &'w World<V>) -> Outcome<Self> {
        let tenants = [w.tenant().as_str().to_owned(), format!("{}b", w.tenant().as_str())];
        let namespaces = PLACES
            .iter()
            .map(|(tenant, segments)| Namespace::from_parts(&tenants[*tenant], *segments))
            .collect::<Result<Vec<_>>>()?;
        for (number, ns) in namespaces.iter().enumerate() {
            check_eq!(ns.as_str(), rendered(number, &tenants), "the text of a namespace");
        }
        w.put(&namespaces[0], "", 0).await?;
        let now = w.live(&namespaces[0], "").await?.meta.updated_at;
        w.store().erase_all(w.ctx(), &w.everything()).await?;
        w.store().evict_expired(w.ctx()).await?;
        let began = w.can().real_time.is_none().then_some(now);
        Ok(Self { w, model: Model::default(), namespaces, tenants, began })
    }

    async fn play(&mut self, operations: &[Operation]) -> Outcome {
        for operation in operations {
            self.step(operation).await?;
        }
        self.look_at_everything().await?;
        self.clean_up().await
    }

    async fn step(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Put(at, number, life) => self.put(*at, *number, *life).await,
            Operation::PutEntry(at, number, life, when) => {
                self.put_entry(*at, *number, *life, *when).await
            }
            Operation::Get(at) => self.get(*at).await,
            Operation::Slide(at, life) => self.slide(*at, *life).await,
            Operation::GetMany(ns, keys) => self.get_many(*ns, keys).await,
            Operation::Delete(at) => {
                self.model.remove(*at);
                Ok(self.w.delete(self.ns(*at), key(*at)).await?)
            }
            Operation::DeleteEntry(at, when) => self.delete_entry(*at, *when).await,
            Operation::Take(at) => self.take(*at).await,
            Operation::Touch(at, life) => self.touch(*at, *life).await,
            Operation::Write(ns, changes) => self.write(*ns, changes).await,
            Operation::List(ns, prefix) => self.list(*ns, prefix.map(|key| KEYS[key])).await,
            Operation::Scan(ns, prefix, after, limit, values) => {
                let options = scan_options(*prefix, *after, *limit, *values);
                self.scan(*ns, options).await
            }
            Operation::Namespaces(prefix, limit) => self.list_namespaces(*prefix, *limit).await,
            Operation::Usage(prefix) => self.usage(*prefix).await,
            Operation::Erase(prefix, limit) => self.erase(*prefix, *limit).await,
            Operation::Evict => self.evict().await,
            Operation::Advance(millis) => {
                if self.began.is_some() {
                    self.model.now += *millis as Instant;
                    self.w.advance_millis(*millis).await;
                }
                Ok(())
            }
        }
    }

    async fn put(&mut self, at: Place, number: u64, life: Life) -> Outcome {
        let life = match self.possible(life) {
            // An instant is more than every `put_with_options` takes.
            Life::Past => Life::Never,
            life => life,
        };
        let (expiry, expires) = self.expiry(life);
        let options = PutOptions::new().with_expiry(expiry);
        let before = self.model.live(at).map(|row| row.version);
        let (w, ns, value) = (self.w, self.ns(at), V::sample(number));
        w.store().put_with_options(w.ctx(), ns, key(at), value, options).await?;
        // The version is not told: it is whatever stands there now, if that is new.
        let entry = w.live(ns, key(at)).await?;
        check!(Some(entry.meta.version) != before, "put at {at:?} has kept the version");
        self.model.put(at, number, entry.meta.version, expires);
        self.compare(at, Some(entry), "put")
    }

    async fn put_entry(&mut self, at: Place, number: u64, life: Life, when: When) -> Outcome {
        let (expiry, expires) = self.expiry(self.possible(life));
        let condition = self.condition(at, when);
        let options = PutOptions::new().with_expiry(expiry);
        let written = self.w.put_entry(self.ns(at), key(at), number, options, condition).await;
        let current = self.model.live(at).map(|row| row.version);
        if let Some(version) = judged(written, condition, current, "put_entry")? {
            self.model.put(at, number, version, expires);
        }
        Ok(())
    }

    async fn get(&mut self, at: Place) -> Outcome {
        let expected = self.model.live(at).map(|row| V::sample(row.number));
        check_eq!(self.w.get(self.ns(at), key(at)).await?, expected, "get of {at:?}");
        let entry = self.w.entry(self.ns(at), key(at)).await?;
        self.compare(at, entry, "get_entry")
    }

    async fn slide(&mut self, at: Place, life: Life) -> Outcome {
        let millis = match self.possible(life) {
            Life::Millis(millis) => millis,
            Life::Never | Life::Day | Life::Past => DAY,
        };
        let options = GetOptions::new().with_extended_ttl(Duration::from_millis(millis));
        let (w, ns) = (self.w, self.ns(at));
        let entry = w.store().get_entry(w.ctx(), ns, key(at), options).await?;
        let extended = self.model.now + millis as Instant;
        if let Some(expires) = self.model.live(at).and_then(|row| row.expires) {
            self.model.set_expiry(at, Some(expires.max(extended)));
        }
        self.compare(at, entry, "get_entry that extends")
    }

    async fn get_many(&mut self, ns: usize, keys: &[usize]) -> Outcome {
        let names: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
        let w = self.w;
        let answers = w.store().get_many(w.ctx(), &self.namespaces[ns], &names).await?;
        check_eq!(answers.len(), keys.len(), "the answers of get_many");
        for (key, answer) in keys.iter().zip(answers) {
            self.compare(Place { namespace: ns, key: *key }, answer?, "get_many")?;
        }
        Ok(())
    }

    async fn delete_entry(&mut self, at: Place, when: When) -> Outcome {
        let condition = self.condition(at, when);
        let (w, ns) = (self.w, self.ns(at));
        let deleted = w.store().delete_entry(w.ctx(), ns, key(at), condition).await;
        let current = self.model.live(at).map(|row| row.version);
        if let Some(found) = judged(deleted, condition, current, "delete_entry")? {
            check_eq!(found, current.is_some(), "whether delete_entry found {at:?}");
            self.model.remove(at);
        }
        Ok(())
    }

    async fn take(&mut self, at: Place) -> Outcome {
        let (w, ns) = (self.w, self.ns(at));
        let taken = w.store().take(w.ctx(), ns, key(at)).await?;
        self.compare(at, taken, "take")?;
        self.model.remove(at);
        Ok(())
    }

    async fn touch(&mut self, at: Place, life: Life) -> Outcome {
        let (expiry, expires) = self.expiry(self.possible(life));
        let (w, ns) = (self.w, self.ns(at));
        let found = w.store().touch(w.ctx(), ns, key(at), expiry).await?;
        let live = self.model.live(at).is_some();
        check_eq!(found, live, "whether touch found {at:?}");
        if live {
            self.model.set_expiry(at, expires);
        }
        Ok(())
    }

    async fn write(&mut self, ns: usize, changes: &[Change]) -> Outcome {
        let (batch, plan) = self.plan(ns, changes);
        let w = self.w;
        let written = w.store().write(w.ctx(), &self.namespaces[ns], batch).await;
        let mut conflict = None;
        for (index, planned) in plan.iter().enumerate() {
            let current = self.model.live(planned.at).map(|row| row.version);
            if !holds(planned.condition, current) && conflict.is_none() {
                conflict = Some((index, current));
            }
        }
        let versions = match (written, conflict) {
            (Err(error), Some(expected)) if is_conflict(&error) => {
                let told = (error.batch_index(), error.current_version());
                let expected = (Some(expected.0), expected.1);
                check_eq!(told, expected, "what the conflict of write tells");
                return Ok(());
            }
            (written, conflict) => {
                let versions = written?;
                check!(conflict.is_none(), "write ignores a condition: {conflict:?}");
                versions
            }
        };
        check_eq!(versions.len(), plan.len(), "the answers of write");
        for (planned, version) in plan.into_iter().zip(versions) {
            check_eq!(version.is_some(), planned.put.is_some(), "a version for each put of write");
            match (planned.put, version) {
                (Some((number, expires)), Some(version)) => {
                    self.model.put(planned.at, number, version, expires);
                }
                _ => self.model.remove(planned.at),
            }
        }
        Ok(())
    }

    /// The changes as a batch, and as the model makes them; of two to one key the first counts.
    fn plan(&mut self, ns: usize, changes: &[Change]) -> (Batch<V>, Vec<Planned>) {
        let mut batch = Batch::new();
        let mut plan: Vec<Planned> = Vec::new();
        for change in changes {
            let at = Place { namespace: ns, key: change.key };
            if plan.iter().any(|planned| planned.at == at) {
                continue;
            }
            let condition = self.condition(at, change.when);
            let key = key(at).to_owned();
            let put = change.put.map(|(number, life)| (number, self.expiry(self.possible(life))));
            batch.push(match put {
                Some((number, (expiry, _))) => {
                    let options = PutOptions::new().with_expiry(expiry);
                    Write::Put { key, value: V::sample(number), options, condition }
                }
                None => Write::Delete { key, condition },
            });
            let put = put.map(|(number, (_, expires))| (number, expires));
            plan.push(Planned { at, put, condition });
        }
        (batch, plan)
    }

    async fn list(&mut self, ns: usize, prefix: Option<&str>) -> Outcome {
        let expected: Vec<_> = self.model.keys(ns).into_iter().map(|(key, _)| key).collect();
        let expected: Vec<_> =
            expected.into_iter().filter(|key| key.starts_with(prefix.unwrap_or(""))).collect();
        let w = self.w;
        let found = w.store().list(w.ctx(), &self.namespaces[ns], prefix).await?;
        check_eq!(found, expected, "list of namespace {ns}, prefix {prefix:?}");
        Ok(())
    }

    async fn scan(&mut self, ns: usize, options: ScanOptions) -> Outcome {
        let prefix = options.prefix().unwrap_or("");
        let expected: Vec<_> = (self.model.keys(ns).into_iter())
            .filter(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| options.after().is_none_or(|after| *key > after))
            .collect();
        let items = self.w.pages(&self.namespaces[ns], options.clone()).await?;
        let found: Vec<_> = items.iter().map(|item| item.key.as_str()).collect();
        let keys: Vec<_> = expected.iter().map(|(key, _)| *key).collect();
        check_eq!(found, keys, "scan of namespace {ns} with {options:?}");
        for (item, (_, row)) in items.into_iter().zip(expected) {
            check_eq!(item.value.is_some(), options.values(), "values on the page");
            if let Some(value) = item.value {
                check_eq!(value?, V::sample(row.number), "the value of {:?} in a scan", item.key);
            }
            self.compare_meta(&row, item.meta, "scan")?;
        }
        Ok(())
    }

    async fn list_namespaces(&mut self, prefix: usize, limit: usize) -> Outcome {
        let expected = self.model.namespaces(prefix, &self.tenants);
        let expected: Vec<_> = expected.into_iter().map(|ns| &self.namespaces[ns]).collect();
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let found = self.w.namespaces(&under).await?;
        check_eq!(found.iter().collect::<Vec<_>>(), expected, "list_namespaces under {prefix}");
        let found = self.w.namespace_pages(&under, limit).await?;
        check_eq!(found.iter().collect::<Vec<_>>(), expected, "scan_namespaces under {prefix}");
        Ok(())
    }

    async fn usage(&mut self, prefix: usize) -> Outcome {
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let usage = self.w.store().usage(self.w.ctx(), &under).await?;
        let namespaces = self.model.namespaces(prefix, &self.tenants).len() as u64;
        let expected = (namespaces, self.model.live_under(prefix));
        check_eq!((usage.namespaces, usage.entries), expected, "usage under {prefix}");
        let (least, most) = self.model.expired_under(Some(prefix));
        let within = (least..=most).contains(&usage.expired);
        check!(
            within || !self.w.can().keeps_expired,
            "usage under {prefix} counts {} expired entries, not {least} to {most}",
            usage.expired
        );
        Ok(())
    }

    async fn erase(&mut self, prefix: usize, limit: usize) -> Outcome {
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let mut removed = 0;
        loop {
            let step = self.w.store().erase(self.w.ctx(), &under, limit).await?;
            check!(step.removed <= limit as u64, "a step of {limit} erases {}", step.removed);
            removed += step.removed;
            if step.done {
                break;
            }
        }
        check_eq!(removed, self.model.live_under(prefix), "what erase removes under {prefix}");
        self.model.erase(prefix);
        Ok(())
    }

    async fn evict(&mut self) -> Outcome {
        let removed = self.w.store().evict_expired(self.w.ctx()).await? as u64;
        let (least, most) = self.model.expired_under(None);
        check!(removed <= most, "evict_expired removes {removed} of {most}");
        let enough = removed >= least || !self.w.can().keeps_expired;
        check!(enough, "evict_expired removes {removed}, but {least} had expired");
        self.model.evict();
        Ok(())
    }

    async fn look_at_everything(&mut self) -> Outcome {
        for ns in 0..PLACES.len() {
            self.list(ns, None).await?;
            self.scan(ns, ScanOptions::new().with_limit(3)).await?;
            self.usage(ns).await?;
        }
        for tenant in bare_tenants() {
            self.list_namespaces(tenant, 2).await?;
        }
        Ok(())
    }

    async fn clean_up(&mut self) -> Outcome {
        for tenant in bare_tenants() {
            self.erase(tenant, 1000).await?;
        }
        Ok(())
    }

    fn ns(&self, at: Place) -> &Namespace {
        &self.namespaces[at.namespace]
    }

    /// On a real clock no entry is to expire in the middle of a sequence.
    fn possible(&self, life: Life) -> Life {
        match life {
            Life::Millis(_) if self.began.is_none() => Life::Past,
            life => life,
        }
    }

    fn expiry(&self, life: Life) -> (Expiry, Option<Instant>) {
        let after = |millis: u64| {
            let expiry = Expiry::After(Duration::from_millis(millis));
            (expiry, Some(self.model.now + millis as Instant))
        };
        match life {
            Life::Never => (Expiry::Never, None),
            Life::Day => after(DAY),
            Life::Millis(millis) => after(millis),
            Life::Past => (Expiry::At(Timestamp::EPOCH), Some(LONG_AGO)),
        }
    }

    fn condition(&mut self, at: Place, when: When) -> Condition {
        let version = match when {
            When::Always => return Condition::Always,
            When::Absent => return Condition::IfAbsent,
            When::Current => self.model.live(at).map(|row| row.version),
            When::Previous => self.model.previous(at),
            When::Foreign => None,
        };
        Condition::IfVersion(version.unwrap_or_else(Version::draw))
    }

    fn compare(&mut self, at: Place, entry: Option<Entry<V>>, what: &str) -> Outcome {
        let expected = self.model.live(at);
        check_eq!(
            entry.as_ref().map(|entry| &entry.value),
            expected.as_ref().map(|row| V::sample(row.number)).as_ref(),
            "{what} of {at:?}"
        );
        match (expected, entry) {
            (Some(row), Some(entry)) => self.compare_meta(&row, entry.meta, what),
            _ => Ok(()),
        }
    }

    fn compare_meta(&self, row: &Row, meta: EntryMeta, what: &str) -> Outcome {
        check_eq!(meta.version, row.version, "the version in {what}");
        check_eq!(meta.expires_at.is_some(), row.expires.is_some(), "an expiry in {what}");
        let Some(began) = self.began else {
            return Ok(());
        };
        let told =
            |instant: Timestamp| instant.as_millis() as Instant - began.as_millis() as Instant;
        let found = (told(meta.created_at), told(meta.updated_at), meta.expires_at.map(told));
        let expected = (row.created, row.updated, row.expires);
        check_eq!(found, expected, "created, updated and expiring, in {what}");
        Ok(())
    }
}

/// The namespaces that are a tenant's whole data, as prefixes.
fn bare_tenants() -> impl Iterator<Item = usize> {
    (0..PLACES.len()).filter(|ns| PLACES[*ns].1.is_empty())
}

fn key(at: Place) -> &'static str {
    KEYS[at.key]
}

fn holds(condition: Condition, current: Option<Version>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => current.is_none(),
        Condition::IfVersion(version) => current == Some(version),
    }
}

/// What a write with a condition answered; `None` for a conflict that was due.
fn judged<T>(
    answer: Result<T>,
    condition: Condition,
    current: Option<Version>,
    what: &str,
) -> Outcome<Option<T>> {
    let due = !holds(condition, current);
    match answer {
        Ok(answer) => {
            check!(!due, "{what} ignores {condition:?}, where {current:?} stands");
            Ok(Some(answer))
        }
        Err(error) if is_conflict(&error) => {
            check!(due, "{what} meets a conflict with {condition:?}, where {current:?} stands");
            check_eq!(error.current_version(), current, "what the conflict of {what} tells");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn scan_options(
    prefix: Option<usize>,
    after: Option<usize>,
    limit: usize,
    values: bool,
) -> ScanOptions {
    let mut options = ScanOptions::new().with_limit(limit);
    if let Some(prefix) = prefix {
        options = options.with_prefix(KEYS[prefix]);
    }
    if let Some(after) = after {
        options = options.with_after(KEYS[after]);
    }
    if values { options } else { options.keys_only() }
}
