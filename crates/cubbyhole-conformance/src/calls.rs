//! Calls of every method, for the cases that must hold for all of them. There are calls with valid
//! input, with empty input, and with input that every store rejects.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::limits::MAX_BATCH_OPERATIONS;
use cubbyhole_core::{
    Batch, Condition, EntryStore, EntryStoreExt, Error, ExecutionContext, Expiry, GetOptions,
    Namespace, NamespacePrefix, Position, PutOptions, RecursiveScanOptions, Result, ScanOptions,
    Update, Version,
};
use futures_util::future::BoxFuture;

use crate::Sample;

/// Not a valid key: it contains NUL.
const BAD: &str = "\0";
const TTL: Duration = Duration::from_secs(3_600);

/// The store and the arguments of the calls.
pub(crate) struct CallTarget<V: Sample> {
    pub(crate) store: Arc<dyn EntryStore<V>>,
    pub(crate) ctx: ExecutionContext,
    pub(crate) ns: Namespace,
    /// A prefix of another tenant, which has no entries.
    pub(crate) empty_prefix: NamespacePrefix,
}

/// A call of one method, which can be repeated.
pub(crate) struct MethodCall<'a> {
    /// The method and its input.
    pub(crate) name: &'static str,
    make: Box<dyn Fn() -> BoxFuture<'a, Result<()>> + Send + Sync + 'a>,
}

impl<'a> MethodCall<'a> {
    fn new<T, F>(name: &'static str, call: impl Fn() -> F + Send + Sync + 'a) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'a,
    {
        let make = move || -> BoxFuture<'a, Result<()>> {
            let reply = call();
            Box::pin(async move { reply.await.map(drop) })
        };
        Self { name, make: Box::new(make) }
    }

    pub(crate) async fn make(&self) -> Result<()> {
        (self.make)().await
    }
}

/// Builds a list of calls from lines of `name: call`.
macro_rules! calls {
    ($($name:literal: $call:expr;)*) => {
        vec![$(MethodCall::new($name, move || $call)),*]
    };
}

