//! Plays a sequence on a store and on the model, and compares every reply.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, Entry, EntryMeta, EntryStoreExt, Expiry, GetOptions, Namespace,
    NamespacePrefix, Operation as Write, PutOptions, Result, ScanOptions, Timestamp, Version,
};

use super::condition::{check_conditional, holds};
use super::operation::{
    Change, KEYS, Lifetime, Location, NAMESPACES, Operation, WriteCondition, bare_tenants,
    scan_options,
};
use super::state::{LONG_AGO, Model, ModelEntry, ModelMillis, rendered};
use crate::Sample;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::{World, is_conflict};

const DAY: u64 = 86_400_000;

/// Plays the operations in fresh tenants, compares everything once more, and erases the tenants.
pub(crate) async fn play<V: Sample>(w: &World<V>, operations: &[Operation]) -> Outcome {
    let mut player = Player::start(w).await?;
    let played = player.play(operations).await;
    if played.is_err() {
        // Entries that remain would disturb the next sequence, and shrinking would not work. An
        // error here is ignored: the failure of the sequence is the one to report.
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
    /// The store's time at the start of the sequence; `None` with a real clock.
    start: Option<Timestamp>,
}

/// One write of a batch, in terms of the model.
struct PlannedWrite {
    at: Location,
    /// The number of the value and its expiry, or `None` to delete the entry.
    put: Option<(u64, Option<ModelMillis>)>,
    condition: Condition,
}

impl<'w, V: Sample> Player<'w, V> {
    async fn start(w: &'w World<V>) -> Outcome<Self> {
        let tenants = [w.tenant().as_str().to_owned(), format!("{}b", w.tenant().as_str())];
        let namespaces = NAMESPACES
            .iter()
            .map(|(tenant, segments)| Namespace::from_parts(&tenants[*tenant], *segments))
            .collect::<Result<Vec<_>>>()?;
        for (number, ns) in namespaces.iter().enumerate() {
            check_eq!(
                ns.as_str(),
                rendered(number, &tenants),
                "the rendered form of namespace {number}"
            );
        }
        w.put(&namespaces[0], "", 0).await?;
        let now = w.live(&namespaces[0], "").await?.meta.updated_at;
        w.store().erase_all(w.ctx(), &w.everything()).await?;
        w.store().evict_expired(w.ctx()).await?;
        let start = w.can().real_time.is_none().then_some(now);
        Ok(Self { w, model: Model::default(), namespaces, tenants, start })
    }

    async fn play(&mut self, operations: &[Operation]) -> Outcome {
        for operation in operations {
            self.step(operation).await?;
        }
        self.compare_everything().await?;
        self.clean_up().await
    }

    async fn step(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Put(at, number, lifetime) => self.put(*at, *number, *lifetime).await,
            Operation::PutEntry(at, number, lifetime, condition) => {
                self.put_entry(*at, *number, *lifetime, *condition).await
            }
            Operation::Get(at) => self.get(*at).await,
            Operation::Slide(at, lifetime) => self.slide(*at, *lifetime).await,
            Operation::GetMany(ns, keys) => self.get_many(*ns, keys).await,
            Operation::Delete(at) => {
                self.model.remove(*at);
                Ok(self.w.delete(self.ns(*at), key(*at)).await?)
            }
            Operation::DeleteEntry(at, condition) => self.delete_entry(*at, *condition).await,
            Operation::Take(at) => self.take(*at).await,
            Operation::Touch(at, lifetime) => self.touch(*at, *lifetime).await,
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
                if self.start.is_some() {
                    self.model.now += *millis as ModelMillis;
                    self.w.advance_millis(*millis).await;
                }
                Ok(())
            }
        }
    }

    async fn put(&mut self, at: Location, number: u64, lifetime: Lifetime) -> Outcome {
        let lifetime = match self.playable(lifetime) {
            // Not every `put_with_options` accepts an instant.
            Lifetime::Expired => Lifetime::Unlimited,
            lifetime => lifetime,
        };
        let (expiry, expires) = self.expiry(lifetime);
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

    async fn put_entry(
        &mut self,
        at: Location,
        number: u64,
        lifetime: Lifetime,
        condition: WriteCondition,
    ) -> Outcome {
        let (expiry, expires) = self.expiry(self.playable(lifetime));
        let condition = self.condition(at, condition);
        let options = PutOptions::new().with_expiry(expiry);
        let written = self.w.put_entry(self.ns(at), key(at), number, options, condition).await;
        let current = self.model.live(at).map(|live| live.version);
        if let Some(version) = check_conditional(written, condition, current, "put_entry")? {
            self.model.put(at, number, version, expires);
        }
        Ok(())
    }

    async fn get(&mut self, at: Location) -> Outcome {
        let expected = self.model.live(at).map(|live| V::sample(live.number));
        check_eq!(self.w.get(self.ns(at), key(at)).await?, expected, "get of {at:?}");
        let entry = self.w.entry(self.ns(at), key(at)).await?;
        self.compare(at, entry, "get_entry")
    }

    async fn slide(&mut self, at: Location, lifetime: Lifetime) -> Outcome {
        let millis = match self.playable(lifetime) {
            Lifetime::Millis(millis) => millis,
            Lifetime::Unlimited | Lifetime::Day | Lifetime::Expired => DAY,
        };
        let options = GetOptions::new().with_extended_ttl(Duration::from_millis(millis));
        let (w, ns) = (self.w, self.ns(at));
        let entry = w.store().get_entry(w.ctx(), ns, key(at), options).await?;
        let extended = self.model.now + millis as ModelMillis;
        if let Some(expires) = self.model.live(at).and_then(|live| live.expires) {
            self.model.set_expiry(at, Some(expires.max(extended)));
        }
        self.compare(at, entry, "get_entry that extends")
    }

    async fn get_many(&mut self, ns: usize, keys: &[usize]) -> Outcome {
        let names: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
        let w = self.w;
        let replies = w.store().get_many(w.ctx(), &self.namespaces[ns], &names).await?;
        check_eq!(replies.len(), keys.len(), "the number of replies of get_many");
        for (key, reply) in keys.iter().zip(replies) {
            self.compare(Location { namespace: ns, key: *key }, reply?, "get_many")?;
        }
        Ok(())
    }

    async fn delete_entry(&mut self, at: Location, condition: WriteCondition) -> Outcome {
        let condition = self.condition(at, condition);
        let (w, ns) = (self.w, self.ns(at));
        let deleted = w.store().delete_entry(w.ctx(), ns, key(at), condition).await;
        let current = self.model.live(at).map(|live| live.version);
        if let Some(found) = check_conditional(deleted, condition, current, "delete_entry")? {
            check_eq!(found, current.is_some(), "whether delete_entry found an entry at {at:?}");
            self.model.remove(at);
        }
        Ok(())
    }

    async fn take(&mut self, at: Location) -> Outcome {
        let (w, ns) = (self.w, self.ns(at));
        let taken = w.store().take(w.ctx(), ns, key(at)).await?;
        self.compare(at, taken, "take")?;
        self.model.remove(at);
        Ok(())
    }

    async fn touch(&mut self, at: Location, lifetime: Lifetime) -> Outcome {
        let (expiry, expires) = self.expiry(self.playable(lifetime));
        let (w, ns) = (self.w, self.ns(at));
        let found = w.store().touch(w.ctx(), ns, key(at), expiry).await?;
        let live = self.model.live(at).is_some();
        check_eq!(found, live, "whether touch found an entry at {at:?}");
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
            let current = self.model.live(planned.at).map(|live| live.version);
            if !holds(planned.condition, current) && conflict.is_none() {
                conflict = Some((index, current));
            }
        }
        let versions = match (written, conflict) {
            (Err(error), Some(expected)) if is_conflict(&error) => {
                let reported = (error.batch_index(), error.current_version());
                let expected = (Some(expected.0), expected.1);
                check_eq!(reported, expected, "index and current version in a conflict of write");
                return Ok(());
            }
            (written, conflict) => {
                let versions = written?;
                check!(
                    conflict.is_none(),
                    "write succeeds, but a condition does not hold (index, version): {conflict:?}"
                );
                versions
            }
        };
        check_eq!(versions.len(), plan.len(), "the number of versions that write returns");
        for (planned, version) in plan.into_iter().zip(versions) {
            check_eq!(
                version.is_some(),
                planned.put.is_some(),
                "whether write returns a version for this operation"
            );
            match (planned.put, version) {
                (Some((number, expires)), Some(version)) => {
                    self.model.put(planned.at, number, version, expires);
                }
                _ => self.model.remove(planned.at),
            }
        }
        Ok(())
    }

    /// Returns the changes as a batch and in terms of the model. Only the first change of each key
    /// counts.
    fn plan(&mut self, ns: usize, changes: &[Change]) -> (Batch<V>, Vec<PlannedWrite>) {
        let mut batch = Batch::new();
        let mut plan: Vec<PlannedWrite> = Vec::new();
        for change in changes {
            let at = Location { namespace: ns, key: change.key };
            if plan.iter().any(|planned| planned.at == at) {
                continue;
            }
            let condition = self.condition(at, change.condition);
            let key = key(at).to_owned();
            let put =
                change.put.map(|(number, lifetime)| (number, self.expiry(self.playable(lifetime))));
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
        for (item, (_, live)) in items.into_iter().zip(expected) {
            check_eq!(item.value.is_some(), options.values(), "whether the scan returns values");
            if let Some(value) = item.value {
                check_eq!(value?, V::sample(live.number), "the value of {:?} in a scan", item.key);
            }
            self.compare_meta(&live, item.meta, "scan")?;
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
        check_eq!(
            (usage.namespaces, usage.entries),
            expected,
            "namespaces and entries in usage under {prefix}"
        );
        let (least, most) = self.model.expired_under(Some(prefix));
        let within = (least..=most).contains(&usage.expired);
        check!(
            within || !self.w.can().keeps_expired,
            "usage under {prefix} must count {least} to {most} expired entries, but counts {}",
            usage.expired
        );
        Ok(())
    }

    async fn erase(&mut self, prefix: usize, limit: usize) -> Outcome {
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let mut removed = 0;
        loop {
            let step = self.w.store().erase(self.w.ctx(), &under, limit).await?;
            check!(
                step.removed <= limit as u64,
                "a step of erase with limit {limit} removes {} entries",
                step.removed
            );
            removed += step.removed;
            if step.done {
                break;
            }
        }
        check_eq!(
            removed,
            self.model.live_under(prefix),
            "the entries that erase removes under {prefix}"
        );
        self.model.erase(prefix);
        Ok(())
    }

    async fn evict(&mut self) -> Outcome {
        let removed = self.w.store().evict_expired(self.w.ctx()).await? as u64;
        let (least, most) = self.model.expired_under(None);
        check!(
            removed <= most,
            "evict_expired removes {removed} entries, but only {most} have expired"
        );
        let enough = removed >= least || !self.w.can().keeps_expired;
        check!(enough, "evict_expired removes {removed} entries, but {least} have expired");
        self.model.evict();
        Ok(())
    }

    async fn compare_everything(&mut self) -> Outcome {
        for ns in 0..NAMESPACES.len() {
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

    fn ns(&self, at: Location) -> &Namespace {
        &self.namespaces[at.namespace]
    }

    /// With a real clock, no entry may expire in the middle of a sequence.
    fn playable(&self, lifetime: Lifetime) -> Lifetime {
        match lifetime {
            Lifetime::Millis(_) if self.start.is_none() => Lifetime::Expired,
            lifetime => lifetime,
        }
    }

    fn expiry(&self, lifetime: Lifetime) -> (Expiry, Option<ModelMillis>) {
        let after = |millis: u64| {
            let expiry = Expiry::After(Duration::from_millis(millis));
            (expiry, Some(self.model.now + millis as ModelMillis))
        };
        match lifetime {
            Lifetime::Unlimited => (Expiry::Never, None),
            Lifetime::Day => after(DAY),
            Lifetime::Millis(millis) => after(millis),
            Lifetime::Expired => (Expiry::At(Timestamp::EPOCH), Some(LONG_AGO)),
        }
    }

    fn condition(&mut self, at: Location, condition: WriteCondition) -> Condition {
        let version = match condition {
            WriteCondition::Always => return Condition::Always,
            WriteCondition::IfAbsent => return Condition::IfAbsent,
            WriteCondition::IfCurrentVersion => self.model.live(at).map(|live| live.version),
            WriteCondition::IfPreviousVersion => self.model.previous(at),
            WriteCondition::IfUnknownVersion => None,
        };
        Condition::IfVersion(version.unwrap_or_else(Version::draw))
    }

    fn compare(&mut self, at: Location, entry: Option<Entry<V>>, what: &str) -> Outcome {
        let expected = self.model.live(at);
        check_eq!(
            entry.as_ref().map(|entry| &entry.value),
            expected.as_ref().map(|live| V::sample(live.number)).as_ref(),
            "{what} of {at:?}"
        );
        match (expected, entry) {
            (Some(live), Some(entry)) => self.compare_meta(&live, entry.meta, what),
            _ => Ok(()),
        }
    }

    fn compare_meta(&self, live: &ModelEntry, meta: EntryMeta, what: &str) -> Outcome {
        check_eq!(meta.version, live.version, "the version in {what}");
        check_eq!(
            meta.expires_at.is_some(),
            live.expires.is_some(),
            "whether {what} returns an expiry"
        );
        let Some(start) = self.start else {
            return Ok(());
        };
        let since = |instant: Timestamp| {
            instant.as_millis() as ModelMillis - start.as_millis() as ModelMillis
        };
        let found = (since(meta.created_at), since(meta.updated_at), meta.expires_at.map(since));
        let expected = (live.created, live.updated, live.expires);
        check_eq!(
            found,
            expected,
            "created, updated and expires, in milliseconds since the start, in {what}"
        );
        Ok(())
    }
}

fn key(at: Location) -> &'static str {
    KEYS[at.key]
}
