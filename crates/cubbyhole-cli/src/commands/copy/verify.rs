//! `copy --verify`: reads both stores and compares them entry by entry.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Bytes, Error, ExecutionContext, Expiry, Namespace, Result, ScanItem, ScanOptions,
    Timestamp,
};
use futures_util::{TryStreamExt, stream};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pages::{FIRST_PAGE, next_limit};

use crate::args::scope::Scope;
use crate::entries::record::EntryLine;
use crate::entries::rerooting::Rerooting;
use crate::entries::walk::{Namespaces, order};

/// How many namespaces have their first pages read ahead.
const AHEAD: usize = 8;
/// The tolerance for expiry. The stores are not read at the same instant, so an entry of only one
/// store is ignored if it expires within this time of the later clock of the two stores.
const EXPIRY_TOLERANCE: Duration = Duration::from_secs(2);

/// The totals of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Side {
    pub(super) entries: u64,
    /// The bytes of keys and values.
    pub(super) bytes: u64,
    /// The digest of the lines that an export would have after its header.
    pub(super) sha256: String,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verified {
    pub(super) equal: bool,
    pub(super) source: Side,
    pub(super) target: Side,
    /// Entries of the source only.
    pub(super) missing: u64,
    /// Entries with another value or expiry.
    pub(super) different: u64,
    /// Entries of the target only.
    pub(super) extra: u64,
    pub(super) unreadable: u64,
    /// Entries of only one store that were ignored, because they had expired or were about to.
    pub(super) expired: u64,
}

/// The kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    Missing,
    Different,
    Extra,
    Unreadable,
}

/// Observes differences and progress.
pub(super) trait VerifyObserver {
    fn progress(&mut self, entries: u64);
    fn found(&mut self, found: Difference, namespace: &Namespace, key: &str);
}

/// Compares a scope of the source with its copy in the target. With `rerooting`, the namespaces have
/// other names in the target, and the results have those names.
pub(super) async fn run(
    ctx: &ExecutionContext,
    source: &Arc<dyn Backend>,
    target: &Arc<dyn Backend>,
    scope: &Scope,
    rerooting: Option<&Rerooting>,
    observer: &mut (dyn VerifyObserver + Send),
) -> Result<Verified> {
    let mut run = Comparison {
        observer,
        times: StoreTimes { ctx, stores: [source, target], asked: None },
        source: SideDigest::default(),
        target: SideDigest::default(),
        missing: 0,
        different: 0,
        extra: 0,
        unreadable: 0,
        expired: 0,
    };
    let names = MergedNamespaces::new(ctx, [source, target], scope, rerooting);
    let names = stream::unfold(names, |mut names| async move {
        names.next().await.transpose().map(|name| (name, names))
    });
    // Each read runs in a task: a call that is not polled would block its connection for the
    // others.
    let begin = |names: Names| {
        let mut source = EntryPages::new(source, ctx, names.source.as_ref());
        let mut target = EntryPages::new(target, ctx, Some(&names.target));
        let begun = AbortOnDrop(tokio::spawn(async move {
            tokio::try_join!(source.fill(), target.fill())?;
            Ok((names, source, target))
        }));
        async move { begun.ended().await }
    };
    let mut begun = std::pin::pin!(names.map_ok(begin).try_buffered(AHEAD));
    while let Some((names, mut source, mut target)) = begun.try_next().await? {
        run.namespace(&names, &mut source, &mut target).await?;
    }
    Ok(run.conclude())
}

/// A task that is aborted if its waiter is dropped.
struct AbortOnDrop<T>(JoinHandle<Result<T>>);