impl<V: Sample> CallTarget<V> {
    /// Returns calls of `Store` with input that every open store accepts.
    pub(crate) fn core(&self) -> Vec<MethodCall<'_>> {
        let Self { store: s, ctx, ns, empty_prefix } = self;
        let none = PutOptions::new();
        let short = none.with_ttl(TTL);
        calls! {
            "put": s.put(ctx, ns, "k", V::sample(1));
            "put_with_options": s.put_with_options(ctx, ns, "k", V::sample(1), none);
            "put_with_options (with a TTL)": s.put_with_options(ctx, ns, "t", V::sample(1), short);
            "get": s.get(ctx, ns, "k");
            "get (absent)": s.get(ctx, ns, "absent");
            "delete (absent)": s.delete(ctx, ns, "absent");
            "list": s.list(ctx, ns, None);
            "list (with a prefix)": s.list(ctx, ns, Some("absent"));
            "list_namespaces": s.list_namespaces(ctx, empty_prefix);
            "evict_expired": s.evict_expired(ctx);
        }
    }

    /// Returns calls of `Store` with input that every store rejects.
    pub(crate) fn core_rejected(&self) -> Vec<MethodCall<'_>> {
        let Self { store: s, ctx, ns, .. } = self;
        let none = PutOptions::new();
        let zero = none.with_ttl(Duration::ZERO);
        calls! {
            "put (invalid key)": s.put(ctx, ns, BAD, V::sample(1));
            "put_with_options (invalid key)": s.put_with_options(ctx, ns, BAD, V::sample(1), none);
            "put_with_options (TTL of zero)": s.put_with_options(ctx, ns, "k", V::sample(1), zero);
            "get (invalid key)": s.get(ctx, ns, BAD);
            "delete (invalid key)": s.delete(ctx, ns, BAD);
            "list (invalid prefix)": s.list(ctx, ns, Some(BAD));
        }
    }

    /// Returns calls of `EntryStore` with input that every open store accepts, including empty
    /// input.
    pub(crate) fn entries(&self) -> Vec<MethodCall<'_>> {
        let Self { store: s, ctx, ns, empty_prefix } = self;
        let (none, always) = (PutOptions::new(), Condition::Always);
        let (read, sliding) = (GetOptions::new(), GetOptions::new().with_extended_ttl(TTL));
        let (refresh, deep) = (GetOptions::new().refreshing(), RecursiveScanOptions::new());
        calls! {
            "get_entry": s.get_entry(ctx, ns, "k", read);
            "get_entry (sliding)": s.get_entry(ctx, ns, "t", sliding);
            "get_entry (sliding, absent)": s.get_entry(ctx, ns, "absent", sliding);
            "get_entry (refreshing)": s.get_entry(ctx, ns, "t", refresh);
            "get_many": s.get_many(ctx, ns, &["k", "absent"], read);
            "get_many (no keys)": s.get_many(ctx, ns, &[], read);
            "get_many (refreshing)": s.get_many(ctx, ns, &["k", "t"], refresh);
            "get_many (refreshing, no keys)": s.get_many(ctx, ns, &[], refresh);
            "stat": s.stat(ctx, ns, &["k", "absent"]);
            "stat (no keys)": s.stat(ctx, ns, &[]);
            "put_entry": s.put_entry(ctx, ns, "k", V::sample(1), none, always);
            "delete_entry (absent)": s.delete_entry(ctx, ns, "absent", always);
            "write": s.write(ctx, ns, Batch::new().put("k", V::sample(1)).delete("absent"));
            "write (no operations)": s.write(ctx, ns, Batch::new());
            "scan": s.scan(ctx, ns, ScanOptions::new());
            "scan (reversed)": s.scan(ctx, ns, ScanOptions::new().reversed());
            "scan (refreshing)": s.scan(ctx, ns, ScanOptions::new().refreshing());
            "scan_recursive": s.scan_recursive(ctx, empty_prefix, deep.clone());
            "scan_namespaces": s.scan_namespaces(ctx, empty_prefix, None, 10);
            "touch": s.touch(ctx, ns, "k", Expiry::Never, always);
            "touch (absent)": s.touch(ctx, ns, "absent", Expiry::After(TTL), always);
            "take (absent)": s.take(ctx, ns, "absent");
            "delete_prefix": s.delete_prefix(ctx, ns, "absent", 10);
            "erase": s.erase(ctx, empty_prefix, 10);
            "usage": s.usage(ctx, empty_prefix);
            "current_time": s.current_time(ctx, ns);
            "update (keep)": s.update(ctx, ns, "k", |_| Ok(Update::Keep));
            "update (put)": s.update(ctx, ns, "k", |_| Ok(Update::Put(V::sample(1))));
            "append": s.append(ctx, ns, "log-", vec![V::sample(1)], none);
            "append (no values)": s.append(ctx, ns, "log-", Vec::new(), none);
            "last": s.last(ctx, ns, "", 1);
            "last (none)": s.last(ctx, ns, "", 0);
            "erase_all": s.erase_all(ctx, empty_prefix);
        }
    }

    /// Returns the call of `scan_tenants`. It is separate because not every role is allowed to see
    /// across tenants.
    pub(crate) fn tenants(&self) -> MethodCall<'_> {
        MethodCall::new("scan_tenants", || self.store.scan_tenants(&self.ctx, None, 10))
    }

    /// Returns calls of `EntryStore` with input that every store rejects, and with conditions that
    /// do not hold.
    pub(crate) fn entries_rejected(&self) -> Vec<MethodCall<'_>> {
        let Self { store: s, ctx, ns, empty_prefix } = self;
        let (none, always) = (PutOptions::new(), Condition::Always);
        let (absent, other) = (Condition::IfAbsent, Condition::IfVersion(Version::draw()));
        let (read, zero) = (GetOptions::new(), Duration::ZERO);
        let sliding = read.with_extended_ttl(zero);
        let version = Version::draw();
        let outside = Position { namespace: ns.clone(), key: "k".to_owned() };
        let outside = RecursiveScanOptions::new().with_after(outside);
        let many = || vec![V::sample(1); MAX_BATCH_OPERATIONS + 1];
        calls! {
            "get_entry (invalid key)": s.get_entry(ctx, ns, BAD, read);
            "get_entry (TTL of zero)": s.get_entry(ctx, ns, "k", sliding);
            "get_many (invalid key)": s.get_many(ctx, ns, &[BAD], read);
            "get_many (TTL of zero, no keys)": s.get_many(ctx, ns, &[], sliding);
            "stat (invalid key)": s.stat(ctx, ns, &[BAD]);
            "put_entry (invalid key)": s.put_entry(ctx, ns, BAD, V::sample(1), none, always);
            "put_entry (conflict)": s.put_entry(ctx, ns, "k", V::sample(1), none, absent);
            "delete_entry (invalid key)": s.delete_entry(ctx, ns, BAD, always);
            "delete_entry (conflict)": s.delete_entry(ctx, ns, "k", other);
            "write (invalid key)": s.write(ctx, ns, Batch::new().put(BAD, V::sample(1)));
            "write (conflict)": s.write(ctx, ns, Batch::new().delete_if("k", other));
            "scan (limit 0)": s.scan(ctx, ns, ScanOptions::new().with_limit(0));
            "scan_recursive (outside)": s.scan_recursive(ctx, empty_prefix, outside.clone());
            "scan_namespaces (limit 0)": s.scan_namespaces(ctx, empty_prefix, None, 0);
            "scan_tenants (limit 0)": s.scan_tenants(ctx, None, 0);
            "touch (invalid key)": s.touch(ctx, ns, BAD, Expiry::Never, always);
            "touch (TTL of zero)": s.touch(ctx, ns, "k", Expiry::After(zero), always);
            "touch (idle TTL of zero)": s.touch(ctx, ns, "k", Expiry::Idle(zero), always);
            "touch (conflict)": s.touch(ctx, ns, "k", Expiry::Never, other);
            "take (invalid key)": s.take(ctx, ns, BAD);
            "delete_prefix (limit 0)": s.delete_prefix(ctx, ns, "", 0);
            "delete_prefix (invalid prefix)": s.delete_prefix(ctx, ns, BAD, 10);
            "erase (limit 0)": s.erase(ctx, empty_prefix, 0);
            "update (closure fails)": s.update(ctx, ns, "k", |_| Err::<Update<V>, _>(refusal()));
            "update (invalid key)": s.update(ctx, ns, BAD, |_| Ok(Update::Keep));
            "insert (conflict)": s.insert(ctx, ns, "k", V::sample(1), none);
            "replace (conflict)": s.replace(ctx, ns, "k", V::sample(1), version);
            "append (invalid prefix)": s.append(ctx, ns, BAD, vec![V::sample(1)], none);
            "append (too many values)": s.append(ctx, ns, "log-", many(), none);
            "last (invalid prefix)": s.last(ctx, ns, BAD, 1);
        }
    }
}

fn refusal() -> Error {
    Error::invalid_argument("the closure of update returns an error")
}
