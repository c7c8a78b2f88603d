//! The mutants, each wrong in one way that has been seen in the wild.

use cubbyhole_core::{
    Batch, Bytes, Clock, Condition, Entry, EntryStore, Erased, Error, ExecutionContext, Expiry,
    GetOptions, ManualClock, Namespace, NamespacePrefix, Operation, Page, PutOptions, Result,
    ScanItem, ScanOptions, Store, SystemClock, TenantId, Timestamp, Usage, Version, async_trait,
    limits,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;

use crate::layer::{Inner, Mutant};

type Context<'a> = &'a ExecutionContext;

/// Each mutant: its name, how it is wrong, and the methods that it breaks.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident { $($body:tt)* })*) => {
        $($(#[$doc])*
        pub(crate) struct $name(Inner);

        #[async_trait]
        impl Mutant for $name {
            fn around(inner: Inner) -> Self {
                Self(inner)
            }

            fn inner(&self) -> &Inner {
                &self.0
            }

            $($body)*
        })*

        /// How many there are, without the sound one.
        pub(crate) const COUNT: usize = [$(stringify!($name)),*].len() - 1;
    };
}

mutants! {
    /// Not broken.
    Sound {}

    /// After its clock is set back, no time passes until the clock has caught up.
    TimeStopsWhenSetBack {
        fn clock(manual: ManualClock) -> Arc<dyn Clock> {
            Arc::new(WithoutElapsed(manual))
        }
    }

    /// `current_time` is the machine's clock, not the store's.
    TellsTheMachinesTime {
        async fn current_time(&self, _: Context<'_>, _: &Namespace) -> Result<Timestamp> {
            Ok(SystemClock.now())
        }
    }

    /// `list` answers all keys, whatever the prefix.
    ListIgnoresPrefix {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>) -> Result<Vec<String>> {
            limits::check_prefix(p)?;
            self.0.list(c, ns, None).await
        }
    }

    /// `list` matches as SQL's LIKE does.
    ListTakesPatterns {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>) -> Result<Vec<String>> {
            limits::check_prefix(p)?;
            let mut keys = self.0.list(c, ns, None).await?;
            keys.retain(|key| like(key, &format!("{}%", p.unwrap_or(""))));
            Ok(keys)
        }
    }

    /// `scan` matches as SQL's LIKE does.
    ScanTakesPatterns {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            o.check()?;
            let pattern = format!("{}%", o.prefix().unwrap_or(""));
            let mut page = self.0.scan(c, ns, o.with_prefix("")).await?;
            page.items.retain(|item| like(&item.key, &pattern));
            Ok(page)
        }
    }

    /// A namespace also shows the keys of those whose names begin with its own.
    NamespaceByTextPrefix {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>) -> Result<Vec<String>> {
            let mut keys = Vec::new();
            for tenant in self.0.scan_tenants(c, None, 1000).await?.items {
                for other in self.0.list_namespaces(c, &tenant.into()).await? {
                    if other.as_str().starts_with(ns.as_str()) {
                        keys.extend(self.0.list(c, &other, p).await?);
                    }
                }
            }
            Ok(keys)
        }
    }

    /// Namespace and key are joined with `:`, unescaped.
    JoinsWithoutEscapes {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let (ns, key) = joined(ns, key)?;
            self.0.put(c, &ns, &key, v).await
        }

        async fn get(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<Option<Bytes>> {
            let (ns, key) = joined(ns, key)?;
            self.0.get(c, &ns, &key).await
        }

        async fn delete(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<()> {
            let (ns, key) = joined(ns, key)?;
            self.0.delete(c, &ns, &key).await
        }
    }

    /// Entries live one millisecond too long: `now <= expires_at`.
    ExpiresLate {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            self.0.put_with_options(c, ns, key, v, longer(o, 1)).await
        }
    }

    /// Entries end one millisecond early, as where the TTL is cut to whole units.
    ExpiresEarly {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            self.0.put_with_options(c, ns, key, v, longer(o, -1)).await
        }
    }

    /// Expired entries are listed until they are swept.
    ListsExpired {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            self.0.put_with_options(c, ns, key, v, o).await?;
            // What a listing sees is kept beside, where nothing expires.
            self.0.put(c, &beside(ns)?, key, Bytes::new()).await
        }

        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>) -> Result<Vec<String>> {
            let mut keys = self.0.list(c, ns, p).await?;
            keys.extend(self.0.list(c, &beside(ns)?, p).await?);
            keys.sort_unstable();
            keys.dedup();
            Ok(keys)
        }
    }

    /// A TTL of zero is "no expiry".
    ZeroTtlMeansForever {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            let zero = o.expiry() == Expiry::After(Duration::ZERO);
            let o = if zero { o.with_expiry(Expiry::Never) } else { o };
            self.0.put_with_options(c, ns, key, v, o).await
        }
    }

    /// `put` without a TTL keeps the one that stood there.
    PutKeepsTheTtl {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let old = self.0.get_entry(c, ns, key, GetOptions::new()).await?;
            let expires = old.and_then(|entry| entry.meta.expires_at);
            let o = PutOptions::new().with_expiry(expires.map_or(Expiry::Never, Expiry::At));
            self.0.put_with_options(c, ns, key, v, o).await
        }
    }

    /// A page begins with the last item of the one before.
    RepeatsAcrossPages {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let after = o.after().map(str::to_owned);
            let limit = o.limit();
            let mut page = self.0.scan(c, ns, o).await?;
            let last = match after {
                Some(after) if limit > 1 => self.0.scan(c, ns, ScanOptions::new()).await?
                    .items.into_iter().find(|item| item.key == after),
                _ => None,
            };
            if let Some(last) = last {
                page.items.insert(0, last);
                page.items.truncate(limit);
            }
            Ok(page)
        }
    }

    /// Between two pages an item is lost.
    DropsAnItem {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let mut page = self.0.scan(c, ns, o).await?;
            if page.next.is_some() {
                page.items.pop();
            }
            Ok(page)
        }
    }

    /// Pages are counted by offset: what is written in front of them shifts them.
    PagesByOffset {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let first = match o.after() {
                None => 0,
                Some(after) => after.rsplit('~').next().and_then(|n| n.parse().ok()).unwrap_or(0),
            };
            let mut page = self.0.scan(c, ns, ScanOptions::new().with_limit(1000)).await?;
            let more = page.items.len() > first + o.limit();
            page.items = page.items.into_iter().skip(first).take(o.limit()).collect();
            page.next = more.then(|| format!("~{}", first + o.limit()));
            Ok(page)
        }
    }

    /// `put_entry` writes whatever the condition.
    PutEntryIgnoresCondition {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, _: Condition) -> Result<Version> {
            self.0.put_entry(c, ns, key, v, o, Condition::Always).await
        }
    }

    /// `delete_entry` deletes whatever the condition.
    DeleteIgnoresCondition {
        async fn delete_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, _: Condition)
            -> Result<bool> {
            self.0.delete_entry(c, ns, key, Condition::Always).await
        }
    }

    /// The condition is judged first and the write made later.
    ConditionIsRacy {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let current = self.0.get_entry(c, ns, key, GetOptions::new()).await?;
            condition.check(current.map(|entry| entry.meta.version))?;
            tokio::task::yield_now().await;
            self.0.put_entry(c, ns, key, v, o, Condition::Always).await
        }
    }

    /// `list_namespaces` has the default body.
    DefaultListNamespaces {
        async fn list_namespaces(&self, _: Context<'_>, _: &NamespacePrefix)
            -> Result<Vec<Namespace>> {
            Ok(Vec::new())
        }
    }

    /// Namespaces under a prefix are those whose text begins with it.
    NamespacesByOneRange {
        async fn list_namespaces(&self, c: Context<'_>, p: &NamespacePrefix)
            -> Result<Vec<Namespace>> {
            let mut all = self.0.list_namespaces(c, &p.tenant().into()).await?;
            all.retain(|ns| ns.as_str().starts_with(p.as_str()));
            Ok(all)
        }
    }

    /// A namespace stays listed when its last entry has gone.
    ListsEmptiedNamespaces {
        async fn delete(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<()> {
            self.0.put(c, ns, "\u{1}tombstone", Bytes::new()).await?;
            self.0.delete(c, ns, key).await
        }
    }

    /// `take` does not delete.
    TakeLeavesTheEntry {
        async fn take(&self, c: Context<'_>, ns: &Namespace, key: &str)
            -> Result<Option<Entry<Bytes>>> {
            self.0.get_entry(c, ns, key, GetOptions::new()).await
        }
    }

    /// `take` reads, and then deletes.
    TakeInTwoSteps {
        async fn take(&self, c: Context<'_>, ns: &Namespace, key: &str)
            -> Result<Option<Entry<Bytes>>> {
            let entry = self.0.get_entry(c, ns, key, GetOptions::new()).await?;
            tokio::task::yield_now().await;
            self.0.delete(c, ns, key).await?;
            Ok(entry)
        }
    }

    /// A batch is applied until a condition fails.
    BatchIsNotAtomic {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Option<Version>>> {
            let mut versions = Vec::new();
            for (index, operation) in batch.into_operations().into_iter().enumerate() {
                let one = Batch::from_iter([operation]);
                let written = self.0.write(c, ns, one).await;
                versions.extend(written.map_err(|error| error.at_batch_index(index))?);
            }
            Ok(versions)
        }
    }

    /// A key may be named twice in a batch; the last one counts.
    BatchJudgesAsItGoes {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Option<Version>>> {
            let mut last: Vec<Operation<Bytes>> = Vec::new();
            for operation in batch.into_operations() {
                last.retain(|other| other.key() != operation.key());
                last.push(operation);
            }
            self.0.write(c, ns, last.into_iter().collect()).await
        }
    }

    /// Overwriting deletes first, and so begins `created_at` anew.
    OverwritingIsNew {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            self.0.delete(c, ns, key).await?;
            self.0.put(c, ns, key, v).await
        }
    }

    /// `touch` writes the value again.
    TouchIsAWrite {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry) -> Result<bool> {
            let Some(value) = self.0.get(c, ns, key).await? else {
                return Ok(false);
            };
            let o = PutOptions::new().with_expiry(e);
            self.0.put_with_options(c, ns, key, value, o).await?;
            Ok(true)
        }
    }

    /// `touch` finds entries that have expired and are not swept.
    TouchRevives {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry) -> Result<bool> {
            if self.0.usage(c, &ns.into()).await?.expired > 0 {
                self.0.put(c, ns, key, Bytes::new()).await?;
            }
            self.0.touch(c, ns, key, e).await
        }
    }

    /// A read that extends sets the TTL, also to a shorter one.
    SlidingShortens {
        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            if let Some(ttl) = o.extended_ttl() {
                self.0.touch(c, ns, key, Expiry::After(ttl)).await?;
            }
            self.0.get_entry(c, ns, key, GetOptions::new()).await
        }
    }

    /// `erase` removes what begins with the text of the prefix, other tenants' data too.
    EraseLeaks {
        async fn erase(&self, c: Context<'_>, p: &NamespacePrefix, limit: usize) -> Result<Erased> {
            let step = self.0.erase(c, p, limit).await?;
            for tenant in self.0.scan_tenants(c, None, 1000).await?.items {
                if tenant.as_rendered().starts_with(p.as_str()) {
                    self.0.erase(c, &tenant.into(), 1000).await?;
                }
            }
            Ok(step)
        }
    }

    /// `erase` counts expired entries too.
    EraseCountsExpired {
        async fn erase(&self, c: Context<'_>, p: &NamespacePrefix, limit: usize) -> Result<Erased> {
            let expired = self.0.usage(c, p).await?.expired;
            let step = self.0.erase(c, p, limit).await?;
            Ok(Erased { removed: step.removed + expired, ..step })
        }
    }

    /// A sweep removes entries that have a TTL, whether it has ended or not.
    EvictsLiveEntries {
        async fn evict_expired(&self, c: Context<'_>) -> Result<usize> {
            for tenant in self.0.scan_tenants(c, None, 1000).await?.items {
                for ns in self.0.list_namespaces(c, &tenant.into()).await? {
                    for item in self.0.scan(c, &ns, ScanOptions::new()).await?.items {
                        if item.meta.expires_at.is_some() {
                            self.0.delete(c, &ns, &item.key).await?;
                        }
                    }
                }
            }
            self.0.evict_expired(c).await
        }
    }

    /// A sweep removes what was due when it looked, without looking again.
    SweepsWhatWasDue {
        async fn evict_expired(&self, c: Context<'_>) -> Result<usize> {
            let mut noted = Vec::new();
            for tenant in self.0.scan_tenants(c, None, 1000).await?.items {
                for ns in self.0.list_namespaces(c, &tenant.into()).await? {
                    for item in self.0.scan(c, &ns, ScanOptions::new()).await?.items {
                        noted.push((ns.clone(), item.key, item.meta.expires_at));
                    }
                }
            }
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let now = TenantId::new("clock")?;
            let now = Namespace::new(now);
            self.0.put(c, &now, "k", Bytes::new()).await?;
            let now = self.0.take(c, &now, "k").await?.map(|entry| entry.meta.updated_at);
            for (ns, key, expires_at) in noted {
                if expires_at.is_some() && expires_at <= now {
                    self.0.delete(c, &ns, &key).await?;
                }
            }
            self.0.evict_expired(c).await
        }
    }

    /// `usage` counts expired entries among the live ones.
    UsageCountsExpired {
        async fn usage(&self, c: Context<'_>, p: &NamespacePrefix) -> Result<Usage> {
            let usage = self.0.usage(c, p).await?;
            Ok(Usage { entries: usage.entries + usage.expired, ..usage })
        }
    }

    /// Tenants are found by their bare namespace.
    TenantsByBareNamespace {
        async fn scan_tenants(&self, c: Context<'_>, after: Option<&TenantId>, limit: usize)
            -> Result<Page<TenantId>> {
            let mut page = self.0.scan_tenants(c, after, limit).await?;
            let mut bare = Vec::new();
            for tenant in page.items {
                if !self.0.list(c, &Namespace::new(tenant.clone()), None).await?.is_empty() {
                    bare.push(tenant);
                }
            }
            page.items = bare;
            Ok(page)
        }
    }

    /// Values are kept as text.
    ValuesAreText {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let text = String::from_utf8_lossy(&v).into_owned();
            self.0.put(c, ns, key, Bytes::from(text)).await
        }
    }

    /// An error quotes the value.
    ErrorsShowValues {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let text = String::from_utf8_lossy(&v).into_owned();
            let put = self.0.put(c, ns, key, v).await;
            put.map_err(|error| Error::new(error.kind(), format!("cannot put {text}")))
        }
    }

    /// Keys past the limit are cut.
    KeysWithoutLimit {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let cut = key.get(..limits::MAX_KEY_BYTES).unwrap_or(key);
            self.0.put(c, ns, cut, v).await
        }
    }

    /// `get` takes no part in cooperative scheduling.
    GetNeverYields {
        async fn get(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<Option<Bytes>> {
            unconstrained(self.0.get(c, ns, key)).await
        }
    }

    /// `scan` refuses its arguments before it takes part.
    RefusesWithoutYielding {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            o.check()?;
            self.0.scan(c, ns, o).await
        }
    }

    /// `usage` takes no part in cooperative scheduling.
    UsageNeverYields {
        async fn usage(&self, c: Context<'_>, p: &NamespacePrefix) -> Result<Usage> {
            unconstrained(self.0.usage(c, p)).await
        }
    }

    /// `get` takes the runtime for granted.
    GetPanicsWithoutRuntime {
        async fn get(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<Option<Bytes>> {
            drop(Handle::current());
            self.0.get(c, ns, key).await
        }
    }

    /// `take` reports an outage where there is no runtime.
    TakeFailsWithoutRuntime {
        async fn take(&self, c: Context<'_>, ns: &Namespace, key: &str)
            -> Result<Option<Entry<Bytes>>> {
            if Handle::try_current().is_err() {
                return Err(Error::unavailable("the connection was lost"));
            }
            self.0.take(c, ns, key).await
        }
    }

    /// Nothing is asked of a store for no keys, so that a closed one answers.
    AnswersEmptyCallsWhenClosed {
        async fn get_many(&self, c: Context<'_>, ns: &Namespace, keys: &[&str])
            -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            self.0.get_many(c, ns, keys).await
        }
    }

    /// A closed store has nothing to list.
    ListsNothingWhenClosed {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>) -> Result<Vec<String>> {
            limits::check_prefix(p)?;
            Ok(self.0.list(c, ns, p).await.unwrap_or_default())
        }
    }

    /// A TTL that ends too late becomes the last instant.
    CutsTtls {
        async fn put_with_options(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions) -> Result<()> {
            let now = SystemClock.now();
            let late = o.expiry().check().is_ok() && o.expiry().resolve(now).is_err();
            let o = if late { o.with_expires_at(Timestamp::MAX) } else { o };
            self.0.put_with_options(c, ns, key, v, o).await
        }
    }

    /// A condition that does not hold hides a TTL that ends too late.
    JudgesConditionsBeforeTtls {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let entry = self.0.get_entry(c, ns, key, GetOptions::new()).await?;
            condition.check(entry.map(|entry| entry.meta.version))?;
            self.0.put_entry(c, ns, key, v, o, condition).await
        }

        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Option<Version>>> {
            for operation in batch.operations() {
                let entry = self.0.get_entry(c, ns, operation.key(), GetOptions::new()).await?;
                operation.condition().check(entry.map(|entry| entry.meta.version))?;
            }
            self.0.write(c, ns, batch).await
        }
    }

    /// An absent entry hides a TTL that ends too late.
    LooksForTheEntryBeforeTheTtl {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry) -> Result<bool> {
            match self.0.get(c, ns, key).await? {
                Some(_) => self.0.touch(c, ns, key, e).await,
                None => Ok(false),
            }
        }

        async fn get_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, o: GetOptions)
            -> Result<Option<Entry<Bytes>>> {
            match self.0.get(c, ns, key).await? {
                Some(_) => self.0.get_entry(c, ns, key, o).await,
                None => Ok(None),
            }
        }
    }
}