impl<T> AbortOnDrop<T> {
    async fn ended(mut self) -> Result<T> {
        (&mut self.0).await.unwrap_or_else(|panic| {
            Err(Error::internal("a namespace could not be read").with_source(panic))
        })
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The names of one namespace in both stores.
struct Names {
    /// `None` if the source cannot have the namespace, because its name there would be too long.
    source: Option<Namespace>,
    target: Namespace,
}

/// Merges the namespaces of both stores, by their names in the target. Each is returned once.
struct MergedNamespaces {
    source: NamespaceCursor,
    target: NamespaceCursor,
    /// Returns the name in the source.
    inverse: Option<Rerooting>,
}

struct NamespaceCursor {
    walk: Namespaces,
    rerooting: Option<Rerooting>,
    /// The name in the target.
    head: Option<Namespace>,
    ended: bool,
}

impl NamespaceCursor {
    fn new(walk: Namespaces, rerooting: Option<&Rerooting>) -> Self {
        Self { walk, rerooting: rerooting.cloned(), head: None, ended: false }
    }

    async fn peek(&mut self) -> Result<Option<&Namespace>> {
        if self.head.is_none() && !self.ended {
            let next = self.walk.next().await?;
            self.ended = next.is_none();
            self.head = match (&self.rerooting, next) {
                // Renaming keeps the order.
                (Some(rerooting), Some(namespace)) => Some(rerooting.apply(&namespace)?),
                (_, next) => next,
            };
        }
        Ok(self.head.as_ref())
    }
}

impl MergedNamespaces {
    fn new(
        ctx: &ExecutionContext,
        [source, target]: [&Arc<dyn Backend>; 2],
        scope: &Scope,
        rerooting: Option<&Rerooting>,
    ) -> Self {
        let walk = |store: &Arc<dyn Backend>, scope: &Scope| {
            Namespaces::new(Arc::clone(store), ctx.clone(), scope)
        };
        let renamed = rerooting.map(|rerooting| Scope(Some(rerooting.to().clone())));
        Self {
            source: NamespaceCursor::new(walk(source, scope), rerooting),
            target: NamespaceCursor::new(walk(target, renamed.as_ref().unwrap_or(scope)), None),
            inverse: rerooting.map(Rerooting::inverse),
        }
    }

    async fn next(&mut self) -> Result<Option<Names>> {
        let Some(target) = self.next_target().await? else { return Ok(None) };
        let source = match &self.inverse {
            Some(inverse) => inverse.apply(&target).ok(),
            None => Some(target.clone()),
        };
        Ok(Some(Names { source, target }))
    }

    async fn next_target(&mut self) -> Result<Option<Namespace>> {
        let Self { source, target, .. } = self;
        let (one, other) = (source.peek().await?, target.peek().await?);
        let (from_source, from_target) = match (one, other) {
            (None, None) => return Ok(None),
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(one), Some(other)) => {
                let order = order(one, other);
                (order.is_le(), order.is_ge())
            }
        };
        let target = from_target.then(|| target.head.take()).flatten();
        let source = from_source.then(|| source.head.take()).flatten();
        Ok(source.or(target))
    }
}

/// Iterates over the entries of a namespace, page by page.
struct EntryPages {
    store: Arc<dyn Backend>,
    ctx: ExecutionContext,
    items: VecDeque<ScanItem<Bytes>>,
    /// The namespace and the options of the next page; `None` after the last page.
    next: Option<(Namespace, ScanOptions)>,
}

impl EntryPages {
    /// Without a namespace there are no entries.
    fn new(
        store: &Arc<dyn Backend>,
        ctx: &ExecutionContext,
        namespace: Option<&Namespace>,
    ) -> Self {
        let next = namespace
            .map(|namespace| (namespace.clone(), ScanOptions::new().with_limit(FIRST_PAGE)));
        Self { store: Arc::clone(store), ctx: ctx.clone(), items: VecDeque::new(), next }
    }

