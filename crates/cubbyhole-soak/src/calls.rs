//! Each kind of call, and what is checked of its answer.

use std::time::Duration;

use cubbyhole::{
    Batch, Bytes, Condition, Entry, EntryStoreExt, ErrorKind, ExecutionContext, Expiry, GetOptions,
    NamespacePrefix, PutOptions, Result, ScanOptions, Timestamp, Update, Version,
};

use crate::checks::{ascending, is_live};
use crate::load::{Caller, Stop, any_length, now};
use crate::{Kind, Known, Place, Population, Wrong, value};

/// TTLs of entries that are not mortal: they expire too, and may be prolonged.
const TTL_MILLIS: std::ops::Range<u64> = 50..5_000;
/// Deadlines and cancellations that cut calls off in flight: up to twice what a call takes.
const SHORT_MICROS: std::ops::Range<u64> = 1..2_000;
/// How many keys a batch, or a question for many, names.
const MANY: usize = 8;

impl Caller {
    /// Makes a call of `kind`.
    pub(crate) async fn make(
        &mut self,
        kind: Kind,
        ctx: &ExecutionContext,
    ) -> std::result::Result<(), Stop> {
        match kind {
            Kind::Put | Kind::PutWithTtl => self.put(kind, ctx).await,
            Kind::PutIfAbsent | Kind::PutIfVersion => self.put_if(kind, ctx).await,
            Kind::WriteOwn => self.write_own(ctx).await,
            Kind::ReadOwn => self.read_own(ctx).await,
            Kind::DeleteOwn => self.delete_own(ctx).await,
            Kind::Batch => self.batch(ctx).await,
            Kind::Get => self.get(ctx).await,
            Kind::GetEntry => self.get_entry(ctx).await,
            Kind::GetMany => self.get_many(ctx).await,
            Kind::List => self.list(ctx).await,
            Kind::Scan => self.scan(ctx).await,
            Kind::ListNamespaces => self.list_namespaces(ctx).await,
            Kind::Touch => self.touch(ctx).await,
            Kind::Take => self.take(ctx).await,
            Kind::Delete => self.delete(ctx).await,
            Kind::Update => self.update(ctx).await,
            Kind::Erase => self.erase(ctx).await,
            Kind::Usage => self.usage(ctx).await,
            Kind::TooShort => self.too_short().await,
            Kind::Cancelled => self.cancelled(ctx).await,
            Kind::Dropped => self.dropped(ctx).await,
        }
    }

