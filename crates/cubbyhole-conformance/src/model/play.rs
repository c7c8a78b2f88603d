//! Plays a sequence on a store and on the model, and compares every reply.

use std::time::Duration;

use cubbyhole_core::{
    Condition, Entry, EntryMeta, EntryStoreExt, Expiry, Namespace, NamespacePrefix, Result,
    Timestamp, Version,
};

use super::operation::{
    DeepScan, KEYS, Lifetime, Location, NAMESPACES, Operation, PageScan, WriteCondition,
    bare_tenants,
};
use super::state::{LONG_AGO, Model, ModelEntry, ModelExpiry, ModelMillis, rendered};
use crate::Sample;
use crate::outcome::{Outcome, check_eq};
use crate::world::World;

pub(super) const DAY: u64 = 86_400_000;

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

pub(super) struct Player<'w, V: Sample> {
    pub(super) w: &'w World<V>,
    pub(super) model: Model,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) tenants: [String; 2],
    /// The store's time at the start of the sequence; `None` with a real clock.
    start: Option<Timestamp>,
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
            Operation::GetEntry(at, mode) => self.get_entry(*at, *mode).await,
            Operation::GetMany(ns, keys, mode) => self.get_many(*ns, keys, *mode).await,
            Operation::Stat(ns, keys) => self.stat(*ns, keys).await,
            Operation::Delete(at) => {
                self.model.remove(*at);
                Ok(self.w.delete(self.ns(*at), key(*at)).await?)
            }
            Operation::DeleteEntry(at, condition) => self.delete_entry(*at, *condition).await,
            Operation::Take(at) => self.take(*at).await,
            Operation::Touch(at, lifetime, condition) => {
                self.touch(*at, *lifetime, *condition).await
            }
            Operation::Write(ns, changes) => self.write(*ns, changes).await,
            Operation::List(ns, prefix) => self.list(*ns, prefix.map(|key| KEYS[key])).await,
            Operation::Scan(scan) => self.scan(scan).await,
            Operation::ScanRecursive(scan) => self.scan_recursive(scan).await,
            Operation::Namespaces(prefix, limit) => self.list_namespaces(*prefix, *limit).await,
            Operation::Usage(prefix) => self.usage(*prefix).await,
            Operation::DeletePrefix(ns, prefix, limit) => {
                self.delete_prefix(*ns, *prefix, *limit).await
            }
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

    async fn compare_everything(&mut self) -> Outcome {
        for ns in 0..NAMESPACES.len() {
            self.list(ns, None).await?;
            for reversed in [false, true] {
                self.scan(&whole_scan(ns, reversed)).await?;
            }
            self.usage(ns).await?;
        }
        for tenant in bare_tenants() {
            self.list_namespaces(tenant, 2).await?;
            let scan = DeepScan { prefix: tenant, after: None, limit: 3, values: true };
            self.scan_recursive(&scan).await?;
        }
        Ok(())
    }

    async fn clean_up(&mut self) -> Outcome {
        for tenant in bare_tenants() {
            self.erase(tenant, 1000).await?;
        }
        Ok(())
    }

    pub(super) fn ns(&self, at: Location) -> &Namespace {
        &self.namespaces[at.namespace]
    }

    /// With a real clock, no entry may expire in the middle of a sequence.
    pub(super) fn playable(&self, lifetime: Lifetime) -> Lifetime {
        match lifetime {
            Lifetime::Millis(_) if self.start.is_none() => Lifetime::Expired,
            Lifetime::Idle(_) | Lifetime::IdleUntil(..) if self.start.is_none() => {
                Lifetime::Idle(DAY)
            }
            lifetime => lifetime,
        }
    }

    pub(super) fn expiry(&self, lifetime: Lifetime) -> Result<(Expiry, ModelExpiry)> {
        let duration = Duration::from_millis;
        let after = |millis: u64, idle: Option<u64>| ModelExpiry {
            at: Some(self.model.now + millis as ModelMillis),
            idle: idle.map(|ttl| ttl as ModelMillis),
        };
        Ok(match lifetime {
            Lifetime::Unlimited => (Expiry::Never, ModelExpiry::default()),
            Lifetime::Day => (Expiry::After(duration(DAY)), after(DAY, None)),
            Lifetime::Millis(ttl) => (Expiry::After(duration(ttl)), after(ttl, None)),
            Lifetime::Idle(ttl) => (Expiry::Idle(duration(ttl)), after(ttl, Some(ttl))),
            Lifetime::IdleUntil(ttl, until) => {
                let start = self.start.unwrap_or(Timestamp::EPOCH);
                let since = duration(self.model.now as u64 + until);
                let (ttl, expires_at) = (duration(ttl), start.checked_add(since)?);
                (Expiry::IdleUntil { ttl, expires_at }, after(until, Some(ttl.as_millis() as u64)))
            }
            Lifetime::Expired => {
                let expiry = ModelExpiry { at: Some(LONG_AGO), idle: None };
                (Expiry::At(Timestamp::EPOCH), expiry)
            }
        })
    }

    pub(super) fn condition(&mut self, at: Location, condition: WriteCondition) -> Condition {
        let version = match condition {
            WriteCondition::Always => return Condition::Always,
            WriteCondition::IfAbsent => return Condition::IfAbsent,
            WriteCondition::IfPresent => return Condition::IfPresent,
            WriteCondition::IfCurrentVersion => self.model.live(at).map(|live| live.version),
            WriteCondition::IfPreviousVersion => self.model.previous(at),
            WriteCondition::IfUnknownVersion => None,
        };
        Condition::IfVersion(version.unwrap_or_else(Version::draw))
    }

    pub(super) fn compare(&mut self, at: Location, entry: Option<Entry<V>>, what: &str) -> Outcome {
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

    pub(super) fn compare_meta(&self, live: &ModelEntry, meta: EntryMeta, what: &str) -> Outcome {
        check_eq!(meta.version, live.version, "the version in {what}");
        check_eq!(
            meta.expires_at.is_some(),
            live.expiry.at.is_some(),
            "whether {what} returns an expiry"
        );
        let idle = live.expiry.idle.map(|millis| Duration::from_millis(millis as u64));
        check_eq!(meta.idle_ttl, idle, "the idle TTL in {what}");
        let Some(start) = self.start else {
            return Ok(());
        };
        let since = |instant: Timestamp| {
            instant.as_millis() as ModelMillis - start.as_millis() as ModelMillis
        };
        let found = (since(meta.created_at), since(meta.updated_at), meta.expires_at.map(since));
        let expected = (live.created, live.updated, live.expiry.at);
        check_eq!(
            found,
            expected,
            "created, updated and expires, in milliseconds since the start, in {what}"
        );
        Ok(())
    }
}

/// Returns a scan of all entries of a namespace in pages of three.
fn whole_scan(namespace: usize, reversed: bool) -> PageScan {
    PageScan {
        namespace,
        prefix: None,
        after: None,
        limit: 3,
        values: true,
        reversed,
        refresh: false,
    }
}

pub(super) fn key(at: Location) -> &'static str {
    KEYS[at.key]
}