    /// Reads the next page if no item is left.
    async fn fill(&mut self) -> Result<()> {
        while self.items.is_empty() {
            let Some((namespace, options)) = self.next.take() else { return Ok(()) };
            let page = self.store.scan(&self.ctx, &namespace, options.clone()).await?;
            let limit = next_limit(page.items.iter().map(|item| match &item.value {
                Some(Ok(value)) => item.key.len() + value.len(),
                _ => item.key.len(),
            }));
            self.items = page.items.into();
            self.next =
                page.next.map(|next| (namespace, options.with_after(next).with_limit(limit)));
        }
        Ok(())
    }
}

#[derive(Default)]
struct SideDigest {
    entries: u64,
    bytes: u64,
    digest: Sha256,
}

impl SideDigest {
    fn add(&mut self, namespace: &Namespace, item: &ScanItem<Bytes>, value: &Bytes) -> Result<()> {
        self.entries += 1;
        self.bytes += (item.key.len() + value.len()) as u64;
        let line = EntryLine::new(namespace, &item.key)
            .with_value(value)
            .with_expiry(Expiry::of(&item.meta));
        serde_json::to_writer(Hashing(&mut self.digest), &line)
            .map_err(|error| Error::internal("an entry has no line").with_source(error))?;
        self.digest.update(b"\n");
        Ok(())
    }

    fn conclude(self) -> Side {
        let mut sha256 = String::with_capacity(64);
        for byte in self.digest.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        Side { entries: self.entries, bytes: self.bytes, sha256 }
    }
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The clocks of the two stores, for one namespace.
struct StoreTimes<'a> {
    ctx: &'a ExecutionContext,
    stores: [&'a Arc<dyn Backend>; 2],
    /// The later time of the two, and when it was read.
    asked: Option<(Timestamp, Instant)>,
}

impl StoreTimes<'_> {
    /// Whether an entry of only one store may have expired in the other.
    async fn may_have_expired<V>(&mut self, names: &Names, item: &ScanItem<V>) -> Result<bool> {
        let Some(instant) = item.meta.expires_at else { return Ok(false) };
        let (time, asked) = match self.asked {
            Some(known) => known,
            None => {
                let asked = Instant::now();
                let [source, target] = self.stores;
                let (one, other) = tokio::try_join!(
                    source.current_time(self.ctx, names.source.as_ref().unwrap_or(&names.target)),
                    target.current_time(self.ctx, &names.target),
                )?;
                *self.asked.insert((one.max(other), asked))
            }
        };
        let soon = time.checked_add(asked.elapsed() + EXPIRY_TOLERANCE).unwrap_or(Timestamp::MAX);
        Ok(instant <= soon)
    }
}

struct Comparison<'a> {
    observer: &'a mut (dyn VerifyObserver + Send),
    times: StoreTimes<'a>,
    source: SideDigest,
    target: SideDigest,
    missing: u64,
    different: u64,
    extra: u64,
    unreadable: u64,
    expired: u64,
}

