//! Walks the tenants and namespaces of a scope, page by page.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use cubbyhole::{Backend, ExecutionContext, Namespace, NamespacePrefix, Result, TenantId, Usage};

use crate::args::scope::Scope;

/// The page size when listing names.
const PAGE: usize = 1000;

/// Adds up the usage that the store reports for the scope.
pub(crate) async fn usage(
    scope: &Scope,
    store: &Arc<dyn Backend>,
    ctx: &ExecutionContext,
) -> Result<Usage> {
    if let Some(prefix) = scope.prefix() {
        return store.usage(ctx, prefix).await;
    }
    let mut total = Usage::default();
    let mut tenants = Tenants::new(Arc::clone(store), ctx.clone());
    while let Some(tenant) = tenants.next().await? {
        let one = store.usage(ctx, &tenant.into()).await?;
        total.namespaces += one.namespaces;
        total.entries += one.entries;
        total.bytes = total.bytes.zip(one.bytes).map(|(sum, one)| sum + one);
        total.expired += one.expired;
    }
    Ok(total)
}

/// Iterates over the tenants of a store in byte order.
struct Tenants {
    store: Arc<dyn Backend>,
    ctx: ExecutionContext,
    page: VecDeque<TenantId>,
    /// The tenant after which the next page starts; `None` after the last page.
    next: Option<Option<TenantId>>,
}

impl Tenants {
    fn new(store: Arc<dyn Backend>, ctx: ExecutionContext) -> Self {
        Self { store, ctx, page: VecDeque::new(), next: Some(None) }
    }

    async fn next(&mut self) -> Result<Option<TenantId>> {
        while self.page.is_empty() {
            let Some(after) = self.next.take() else { return Ok(None) };
            let page = self.store.scan_tenants(&self.ctx, after.as_ref(), PAGE).await?;
            self.page = page.items.into();
            self.next = page.next.map(Some);
        }
        Ok(self.page.pop_front())
    }
}

/// Iterates over prefixes that cover a scope: its prefix, or the tenants in byte order.
pub(crate) struct Prefixes {
    prefix: Option<NamespacePrefix>,
    tenants: Option<Tenants>,
}

impl Prefixes {
    pub(crate) fn new(store: Arc<dyn Backend>, ctx: ExecutionContext, scope: &Scope) -> Self {
        let prefix = scope.prefix().cloned();
        let tenants = prefix.is_none().then(|| Tenants::new(store, ctx));
        Self { prefix, tenants }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<NamespacePrefix>> {
        match &mut self.tenants {
            Some(tenants) => Ok(tenants.next().await?.map(NamespacePrefix::from)),
            None => Ok(self.prefix.take()),
        }
    }
}

/// Iterates over the namespaces of a scope: by tenant, then in byte order.
pub(crate) struct Namespaces {
    store: Arc<dyn Backend>,
    ctx: ExecutionContext,
    prefixes: Prefixes,
    /// The prefix that is listed, and the namespace after which the next page starts.
    prefix: Option<(NamespacePrefix, Option<Namespace>)>,
    page: VecDeque<Namespace>,
}

impl Namespaces {
    pub(crate) fn new(store: Arc<dyn Backend>, ctx: ExecutionContext, scope: &Scope) -> Self {
        let prefixes = Prefixes::new(Arc::clone(&store), ctx.clone(), scope);
        Self { store, ctx, prefixes, prefix: None, page: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Namespace>> {
        loop {
            if let Some(namespace) = self.page.pop_front() {
                return Ok(Some(namespace));
            }
            if let Some((prefix, after)) = self.prefix.take() {
                let page =
                    self.store.scan_namespaces(&self.ctx, &prefix, after.as_ref(), PAGE).await?;
                self.page = page.items.into();
                self.prefix = page.next.map(|next| (prefix, Some(next)));
                continue;
            }
            match self.prefixes.next().await? {
                Some(prefix) => self.prefix = Some((prefix, None)),
                None => return Ok(None),
            }
        }
    }
}

/// Compares namespaces in the order of [`Namespaces`]. It differs from byte order, in which `a-b`
/// is between `a` and `a:x`, which belong to one tenant.
pub(crate) fn order(one: &Namespace, other: &Namespace) -> Ordering {
    one.tenant().cmp(&other.tenant()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use cubbyhole::Bytes;

    use super::*;

    #[tokio::test]
    async fn namespaces_are_ordered_by_tenant_then_by_name() {
        let ctx = ExecutionContext::new();
        let store = cubbyhole::open(&ctx, "memory:").await.unwrap();
        for name in ["a:x", "a-b", "a", "a:", r"a\:b:c", "b"] {
            let namespace = Namespace::parse(name).unwrap();
            store.put(&ctx, &namespace, "k", Bytes::from_static(b"1")).await.unwrap();
        }
        let mut walk = Namespaces::new(Arc::clone(&store), ctx.clone(), &Scope(None));
        let mut found = Vec::new();
        while let Some(namespace) = walk.next().await.unwrap() {
            found.push(namespace);
        }
        let names: Vec<&str> = found.iter().map(Namespace::as_str).collect();
        assert_eq!(names, ["a", "a:", "a:x", "a-b", r"a\:b:c", "b"]);
        assert!(found.is_sorted_by(|one, other| order(one, other).is_lt()));
        let total = usage(&Scope(None), &store, &ctx).await.unwrap();
        assert_eq!((total.namespaces, total.entries), (6, 6));
    }
}
