//! Every method of a store as a call that can be made again and again: with ordinary input, with
//! empty input, and with input that is refused.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, EntryStoreExt, Error, ExecutionContext, Expiry, GetOptions,
    Namespace, NamespacePrefix, PutOptions, Result, ScanOptions, Update, Version,
};
use futures_util::future::BoxFuture;

use crate::Sample;

/// No key holds NUL.
const BAD: &str = "\0";
const TTL: Duration = Duration::from_secs(3_600);

/// The arguments that all calls of a list share.
pub(crate) struct Target<V: Sample> {
    pub(crate) store: Arc<dyn EntryStore<V>>,
    pub(crate) ctx: ExecutionContext,
    pub(crate) ns: Namespace,
    /// A prefix of another tenant, with nothing under it.
    pub(crate) elsewhere: NamespacePrefix,
}

/// A call of one method.
pub(crate) struct Call<'a> {
    /// The method and its input.
    pub(crate) name: &'static str,
    make: Box<dyn Fn() -> BoxFuture<'a, Result<()>> + Send + Sync + 'a>,
}

impl<'a> Call<'a> {
    fn new<T, F>(name: &'static str, call: impl Fn() -> F + Send + Sync + 'a) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'a,
    {
        let make = move || -> BoxFuture<'a, Result<()>> {
            let answer = call();
            Box::pin(async move { answer.await.map(drop) })
        };
        Self { name, make: Box::new(make) }
    }

    pub(crate) async fn make(&self) -> Result<()> {
        (self.make)().await
    }
}

/// `name: call` for each.
macro_rules! calls {
    ($($name:literal: $call:expr;)*) => {
        vec![$(Call::new($name, move || $call)),*]
    };
}

