//! Calls of a scoped store with hostile names. The fuzz target `scope` uses this file too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryStat, EntryStore, Erased, ErrorKind, ExecutionContext,
    Expiry, GetOptions, Namespace, NamespacePrefix, Page, Position, PutOptions,
    RecursiveScanOptions, Result, ScanItem, ScanOptions, Store, TenantId, Timestamp, Usage,
    Version, Written, async_trait,
};
use cubbyhole_layers::Scoped;
use cubbyhole_memory::InMemoryStore;

/// Pieces of names: separators, escapes, empty segments, and names that are prefixes of each other.
const PIECES: [&str; 14] =
    ["a", "ab", "b", ":", "::", r"\:", r"\\", r"\", "\0", "a:", "-", "%", "\u{10ffff}", "a:b"];

/// A store that fails the test if a call names anything outside the scope.
struct Guarded {
    inner: InMemoryStore<Bytes>,
    scope: NamespacePrefix,
    calls: Arc<AtomicUsize>,
}

impl Guarded {
    fn check(&self, ns: &Namespace) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Compares segments, because the layer compares text.
        let scope: Vec<_> = self.scope.as_namespace().segments().collect();
        let segments: Vec<_> = ns.segments().collect();
        assert_eq!(ns.tenant(), self.scope.tenant(), "a call left the scope: {ns}");
        assert!(segments.starts_with(&scope), "a call left the scope: {ns}");
    }
}

/// Implements a trait with methods that check the first argument, and others.
macro_rules! guarded {
    ($store:ident {
        $($name:ident($first:ident: $kind:ty $(, $arg:ident: $ty:ty)*) -> $out:ty;)*
    } others { $($others:tt)* }) => {
        #[async_trait]
        impl $store<Bytes> for Guarded {
            $(async fn $name(
                &self, ctx: &ExecutionContext, $first: $kind $(, $arg: $ty)*
            ) -> Result<$out> {
                self.check(Checked::namespace($first));
                self.inner.$name(ctx, $first $(, $arg)*).await
            })*

            $($others)*
        }
    };
}

/// The namespace of an argument that names one.
trait Checked {
    fn namespace(&self) -> &Namespace;
}

impl Checked for Namespace {
    fn namespace(&self) -> &Namespace {
        self
    }
}

impl Checked for NamespacePrefix {
    fn namespace(&self) -> &Namespace {
        self.as_namespace()
    }
}

guarded! { Store {
        put_with_options(ns: &Namespace, key: &str, value: Bytes, options: PutOptions) -> ();
        get(ns: &Namespace, key: &str) -> Option<Bytes>;
        delete(ns: &Namespace, key: &str) -> ();
        list(ns: &Namespace, prefix: Option<&str>) -> Vec<String>;
        put(ns: &Namespace, key: &str, value: Bytes) -> ();
        list_namespaces(prefix: &NamespacePrefix) -> Vec<Namespace>;
    } others {
    async fn evict_expired(&self, _: &ExecutionContext) -> Result<usize> {
        panic!("a scope must not sweep")
    }
}}

guarded! { EntryStore {
        get_entry(ns: &Namespace, key: &str, options: GetOptions) -> Option<Entry<Bytes>>;
        get_many(
            ns: &Namespace, keys: &[&str], options: GetOptions
        ) -> Vec<Result<Option<Entry<Bytes>>>>;
        stat(ns: &Namespace, keys: &[&str]) -> Vec<Option<EntryStat>>;
        put_entry(
            ns: &Namespace, key: &str, value: Bytes, options: PutOptions, condition: Condition
        ) -> Version;
        delete_entry(ns: &Namespace, key: &str, condition: Condition) -> bool;
        write(ns: &Namespace, batch: Batch<Bytes>) -> Vec<Written>;
        scan(ns: &Namespace, options: ScanOptions) -> Page<ScanItem<Bytes>, String>;
        touch(ns: &Namespace, key: &str, expiry: Expiry, condition: Condition) -> bool;
        take(ns: &Namespace, key: &str) -> Option<Entry<Bytes>>;
        delete_prefix(ns: &Namespace, key_prefix: &str, limit: usize) -> Erased;
        erase(prefix: &NamespacePrefix, limit: usize) -> Erased;
        usage(prefix: &NamespacePrefix) -> Usage;
        current_time(ns: &Namespace) -> Timestamp;
    } others {
    async fn scan_recursive(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        options: RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        self.check(prefix.as_namespace());
        if let Some(after) = options.after() {
            self.check(&after.namespace);
        }
        self.inner.scan_recursive(ctx, prefix, options).await
    }

    async fn scan_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        self.check(prefix.as_namespace());
        after.into_iter().for_each(|after| self.check(after));
        self.inner.scan_namespaces(ctx, prefix, after, limit).await
    }

    async fn scan_tenants(
        &self,
        _: &ExecutionContext,
        _: Option<&TenantId>,
        _: usize,
    ) -> Result<Page<TenantId>> {
        panic!("a scope must not list tenants")
    }
}}

