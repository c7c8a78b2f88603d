//! Checks for a read-only store: it returns the same results as the writable store, and rejects
//! every write.
//!
//! The cases of the suite write, so they cannot run on a read-only store. Fill a store, save its
//! [`answers`], open it read-only, and compare:
//!
//! ```
//! use cubbyhole_conformance::read_only::{answers, check_refusals};
//! use cubbyhole_core::{ExecutionContext, Namespace, ReadOnly, Store};
//! use cubbyhole_memory::InMemoryStore;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let store = InMemoryStore::<String>::new();
//! let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! let expected = answers(&store).await?;
//!
//! let store = ReadOnly::new(store);
//! assert_eq!(answers(&store).await?, expected);
//! check_refusals(&store, "other".to_owned()).await?;
//! # Ok(())
//! # })
//! # }
//! ```

use std::fmt::Debug;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, ExecutionContext, Expiry, GetOptions, Namespace,
    NamespacePrefix, PutOptions, RecursiveScanOptions, Result, ScanOptions, TenantId,
};

/// A small page size, so the stores of tests have several pages.
const PAGE: usize = 3;

/// A namespace and key that no store is expected to have.
const ABSENT: &str = "absent-7e0c";

/// Calls every reading method for all data of the store, and returns the results, one line for each
/// call.
///
/// # Errors
/// Any error of the store.
pub async fn answers<V>(store: &dyn EntryStore<V>) -> Result<Vec<String>>
where
    V: Debug + Send + 'static,
{
    let ctx = ExecutionContext::new();
    let mut lines = Vec::new();
    let mut tenants: Vec<TenantId> = Vec::new();
    loop {
        let page = store.scan_tenants(&ctx, tenants.last(), PAGE).await?;
        tenants.extend(page.items);
        if page.next.is_none() {
            break;
        }
    }
    lines.push(format!("tenants {tenants:?}"));
    for tenant in tenants {
        let prefix = NamespacePrefix::from(Namespace::new(tenant));
        let all = store.list_namespaces(&ctx, &prefix).await?;
        let usage = store.usage(&ctx, &prefix).await?;
        lines.push(format!("{prefix}: namespaces {all:?}, usage {usage:?}"));
        let mut namespaces: Vec<Namespace> = Vec::new();
        loop {
            let page = store.scan_namespaces(&ctx, &prefix, namespaces.last(), PAGE).await?;
            namespaces.extend(page.items);
            if page.next.is_none() {
                break;
            }
        }
        lines.push(format!("{prefix}: scanned namespaces {namespaces:?}"));
        let mut options = RecursiveScanOptions::new().with_limit(PAGE);
        loop {
            let page = store.scan_recursive(&ctx, &prefix, options.clone()).await?;
            lines.push(format!("{prefix}: page of the recursive scan {:?}", page.items));
            let Some(last) = page.next else { break };
            options = options.with_after(last);
        }
        for namespace in namespaces {
            add_namespace(store, &ctx, &namespace, &mut lines).await?;
        }
    }
    Ok(lines)
}

/// Adds the results for one namespace.
async fn add_namespace<V>(
    store: &dyn EntryStore<V>,
    ctx: &ExecutionContext,
    ns: &Namespace,
    lines: &mut Vec<String>,
) -> Result<()>
where
    V: Debug + Send + 'static,
{
    let mut keys = store.list(ctx, ns, None).await?;
    lines.push(format!("{ns}: keys {keys:?}"));
    let options = ScanOptions::new().with_limit(PAGE);
    for mut options in [options.clone(), options.clone().keys_only(), options.reversed()] {
        loop {
            let page = store.scan(ctx, ns, options.clone()).await?;
            lines.push(format!("{ns}: page {:?}", page.items));
            let Some(last) = page.next else { break };
            options = options.with_after(last);
        }
    }
    keys.push(ABSENT.to_owned());
    for key in &keys {
        let value = store.get(ctx, ns, key).await?;
        let entry = store.get_entry(ctx, ns, key, GetOptions::new()).await?;
        let prefixed = store.list(ctx, ns, Some(key)).await?;
        lines.push(format!(
            "{ns} {key}: {value:?}, entry {entry:?}, keys with this prefix {prefixed:?}"
        ));
    }
    for some in keys.chunks(PAGE) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        let many = store.get_many(ctx, ns, &some, GetOptions::new()).await?;
        let stats = store.stat(ctx, ns, &some).await?;
        lines.push(format!("{ns} {some:?}: {many:?}, stats {stats:?}"));
    }
    Ok(())
}