impl<V: Sample> Target<V> {
    /// The core trait with input that every open store accepts.
    pub(crate) fn core(&self) -> Vec<Call<'_>> {
        let Self { store: s, ctx, ns, elsewhere } = self;
        let none = PutOptions::new();
        let short = none.with_ttl(TTL);
        calls! {
            "put": s.put(ctx, ns, "k", V::sample(1));
            "put_with_options": s.put_with_options(ctx, ns, "k", V::sample(1), none);
            "put_with_options (a TTL)": s.put_with_options(ctx, ns, "t", V::sample(1), short);
            "get": s.get(ctx, ns, "k");
            "get (absent)": s.get(ctx, ns, "absent");
            "delete (absent)": s.delete(ctx, ns, "absent");
            "list": s.list(ctx, ns, None);
            "list (a prefix)": s.list(ctx, ns, Some("absent"));
            "list_namespaces": s.list_namespaces(ctx, elsewhere);
            "evict_expired": s.evict_expired(ctx);
        }
    }

    /// The core trait with input that every store refuses.
    pub(crate) fn core_refused(&self) -> Vec<Call<'_>> {
        let Self { store: s, ctx, ns, .. } = self;
        let none = PutOptions::new();
        let zero = none.with_ttl(Duration::ZERO);
        calls! {
            "put (a bad key)": s.put(ctx, ns, BAD, V::sample(1));
            "put_with_options (a bad key)": s.put_with_options(ctx, ns, BAD, V::sample(1), none);
            "put_with_options (no TTL)": s.put_with_options(ctx, ns, "k", V::sample(1), zero);
            "get (a bad key)": s.get(ctx, ns, BAD);
            "delete (a bad key)": s.delete(ctx, ns, BAD);
            "list (a bad prefix)": s.list(ctx, ns, Some(BAD));
        }
    }

    /// `EntryStore` with input that every open store accepts, empty input included.
    pub(crate) fn entries(&self) -> Vec<Call<'_>> {
        let Self { store: s, ctx, ns, elsewhere } = self;
        let (none, always) = (PutOptions::new(), Condition::Always);
        let (read, sliding) = (GetOptions::new(), GetOptions::new().with_extended_ttl(TTL));
        calls! {
            "get_entry": s.get_entry(ctx, ns, "k", read);
            "get_entry (sliding)": s.get_entry(ctx, ns, "t", sliding);
            "get_entry (sliding, absent)": s.get_entry(ctx, ns, "absent", sliding);
            "get_many": s.get_many(ctx, ns, &["k", "absent"]);
            "get_many (no keys)": s.get_many(ctx, ns, &[]);
            "put_entry": s.put_entry(ctx, ns, "k", V::sample(1), none, always);
            "delete_entry (absent)": s.delete_entry(ctx, ns, "absent", always);
            "write": s.write(ctx, ns, Batch::new().put("k", V::sample(1)).delete("absent"));
            "write (no operations)": s.write(ctx, ns, Batch::new());
            "scan": s.scan(ctx, ns, ScanOptions::new());
            "scan_namespaces": s.scan_namespaces(ctx, elsewhere, None, 10);
            "touch": s.touch(ctx, ns, "k", Expiry::Never);
            "touch (absent)": s.touch(ctx, ns, "absent", Expiry::After(TTL));
            "take (absent)": s.take(ctx, ns, "absent");
            "erase": s.erase(ctx, elsewhere, 10);
            "usage": s.usage(ctx, elsewhere);
            "current_time": s.current_time(ctx, ns);
            "update (keep)": s.update(ctx, ns, "k", |_| Ok(Update::Keep));
            "update (put)": s.update(ctx, ns, "k", |_| Ok(Update::Put(V::sample(1))));
            "erase_all": s.erase_all(ctx, elsewhere);
        }
    }

    /// Apart from the others, because not every role may.
    pub(crate) fn tenants(&self) -> Call<'_> {
        Call::new("scan_tenants", || self.store.scan_tenants(&self.ctx, None, 10))
    }

    /// `EntryStore` with input that every store refuses, and with conditions that do not hold.
    pub(crate) fn entries_refused(&self) -> Vec<Call<'_>> {
        let Self { store: s, ctx, ns, elsewhere } = self;
        let (none, always) = (PutOptions::new(), Condition::Always);
        let (absent, other) = (Condition::IfAbsent, Condition::IfVersion(Version::draw()));
        let (read, zero) = (GetOptions::new(), Duration::ZERO);
        let sliding = read.with_extended_ttl(zero);
        calls! {
            "get_entry (a bad key)": s.get_entry(ctx, ns, BAD, read);
            "get_entry (no TTL)": s.get_entry(ctx, ns, "k", sliding);
            "get_many (a bad key)": s.get_many(ctx, ns, &[BAD]);
            "put_entry (a bad key)": s.put_entry(ctx, ns, BAD, V::sample(1), none, always);
            "put_entry (a conflict)": s.put_entry(ctx, ns, "k", V::sample(1), none, absent);
            "delete_entry (a bad key)": s.delete_entry(ctx, ns, BAD, always);
            "delete_entry (a conflict)": s.delete_entry(ctx, ns, "k", other);
            "write (a bad key)": s.write(ctx, ns, Batch::new().put(BAD, V::sample(1)));
            "write (a conflict)": s.write(ctx, ns, Batch::new().delete_if("k", other));
            "scan (no limit)": s.scan(ctx, ns, ScanOptions::new().with_limit(0));
            "scan_namespaces (no limit)": s.scan_namespaces(ctx, elsewhere, None, 0);
            "scan_tenants (no limit)": s.scan_tenants(ctx, None, 0);
            "touch (a bad key)": s.touch(ctx, ns, BAD, Expiry::Never);
            "touch (no TTL)": s.touch(ctx, ns, "k", Expiry::After(zero));
            "take (a bad key)": s.take(ctx, ns, BAD);
            "erase (no limit)": s.erase(ctx, elsewhere, 0);
            "update (an error)": s.update(ctx, ns, "k", |_| Err::<Update<V>, _>(refusal()));
            "update (a bad key)": s.update(ctx, ns, BAD, |_| Ok(Update::Keep));
        }
    }
}

fn refusal() -> Error {
    Error::invalid_argument("the decision refuses")
}