/// A clock whose monotonic time stands still.
#[derive(Debug)]
struct WithoutElapsed(ManualClock);

impl Clock for WithoutElapsed {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// SQL's LIKE, without an escape character.
fn like(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = &pattern[1..];
            let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.any(|at| like(&text[at..], rest))
        }
        Some(wanted) => {
            let Some(c) = text.chars().next() else {
                return false;
            };
            (wanted == '_' || wanted == c)
                && like(&text[c.len_utf8()..], &pattern[wanted.len_utf8()..])
        }
    }
}

/// One namespace for all, and the parts joined with `:` as the key.
fn joined(ns: &Namespace, key: &str) -> Result<(Namespace, String)> {
    limits::check_key(key)?;
    let mut parts = vec![ns.tenant().as_str().to_owned()];
    parts.extend(ns.segments().map(|segment| segment.into_owned()));
    parts.push(key.to_owned());
    Ok((Namespace::parse("all")?, parts.join(":")))
}

/// A namespace beside another, out of its tenant.
fn beside(ns: &Namespace) -> Result<Namespace> {
    Namespace::parse("beside")?.with_scope(ns.as_str())
}

/// The options with a TTL that is longer or shorter by that many milliseconds.
fn longer(options: PutOptions, millis: i64) -> PutOptions {
    let Expiry::After(ttl) = options.expiry() else {
        return options;
    };
    let ttl = match u64::try_from(millis) {
        Ok(more) => ttl.saturating_add(Duration::from_millis(more)),
        Err(_) => ttl.saturating_sub(Duration::from_millis(millis.unsigned_abs())),
    };
    options.with_ttl(ttl.max(Duration::from_nanos(1)))
}