impl Comparison<'_> {
    async fn namespace(
        &mut self,
        names: &Names,
        source: &mut EntryPages,
        target: &mut EntryPages,
    ) -> Result<()> {
        self.times.asked = None;
        loop {
            tokio::try_join!(source.fill(), target.fill())?;
            let order = match (source.items.front(), target.items.front()) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(one), Some(other)) => one.key.cmp(&other.key),
            };
            let one = order.is_le().then(|| source.items.pop_front()).flatten();
            let other = order.is_ge().then(|| target.items.pop_front()).flatten();
            self.pair(names, one, other).await?;
        }
    }

    async fn pair(
        &mut self,
        names: &Names,
        one: Option<ScanItem<Bytes>>,
        other: Option<ScanItem<Bytes>>,
    ) -> Result<()> {
        let found = match (&one, &other) {
            (Some(one), Some(other)) => self.compare(one, other),
            (Some(alone), None) | (None, Some(alone)) => {
                if self.times.may_have_expired(names, alone).await? {
                    self.expired += 1;
                    return Ok(());
                }
                Some(if one.is_some() { Difference::Missing } else { Difference::Extra })
            }
            (None, None) => None,
        };
        for (item, sum) in [(&one, &mut self.source), (&other, &mut self.target)] {
            if let Some(item) = item
                && let Some(Ok(value)) = &item.value
            {
                sum.add(&names.target, item, value)?;
            }
        }
        let Some(item) = one.or(other) else { return Ok(()) };
        if let Some(found) = found {
            match found {
                Difference::Missing => self.missing += 1,
                Difference::Different => self.different += 1,
                Difference::Extra => self.extra += 1,
                Difference::Unreadable => self.unreadable += 1,
            }
            self.observer.found(found, &names.target, &item.key);
        }
        self.observer.progress(self.source.entries);
        Ok(())
    }

    fn compare(&self, one: &ScanItem<Bytes>, other: &ScanItem<Bytes>) -> Option<Difference> {
        match (&one.value, &other.value) {
            (Some(Ok(value)), Some(Ok(copied))) => {
                let equal = value == copied && Expiry::of(&one.meta) == Expiry::of(&other.meta);
                (!equal).then_some(Difference::Different)
            }
            _ => Some(Difference::Unreadable),
        }
    }

    fn conclude(self) -> Verified {
        let Self { missing, different, extra, unreadable, expired, .. } = self;
        let (source, target) = (self.source.conclude(), self.target.conclude());
        let equal = missing + different + extra + unreadable == 0 && source == target;
        Verified { equal, source, target, missing, different, extra, unreadable, expired }
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole::PutOptions;

    use super::*;

    #[derive(Default)]
    struct Listing(Vec<(Difference, String)>);

    impl VerifyObserver for Listing {
        fn progress(&mut self, _: u64) {}

        fn found(&mut self, found: Difference, namespace: &Namespace, key: &str) {
            self.0.push((found, format!("{namespace}/{key}")));
        }
    }

    #[tokio::test]
    async fn differences_are_found_and_expiring_entries_are_ignored() {
        let ctx = ExecutionContext::new();
        let source = cubbyhole::open(&ctx, "memory:").await.unwrap();
        let target = cubbyhole::open(&ctx, "memory:").await.unwrap();
        let put = async |stores: &[&Arc<dyn Backend>], name: &str, key: &str, options| {
            for store in stores {
                let namespace = Namespace::parse(name).unwrap();
                let value = Bytes::from_static(b"1");
                store.put_with_options(&ctx, &namespace, key, value, options).await.unwrap();
            }
        };
        let forever = PutOptions::new();
        let late = PutOptions::new().with_expires_at(Timestamp::MAX);
        let soon = PutOptions::new().with_ttl(EXPIRY_TOLERANCE / 2);
        for number in 0..300 {
            put(&[&source, &target], "acme:long", &format!("{number:04}"), forever).await;
        }
        let verified =
            run(&ctx, &source, &target, &Scope(None), None, &mut Listing::default()).await;
        let verified = verified.unwrap();
        assert!(verified.equal && verified.source.entries == 300, "{verified:?}");

        put(&[&source], "acme", "missing", forever).await;
        put(&[&source], "acme:long", "0150+", forever).await;
        put(&[&source], "acme", "expiry", late).await;
        put(&[&target], "acme", "expiry", forever).await;
        put(&[&target], "globex", "extra", late).await;
        put(&[&source], "acme", "soon", soon).await;
        put(&[&target], "initech", "soon", soon).await;
        let mut listing = Listing::default();
        let verified = run(&ctx, &source, &target, &Scope(None), None, &mut listing).await.unwrap();
        let expected = [
            (Difference::Different, "acme/expiry"),
            (Difference::Missing, "acme/missing"),
            (Difference::Missing, "acme:long/0150+"),
            (Difference::Extra, "globex/extra"),
        ];
        assert_eq!(listing.0, expected.map(|(found, name)| (found, name.to_owned())));
        assert!(!verified.equal);
        let counts = (verified.missing, verified.different, verified.extra, verified.expired);
        assert_eq!(counts, (2, 1, 1, 2));
        assert_ne!(verified.source.sha256, verified.target.sha256);
    }
}