/// Reads choices from the bytes of an input, and zeros at its end.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % limit
    }

    fn text(&mut self) -> String {
        (0..self.below(6)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }

    fn namespace(&mut self) -> Option<Namespace> {
        Namespace::parse(&self.text()).ok()
    }
}

/// Makes the calls that `data` describes, and panics if one of them leaves the scope.
pub(crate) async fn run(data: &[u8]) {
    let mut choices = Choices(data.iter());
    let Some(scope) = choices.namespace().map(NamespacePrefix::from) else { return };
    let relative = choices.below(2) == 0;
    let inner = InMemoryStore::<Bytes>::new();
    let ctx = ExecutionContext::new();
    let outside = fill(&inner, &scope).await;
    let calls = Arc::<AtomicUsize>::default();
    let guarded = Guarded { inner: inner.clone(), scope: scope.clone(), calls: Arc::clone(&calls) };
    let scoped = match relative {
        true => Scoped::relative(guarded, scope.clone()),
        false => Scoped::within(guarded, scope.clone()),
    };
    for _ in 0..12 {
        let (Some(ns), Some(other)) = (choices.namespace(), choices.namespace()) else { continue };
        let before = calls.load(Ordering::Relaxed);
        let names_outside = !relative && !scope.matches(&ns);
        let error = call(&scoped, &ctx, choices.below(12), &ns, &other, &choices.text()).await;
        if names_outside {
            assert_eq!(error, Some(ErrorKind::PermissionDenied), "{ns} in the scope {scope}");
            let asked = calls.load(Ordering::Relaxed) - before;
            assert_eq!(asked, 0, "the inner store was asked about a name outside");
        }
    }
    for ns in outside {
        let kept = inner.get(&ctx, &ns, "k").await.unwrap();
        assert_eq!(kept.as_deref(), Some(ns.as_str().as_bytes()), "{ns} was changed");
    }
}

/// Writes entries to many namespaces, and returns those outside the scope.
async fn fill(inner: &InMemoryStore<Bytes>, scope: &NamespacePrefix) -> Vec<Namespace> {
    let ctx = ExecutionContext::new();
    let mut outside = Vec::new();
    for head in ["", scope.as_str()] {
        for tail in ["", "a", "ab", ":a", ":ab", ":a:b", "::", ":", r"\:", r"\\", "-", "b:a"] {
            let Ok(ns) = Namespace::parse(&format!("{head}{tail}")) else { continue };
            let value = Bytes::copy_from_slice(ns.as_str().as_bytes());
            inner.put(&ctx, &ns, "k", value).await.unwrap();
            if !scope.matches(&ns) {
                outside.push(ns);
            }
        }
    }
    outside
}

/// Makes one call, checks the names in its result, and returns the kind of its error.
async fn call(
    scoped: &Scoped<Guarded>,
    ctx: &ExecutionContext,
    which: usize,
    ns: &Namespace,
    other: &Namespace,
    key: &str,
) -> Option<ErrorKind> {
    let prefix = NamespacePrefix::from(ns);
    let names_are_under = |names: &[Namespace]| {
        for name in names {
            assert!(prefix.matches(name), "{name} is not under {prefix}");
        }
    };
    let ended = match which {
        0 => scoped.put(ctx, ns, key, Bytes::new()).await,
        1 => scoped.get(ctx, ns, "k").await.map(drop),
        2 => scoped
            .write(ctx, ns, Batch::new().delete(key).delete_if("k", Condition::IfPresent))
            .await
            .map(drop),
        3 => scoped.list_namespaces(ctx, &prefix).await.map(|names| names_are_under(&names)),
        4 => scoped.erase(ctx, &prefix, 1000).await.map(drop),
        5 => scoped.delete_prefix(ctx, ns, "", 1000).await.map(drop),
        6 => scoped.usage(ctx, &prefix).await.map(drop),
        7 => {
            let page = scoped.scan_namespaces(ctx, &prefix, Some(other), 3).await;
            page.map(|page| names_are_under(&page.items))
        }
        8 => {
            let after = Position { namespace: other.clone(), key: key.to_owned() };
            let options = RecursiveScanOptions::new().with_after(after).with_limit(3);
            let page = scoped.scan_recursive(ctx, &prefix, options).await;
            page.map(|page| {
                names_are_under(&page.items.into_iter().map(|(ns, _)| ns).collect::<Vec<_>>());
                names_are_under(
                    &page.next.map(|next| next.namespace).into_iter().collect::<Vec<_>>(),
                );
            })
        }
        9 => scoped.take(ctx, ns, "k").await.map(drop),
        10 => {
            let error = scoped.scan_tenants(ctx, None, 10).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(scoped.evict_expired(ctx).await.is_err());
            scoped.touch(ctx, ns, "k", Expiry::Never, Condition::Always).await.map(drop)
        }
        _ => scoped.scan(ctx, ns, ScanOptions::new()).await.map(drop),
    };
    ended.err().map(|error| error.kind())
}