    fn ttl(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(TTL_MILLIS))
    }

    fn short(&mut self) -> Duration {
        Duration::from_micros(self.random.u64(SHORT_MICROS))
    }

    fn any(&mut self) -> Place {
        self.population.any(&mut self.random)
    }

    /// A place that is not mortal: its expiry may be changed.
    fn any_lasting(&mut self) -> Place {
        let mut place = self.any();
        if self.population.is_mortal(place) {
            place.key += 1;
        }
        place
    }

    /// Any entry, checked.
    fn check_entry(
        &self,
        place: Place,
        entry: &Entry<Bytes>,
        began: Timestamp,
    ) -> std::result::Result<u16, Wrong> {
        is_live(entry.meta.expires_at, began)?;
        self.check(place, &entry.value, began)
    }

    async fn put(&mut self, kind: Kind, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any();
        let (value, mut options) = self.any_value(place)?;
        if kind == Kind::PutWithTtl && !self.population.is_mortal(place) {
            options = PutOptions::new().with_ttl(self.ttl());
        }
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        Ok(self.store.put_with_options(ctx, ns, key, value, options).await?)
    }

    async fn put_if(
        &mut self,
        kind: Kind,
        ctx: &ExecutionContext,
    ) -> std::result::Result<(), Stop> {
        let place = self.population.busy(&mut self.random);
        let place = if self.random.bool() { place } else { self.any() };
        let (value, options) = self.any_value(place)?;
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let began = now();
        let read = self.store.get_entry(ctx, ns, key, GetOptions::new()).await?;
        if let Some(entry) = &read {
            self.check_entry(place, entry, began)?;
        }
        let condition = match read {
            Some(entry) if kind == Kind::PutIfVersion => Condition::IfVersion(entry.meta.version),
            _ => Condition::IfAbsent,
        };
        let put = self.store.put_entry(ctx, ns, key, value, options, condition).await;
        refused_rightly(place, condition, put).map(|_| ())
    }

    /// Nobody else writes there, so that a condition holds exactly if it names what is known.
    async fn write_own(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.population.own(self.number, &mut self.random);
        let serial = self.random.u16(..);
        let value = value::make(place, serial, None, any_length(&mut self.random));
        let known = self.own.insert(place, Known::Unknown).unwrap_or(Known::Absent);
        let right = match known {
            Known::Absent => Condition::IfAbsent,
            Known::Written(_, version) => Condition::IfVersion(version),
            Known::Unknown => Condition::Always,
        };
        let (condition, must_hold) = match self.random.u32(..4) {
            0 => (right, true),
            1 if known != Known::Unknown => (Condition::IfVersion(Version::draw()), false),
            _ => (Condition::Always, true),
        };
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let put = self.store.put_entry(ctx, ns, key, value, PutOptions::new(), condition).await;
        match put {
            Ok(version) if must_hold => {
                self.own.insert(place, Known::Written(serial, version));
                Ok(())
            }
            Ok(version) => {
                let found = Known::Written(serial, version);
                Err(Wrong::NotAsWritten { place, known, found }.into())
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.own.insert(place, known);
                if must_hold { Err(Wrong::NoConflict { place }.into()) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read_own(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.population.own(self.number, &mut self.random);
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let began = now();
        let entry = self.store.get_entry(ctx, ns, key, GetOptions::new()).await?;
        let found = match entry {
            None => Known::Absent,
            Some(entry) => {
                Known::Written(self.check_entry(place, &entry, began)?, entry.meta.version)
            }
        };
        let known = self.own.get(&place).copied().unwrap_or(Known::Absent);
        Ok(known.check(place, found)?)
    }

    async fn delete_own(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.population.own(self.number, &mut self.random);
        let known = self.own.insert(place, Known::Unknown).unwrap_or(Known::Absent);
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let existed = self.store.delete_entry(ctx, ns, key, Condition::Always).await?;
        self.own.insert(place, Known::Absent);
        if known != Known::Unknown && existed != (known != Known::Absent) {
            let found = if existed { Known::Unknown } else { Known::Absent };
            return Err(Wrong::NotAsWritten { place, known, found }.into());
        }
        Ok(())
    }

    async fn batch(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let first = self.any();
        let mut batch = Batch::new();
        let step = Population::KEYS / MANY;
        for index in 0..MANY {
            let key = (usize::from(first.key) + index * step) % Population::KEYS;
            let place = Place { key: key as u16, ..first };
            let (value, options) = self.any_value(place)?;
            let condition = if index == 1 { Condition::IfAbsent } else { Condition::Always };
            let name = self.population.key(place);
            batch = if index == 0 {
                batch.delete(name)
            } else if index == 1 && self.random.bool() {
                batch.put_with(name, value, options, condition)
            } else {
                batch.put_with(name, value, options, Condition::Always)
            };
        }
        let operations = batch.len();
        let ns = self.population.namespace(first);
        let versions = self.store.write(ctx, ns, batch).await?;
        let written = versions.iter().flatten().count();
        if versions.len() != operations || written != operations - 1 {
            return Err(Wrong::Answers { asked: operations, found: written }.into());
        }
        Ok(())
    }

    async fn get(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any();
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let began = now();
        if let Some(value) = self.store.get(ctx, ns, key).await? {
            self.check(place, &value, began)?;
        }
        Ok(())
    }

    /// Half of them prolong the entry.
    async fn get_entry(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any_lasting();
        let options = match self.random.bool() {
            true => GetOptions::new().with_extended_ttl(self.ttl()),
            false => GetOptions::new(),
        };
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let began = now();
        if let Some(entry) = self.store.get_entry(ctx, ns, key, options).await? {
            self.check_entry(place, &entry, began)?;
        }
        Ok(())
    }

    async fn get_many(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let first = self.any();
        let places: Vec<Place> =
            (0..MANY).map(|_| Place { key: self.any().key, ..first }).collect();
        let keys: Vec<&str> = places.iter().map(|place| self.population.key(*place)).collect();
        let ns = self.population.namespace(first);
        let began = now();
        let answers = self.store.get_many(ctx, ns, &keys).await?;
        if answers.len() != places.len() {
            return Err(Wrong::Answers { asked: places.len(), found: answers.len() }.into());
        }
        for (place, answer) in places.into_iter().zip(answers) {
            if let Some(entry) = answer? {
                self.check_entry(place, &entry, began)?;
            }
        }
        Ok(())
    }

    async fn list(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any();
        let ns = self.population.namespace(place);
        let keys = self.store.list(ctx, ns, Some("k:00")).await?;
        ascending(keys.iter().map(String::as_str))?;
        for key in keys {
            if !key.starts_with("k:00") || self.population.key_number(&key).is_none() {
                return Err(Wrong::Listing { what: "not asked for", name: key }.into());
            }
        }
        Ok(())
    }

    /// All pages of a namespace. The entries of this caller must be there, as it left them.
    async fn scan(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let own = self.population.own(self.number, &mut self.random);
        let ns = self.population.namespace(own);
        let mut found = Known::Absent;
        let mut after: Option<String> = None;
        loop {
            let mut options = ScanOptions::new().with_limit(self.random.usize(10..60));
            if let Some(after) = &after {
                options = options.with_after(after);
            }
            let began = now();
            let page = self.store.scan(ctx, ns, options).await?;
            let names = page.items.iter().map(|item| item.key.as_str());
            ascending(after.as_deref().into_iter().chain(names))?;
            for item in page.items {
                let Some(key) = self.population.key_number(&item.key) else {
                    return Err(Wrong::Listing { what: "unknown", name: item.key }.into());
                };
                let place = Place { key, ..own };
                let name = item.key.clone();
                let Some(entry) = item.into_entry() else {
                    return Err(Wrong::Listing { what: "without its value", name }.into());
                };
                let entry = entry?;
                let serial = self.check_entry(place, &entry, began)?;
                if place == own {
                    found = Known::Written(serial, entry.meta.version);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let known = self.own.get(&own).copied().unwrap_or(Known::Absent);
        Ok(known.check(own, found)?)
    }

    /// A namespace where this caller has an entry must be listed, and none of another tenant.
    async fn list_namespaces(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let own = self.population.own(self.number, &mut self.random);
        let prefix = self.population.tenant_of(own.namespace);
        let listed = self.store.list_namespaces(ctx, &prefix).await?;
        ascending(listed.iter().map(|name| name.as_str()))?;
        if let Some(name) = listed.iter().find(|name| !prefix.matches(name)) {
            let name = name.as_str().to_owned();
            return Err(Wrong::Listing { what: "of another tenant", name }.into());
        }
        let ns = self.population.namespace(own);
        if matches!(self.own.get(&own), Some(Known::Written(..))) && !listed.contains(ns) {
            return Err(Wrong::Listing { what: "missing", name: ns.as_str().to_owned() }.into());
        }
        Ok(())
    }

    async fn touch(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any_lasting();
        let expiry = if self.random.bool() { Expiry::Never } else { Expiry::After(self.ttl()) };
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        self.store.touch(ctx, ns, key, expiry).await?;
        Ok(())
    }

    async fn take(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any();
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        let began = now();
        if let Some(entry) = self.store.take(ctx, ns, key).await? {
            self.check_entry(place, &entry, began)?;
        }
        Ok(())
    }

    async fn delete(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any();
        let (ns, key) = (self.population.namespace(place), self.population.key(place));
        Ok(self.store.delete(ctx, ns, key).await?)
    }

    /// Where many callers meet, so that some must try again.
    async fn update(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.population.busy(&mut self.random);
        let (value, _) = self.any_value(place)?;
        let mut wrong = None;
        let population = &self.population;
        let decide = |entry: Option<Entry<Bytes>>| {
            if let Some(entry) = entry {
                let read = value::check(population, place, &entry.value, Timestamp::EPOCH);
                wrong = wrong.take().or(read.err());
            }
            Ok(Update::Put(value.clone()))
        };
        let (ns, key) = (population.namespace(place), population.key(place));
        self.store.update(ctx, ns, key, decide).await?;
        wrong.map_or(Ok(()), |wrong| Err(wrong.into()))
    }

    async fn erase(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let mut place = self.any();
        while !self.population.is_erased(place.namespace) {
            place.namespace += 1;
        }
        let prefix = NamespacePrefix::from(self.population.namespace(place).clone());
        self.store.erase_all(ctx, &prefix).await?;
        Ok(())
    }

    async fn usage(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let place = self.any();
        let usage = self.store.usage(ctx, &self.population.tenant_of(place.namespace)).await?;
        if usage.namespaces > Population::NAMESPACES as u64 {
            let found = usage.namespaces as usize;
            return Err(Wrong::Answers { asked: Population::NAMESPACES, found }.into());
        }
        Ok(())
    }

    /// A deadline that ends in flight, of calls of all sorts.
    async fn too_short(&mut self) -> std::result::Result<(), Stop> {
        let ctx = ExecutionContext::new().with_timeout(self.short());
        self.any_call(&ctx).await
    }

    async fn cancelled(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let (wait, ctx) = (self.short(), ctx.child());
        let canceller = ctx.clone();
        let cancel = async {
            // It ends when it is cancelled or when its time has come: both are well.
            drop(canceller.sleep(wait).await);
            canceller.cancel();
        };
        let (answer, ()) = tokio::join!(self.any_call(&ctx), cancel);
        answer
    }

    /// The future goes away unfinished.
    async fn dropped(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let patience = ExecutionContext::new().with_timeout(self.short());
        patience.race(self.any_call(ctx)).await?
    }

    /// A call whose outcome nobody needs to know.
    async fn any_call(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        match self.random.u32(..8) {
            0 => self.put(Kind::PutWithTtl, ctx).await,
            1 => self.put(Kind::Put, ctx).await,
            2 => self.batch_always(ctx).await,
            3 => self.scan(ctx).await,
            4 => self.take(ctx).await,
            5 => self.list_namespaces(ctx).await,
            6 => self.get_many(ctx).await,
            _ => self.get(ctx).await,
        }
    }

    /// A batch without conditions.
    async fn batch_always(&mut self, ctx: &ExecutionContext) -> std::result::Result<(), Stop> {
        let first = self.any();
        let (value, options) = self.any_value(first)?;
        let name = self.population.key(first);
        let batch = Batch::new().put_with(name, value, options, Condition::Always);
        self.store.write(ctx, self.population.namespace(first), batch).await?;
        Ok(())
    }
}

/// A conflict must be one: the version that it names is not the one that the condition asks for.
fn refused_rightly(
    place: Place,
    condition: Condition,
    put: Result<Version>,
) -> std::result::Result<Version, Stop> {
    let error = match put {
        Ok(version) => return Ok(version),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::Conflict && condition.check(error.current_version()).is_ok() {
        return Err(Wrong::NoConflict { place }.into());
    }
    Err(error.into())
}
