//! Which part of a store a command is about, and its namespaces one after the other.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use clap::Args;
use cubbyhole::{Backend, ExecutionContext, Namespace, NamespacePrefix, Result, TenantId, Usage};

use crate::arguments::parse_prefix;

/// Items of a page of names.
const PAGE: usize = 1000;

/// `PREFIX` or `--all`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ScopeArguments {
    /// Which: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: Option<NamespacePrefix>,
    /// Every tenant
    #[arg(long)]
    all: bool,
}

impl ScopeArguments {
    pub(crate) fn into_scope(self) -> Scope {
        Scope(self.prefix)
    }
}

/// Everything under a prefix, or in the whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope(pub(crate) Option<NamespacePrefix>);

impl Scope {
    /// The prefix; `None` for the whole store.
    pub(crate) fn prefix(&self) -> Option<&NamespacePrefix> {
        self.0.as_ref()
    }

    /// What the store itself counts.
    pub(crate) async fn usage(
        &self,
        store: &Arc<dyn Backend>,
        ctx: &ExecutionContext,
    ) -> Result<Usage> {
        if let Some(prefix) = &self.0 {
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
}

/// As a message names it.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(prefix) => write!(f, "under {}", crate::output::escape(prefix.as_str())),
            None => f.write_str("in the store"),
        }
    }
}

/// The tenants of a store in byte order, page by page.
struct Tenants {
    store: Arc<dyn Backend>,
    ctx: ExecutionContext,
    page: VecDeque<TenantId>,
    /// Where the next page begins; `None` past the last one.
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

/// The namespaces of a scope, page by page: tenant after tenant, each in byte order.
pub(crate) struct Namespaces {
    store: Arc<dyn Backend>,
    ctx: ExecutionContext,
    tenants: Option<Tenants>,
    /// What is being listed, and after which name.
    prefix: Option<(NamespacePrefix, Option<Namespace>)>,
    page: VecDeque<Namespace>,
}

impl Namespaces {
    pub(crate) fn new(store: Arc<dyn Backend>, ctx: ExecutionContext, scope: &Scope) -> Self {
        let prefix = scope.prefix().map(|prefix| (prefix.clone(), None));
        let tenants = prefix.is_none().then(|| Tenants::new(Arc::clone(&store), ctx.clone()));
        Self { store, ctx, tenants, prefix, page: VecDeque::new() }
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
            let Some(tenants) = &mut self.tenants else { return Ok(None) };
            match tenants.next().await? {
                Some(tenant) => self.prefix = Some((tenant.into(), None)),
                None => return Ok(None),
            }
        }
    }
}

/// The order in which [`Namespaces`] come. Not that of the names alone: `a-b` stands between `a`
/// and `a:x`, which are of one tenant.
pub(crate) fn order(one: &Namespace, other: &Namespace) -> Ordering {
    one.tenant().cmp(&other.tenant()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use cubbyhole::Bytes;

    use super::*;

    #[tokio::test]
    async fn namespaces_come_tenant_after_tenant_on_every_store_alike() {
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
        let usage = Scope(None).usage(&store, &ctx).await.unwrap();
        assert_eq!((usage.namespaces, usage.entries), (6, 6));
    }
}
