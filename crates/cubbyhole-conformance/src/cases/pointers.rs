//! `Arc<S>`, `Box<S>` and `dyn` stores forward every method, including the provided ones.

use std::sync::Arc;

use cubbyhole_core::{
    Batch, Condition, EntryStore, EntryStoreExt, Expiry, GetOptions, PutOptions,
    RecursiveScanOptions, ScanOptions, Store, Update,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// `Arc<dyn EntryStore<V>>` coerces to `Arc<dyn Store<V>>`, and both use the same store.
    #[case(tenant, core)]
    async fn entry_store_coerces_to_store<V: Sample>(w: &World<V>) -> Outcome {
        let core: Arc<dyn Store<V>> = w.core();
        let ns = w.ns(&["a"])?;
        core.put(w.ctx(), &ns, "k", V::sample(1)).await?;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(1),
            "the value that was written through the `Store` trait"
        );
        w.delete(&ns, "k").await?;
        check_eq!(
            core.get(w.ctx(), &ns, "k").await?,
            None,
            "get through the `Store` trait after a delete"
        );
        Ok(())
    }

    /// `Arc<dyn Store<V>>` forwards every method of `Store`.
    #[case(time, core)]
    async fn arc_dyn_store_forwards_every_method<V: Sample>(w: &World<V>) -> Outcome {
        core_methods(w, w.core()).await
    }

    /// `Box<dyn Store<V>>`, and an `Arc` of it, forward every method of `Store`.
    #[case(time, core)]
    async fn box_dyn_store_forwards_every_method<V: Sample>(w: &World<V>) -> Outcome {
        let boxed: Box<dyn Store<V>> = Box::new(Arc::clone(w.store()));
        core_methods(w, boxed).await?;
        let boxed: Box<dyn Store<V>> = Box::new(Arc::clone(w.store()));
        core_methods(w, Arc::new(boxed)).await
    }

    /// `Arc<dyn EntryStore<V>>` forwards every method of `EntryStore`.
    #[case(tenant, entry)]
    async fn arc_dyn_entry_store_forwards_every_method<V: Sample>(w: &World<V>) -> Outcome {
        entry_methods(w, Arc::clone(w.store())).await
    }

    /// `Box<dyn EntryStore<V>>`, and an `Arc` of it, forward every method of `EntryStore`.
    #[case(tenant, entry)]
    async fn box_dyn_entry_store_forwards_every_method<V: Sample>(w: &World<V>) -> Outcome {
        let boxed: Box<dyn EntryStore<V>> = Box::new(Arc::clone(w.store()));
        entry_methods(w, boxed).await?;
        let boxed: Box<dyn EntryStore<V>> = Box::new(Arc::clone(w.store()));
        entry_methods(w, Arc::new(boxed)).await
    }
}

/// Calls every method of `Store` through the pointer, and compares the results.
async fn core_methods<V: Sample>(w: &World<V>, store: impl Store<V>) -> Outcome {
    let (ctx, ns) = (w.ctx(), w.ns(&["core"])?);
    let all = w.everything();
    store.put(ctx, &ns, "a", V::sample(1)).await?;
    store.put_with_options(ctx, &ns, "b", V::sample(2), PutOptions::new()).await?;
    check_eq!(store.get(ctx, &ns, "a").await?, Some(V::sample(1)), "get");
    check_eq!(store.list_namespaces(ctx, &all).await?, w.namespaces(&all).await?, "namespaces");
    let mut keys = store.list(ctx, &ns, None).await?;
    keys.sort_unstable();
    check_eq!(keys, w.list(&ns, None).await?, "list");
    let ttl = PutOptions::new().with_ttl(w.short());
    store.put_with_options(ctx, &ns, "b", V::sample(2), ttl).await?;
    w.expire().await;
    check_eq!(store.list(ctx, &ns, None).await?, ["a"], "the keys after the TTL");
    let swept = store.evict_expired(ctx).await?;
    if w.can().keeps_expired && w.can().real_time.is_none() {
        check_eq!(swept, 1, "the number of entries that the sweep removed");
    }
    store.delete(ctx, &ns, "a").await?;
    check_eq!(w.get(&ns, "a").await?, None, "delete");
    Ok(())
}

/// Calls every method of `EntryStore` through the pointer, and compares the results.
async fn entry_methods<V: Sample>(w: &World<V>, store: impl EntryStore<V>) -> Outcome {
    let (ctx, ns, all) = (w.ctx(), w.ns(&["entry"])?, w.everything());
    let none = PutOptions::new();
    let version = store.put_entry(ctx, &ns, "a", V::sample(1), none, Condition::IfAbsent).await?;
    let entry = store.get_entry(ctx, &ns, "a", GetOptions::new()).await?;
    check_eq!(entry, Some(w.live(&ns, "a").await?), "get_entry");
    check_eq!(entry.map(|entry| entry.meta.version), Some(version), "put_entry");
    store.write(ctx, &ns, Batch::new().put("b", V::sample(2)).put("c", V::sample(3))).await?;
    let many = store.get_many(ctx, &ns, &["a", "b"], GetOptions::new()).await?;
    check_eq!(many.len(), 2, "get_many");
    check_eq!(store.scan(ctx, &ns, ScanOptions::new()).await?.items.len(), 3, "scan");
    let stats = store.stat(ctx, &ns, &["a", "d"]).await?;
    check_eq!(stats[0].map(|stat| stat.meta.version), Some(version), "stat");
    let deep = store.scan_recursive(ctx, &all, RecursiveScanOptions::new()).await?;
    check_eq!(deep.items.len(), 3, "scan_recursive");
    let page = store.scan_namespaces(ctx, &all, None, 10).await?;
    check_eq!(page.items, std::slice::from_ref(&ns), "scan_namespaces");
    if w.can().sees_tenants {
        check_eq!(store.scan_tenants(ctx, None, 1).await?.items.len(), 1, "scan_tenants");
    }
    let day = Expiry::After(w.long());
    check_eq!(store.touch(ctx, &ns, "a", day, Condition::IfPresent).await?, true, "touch");
    check_eq!(store.usage(ctx, &all).await?.entries, 3, "usage");
    let before = w.store().current_time(ctx, &ns).await?;
    check!(store.current_time(ctx, &ns).await? >= before, "current_time");
    store.update(ctx, &ns, "b", |_| Ok(Update::Put(V::sample(4)))).await?;
    let taken = store.take(ctx, &ns, "b").await?;
    check_eq!(
        taken.map(|entry| entry.value),
        Some(V::sample(4)),
        "the value that update wrote and take returned"
    );
    check_eq!(store.delete_entry(ctx, &ns, "c", Condition::Always).await?, true, "delete_entry");
    store.append(ctx, &ns, "log-", vec![V::sample(5)], none).await?;
    check_eq!(store.last(ctx, &ns, "log-", 5).await?.len(), 1, "append and last");
    check_eq!(store.delete_prefix(ctx, &ns, "log-", 10).await?.removed, 1, "delete_prefix");
    check_eq!(store.erase(ctx, &all, 10).await?.removed, 1, "erase");
    check_eq!(store.erase_all(ctx, &all).await?, 0, "erase_all");
    Ok(())
}