/// Calls every writing method, for an existing and for an absent entry.
///
/// Each call must return `PermissionDenied`, and its error must say that it certainly had no
/// effect. The [`answers`] of the store must not change.
///
/// # Errors
/// The first method that breaks a rule, with its result, or an error of a reading method.
pub async fn check_refusals<V>(store: &dyn EntryStore<V>, value: V) -> Result<(), String>
where
    V: Debug + Clone + Send + 'static,
{
    let ctx = ExecutionContext::new();
    let read =
        || async { answers(store).await.map_err(|error| format!("a read failed: {error:?}")) };
    let before = read().await?;
    let absent = Namespace::parse(ABSENT).map_err(|error| error.to_string())?;
    let mut locations = vec![(absent.clone(), ABSENT.to_owned())];
    let existing = first(store, &ctx).await.map_err(|error| format!("a read failed: {error:?}"))?;
    locations.extend(existing);
    for (ns, key) in &locations {
        check_writes(store, &ctx, ns, key, value.clone()).await?;
    }
    if read().await? == before {
        Ok(())
    } else {
        Err("a write changed the data, although all writes were rejected".to_owned())
    }
}

/// Returns the location of an entry, if the store has one.
async fn first<V: Send + 'static>(
    store: &dyn EntryStore<V>,
    ctx: &ExecutionContext,
) -> Result<Option<(Namespace, String)>> {
    let tenants = store.scan_tenants(ctx, None, 1).await?;
    let Some(tenant) = tenants.items.into_iter().next() else { return Ok(None) };
    let prefix = NamespacePrefix::from(Namespace::new(tenant));
    let namespaces = store.scan_namespaces(ctx, &prefix, None, 1).await?;
    let Some(ns) = namespaces.items.into_iter().next() else { return Ok(None) };
    let key = store.list(ctx, &ns, None).await?.into_iter().next();
    Ok(key.map(|key| (ns, key)))
}

fn refused<T>(method: &str, result: Result<T>) -> Result<(), String> {
    match result {
        Ok(_) => Err(format!("{method} must fail with PermissionDenied, but succeeded")),
        Err(error) if error.kind() != ErrorKind::PermissionDenied => {
            Err(format!("{method} must fail with PermissionDenied, but failed with {error:?}"))
        }
        Err(error) if error.may_have_been_applied() => {
            Err(format!("the error of {method} must say that it had no effect: {error:?}"))
        }
        Err(_) => Ok(()),
    }
}

async fn check_writes<V: Clone + Send + 'static>(
    store: &dyn EntryStore<V>,
    ctx: &ExecutionContext,
    ns: &Namespace,
    key: &str,
    value: V,
) -> Result<(), String> {
    let minute = Duration::from_secs(60);
    let ttl = PutOptions::new().with_ttl(minute);
    let prefix = NamespacePrefix::from(ns.clone());
    let (absent, always) = (Condition::IfAbsent, Condition::Always);
    refused("put", store.put(ctx, ns, key, value.clone()).await)?;
    refused("put_with_options", store.put_with_options(ctx, ns, key, value.clone(), ttl).await)?;
    for condition in [absent, always] {
        let put = store.put_entry(ctx, ns, key, value.clone(), ttl, condition).await;
        refused("put_entry", put)?;
        refused("delete_entry", store.delete_entry(ctx, ns, key, condition).await)?;
    }
    refused("delete", store.delete(ctx, ns, key).await)?;
    for batch in [Batch::new(), Batch::new().put(key, value), Batch::new().delete(key)] {
        refused("write", store.write(ctx, ns, batch).await)?;
    }
    for expiry in [Expiry::Never, Expiry::After(minute)] {
        for condition in [absent, always] {
            refused("touch", store.touch(ctx, ns, key, expiry, condition).await)?;
        }
    }
    let extending = GetOptions::new().with_extended_ttl(minute);
    for options in [extending, GetOptions::new().refreshing()] {
        refused("get_entry that may extend", store.get_entry(ctx, ns, key, options).await)?;
        for keys in [&[key][..], &[]] {
            refused("get_many that may extend", store.get_many(ctx, ns, keys, options).await)?;
        }
    }
    let refreshing = ScanOptions::new().refreshing();
    refused("scan that refreshes", store.scan(ctx, ns, refreshing).await)?;
    refused("take", store.take(ctx, ns, key).await)?;
    refused("delete_prefix", store.delete_prefix(ctx, ns, key, 10).await)?;
    refused("erase", store.erase(ctx, &prefix, 10).await)?;
    refused("evict_expired", store.evict_expired(ctx).await)
}
