//! The registry: the index of a tenant's namespaces, and the index of tenants.
//!
//! The entries of a namespace and the index that lists it are in different slots, so no script
//! changes both. The registration protocol guarantees:
//!
//! - Every namespace with a live entry is listed.
//! - A listed namespace that is empty is recognised as empty, and the next sweep removes its name.
//! - Both hold even if clients stop between any two steps.
//!
//! `tests/registration_model.rs` checks a model of the protocol.

mod listed_name;
mod token;

use std::cmp::Ordering;

use cubbyhole_core::{Error, ExecutionContext, Namespace, NamespacePrefix, Page, Result, TenantId};

use crate::cluster::{Caller, Request, Retry};
use crate::concurrent::try_all;
use crate::effect::Effect::{Read, Registration};
use crate::keys::HashTag;
use crate::refusal::Refusal;
use crate::{replies, scripts};
pub(crate) use listed_name::ListedName;
pub(crate) use token::RegistrationToken;

/// The number of attempts to register a tenant that sweeps keep removing.
const ATTEMPTS: u32 = 32;
/// The number of names that are read from an index per request.
pub(crate) const NAMES_PER_PAGE: usize = 1000;

/// Reads and changes the indexes of namespaces and tenants.
#[derive(Clone, Copy)]
pub(crate) struct Registry<'a> {
    caller: &'a Caller,
}

impl<'a> Registry<'a> {
    pub(crate) const fn new(caller: &'a Caller) -> Self {
        Self { caller }
    }

    /// Lists a namespace in its tenant's index, and the tenant in the index of tenants if
    /// necessary. Returns the token with which the namespace's own slot accepts the registration.
    pub(crate) async fn register(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        fence: &str,
        retry: &mut Retry,
    ) -> Result<String> {
        let tenant = ns.tenant();
        let index = self.caller.tenant_tag(&tenant);
        let mut own: Option<RegistrationToken> = None;
        for _ in 0..ATTEMPTS {
            let mut names = vec![index.name_index()];
            names.extend(own.as_ref().map(|_| index.name_index_fence()));
            let (drawn, issued) = own.as_ref().map_or(("", ""), |own| (&own.drawn, &own.issued));
            let request = Request::script(&index, Registration, &scripts::REGISTER, &names)
                .arg(ns.as_str())
                .arg(fence)
                .arg("")
                .arg(drawn)
                .arg(issued);
            match self.caller.call(ctx, &request, retry).await? {
                Ok(token) => return replies::text(token),
                Err(Refusal::Unregistered { issued, fence }) => {
                    let drawn = self.register_tenant(ctx, &tenant, &fence, retry).await?;
                    own = Some(RegistrationToken { drawn, issued });
                }
                Err(_) => return Err(replies::unexpected()),
            }
        }
        Err(Error::unavailable(
            "sweeps kept removing the registration of the tenant during the write",
        ))
    }

    /// Lists a tenant in the index of tenants. Returns the token with which the tenant's own slot
    /// accepts the registration.
    pub(crate) async fn register_tenant(
        &self,
        ctx: &ExecutionContext,
        tenant: &TenantId,
        fence: &str,
        retry: &mut Retry,
    ) -> Result<String> {
        let root = self.caller.root_tag();
        let request =
            Request::script(&root, Registration, &scripts::REGISTER, &[root.name_index()])
                .arg(tenant.as_rendered())
                .arg(fence)
                .arg("root")
                .arg("")
                .arg("");
        replies::text(self.caller.ask_within(ctx, &request, retry).await?)
    }

    /// Returns the listed tenants above `after`, including empty ones.
    pub(crate) async fn listed_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<ListedName>> {
        let root = self.caller.root_tag();
        let from = after.map_or_else(|| b"[\x01".to_vec(), past_name);
        self.listed(ctx, &root, &from, b"+", count).await
    }

    /// Returns whether a namespace is listed in its tenant's index.
    pub(crate) async fn is_listed(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<bool> {
        let index = self.caller.tenant_tag(&ns.tenant());
        let (from, to) = only_name(ns.as_str());
        Ok(!self.listed(ctx, &index, &from, &to, 1).await?.is_empty())
    }

    /// Returns a tenant if it is listed.
    pub(crate) async fn listed_tenant(
        &self,
        ctx: &ExecutionContext,
        tenant: &TenantId,
    ) -> Result<Option<ListedName>> {
        let root = self.caller.root_tag();
        let (from, to) = only_name(tenant.as_rendered());
        Ok(self.listed(ctx, &root, &from, &to, 1).await?.pop())
    }

    /// Returns the listed namespaces under `prefix` and above `after`, including empty ones.
    pub(crate) async fn listed_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<ListedName>> {
        let index = self.caller.tenant_tag(&prefix.tenant());
        let prefix = prefix.as_str();
        let mut found = Vec::new();
        // A prefix matches itself and the range of `PREFIX:`. Other names can sort between the two.
        if after.is_none_or(|after| after < prefix) {
            let (from, to) = only_name(prefix);
            found = self.listed(ctx, &index, &from, &to, 1).await?;
        }
        let below = [prefix, ":"].concat();
        let from = match after {
            Some(after) if after >= below.as_str() => past_name(after),
            _ => [b"[", below.as_bytes()].concat(),
        };
        let to = [b"(", prefix.as_bytes(), b";"].concat();
        if found.len() < count {
            found.extend(self.listed(ctx, &index, &from, &to, count - found.len()).await?);
        }
        Ok(found)
    }

    async fn listed(
        &self,
        ctx: &ExecutionContext,
        index: &HashTag,
        from: &[u8],
        to: &[u8],
        count: usize,
    ) -> Result<Vec<ListedName>> {
        let request = Request::command(index, Read, "ZRANGE")
            .arg(index.name_index())
            .arg(from)
            .arg(to)
            .arg(&["BYLEX", "LIMIT", "0"])
            .arg(count);
        let members = replies::array(self.caller.ask(ctx, &request).await?)?;
        replies::check_order(from, Ordering::Greater, &members)?;
        members.into_iter().map(|member| ListedName::parse(&replies::text(member)?)).collect()
    }

    /// Removes names from the index that lists them, unless they were registered again since.
    pub(crate) async fn unlist(
        &self,
        ctx: &ExecutionContext,
        index: &HashTag,
        names: &[&ListedName],
    ) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let members: Vec<String> = names.iter().map(|name| name.member()).collect();
        let request =
            Request::command(index, Registration, "ZREM").arg(index.name_index()).arg(members);
        self.caller.ask(ctx, &request).await.map(drop)
    }

    /// Removes a tenant from the index of tenants if it has no namespace.
    pub(crate) async fn unlist_tenant(
        &self,
        ctx: &ExecutionContext,
        listed: &ListedName,
    ) -> Result<()> {
        let index = self.caller.tenant_tag(&listed.tenant()?);
        let names = [index.name_index(), index.name_index_fence()];
        let request =
            Request::script(&index, Registration, &scripts::UNLIST, &names).arg(&listed.token);
        if replies::integer(&self.caller.ask(ctx, &request).await?)? > 0 {
            self.unlist(ctx, &self.caller.root_tag(), &[listed]).await?;
        }
        Ok(())
    }

    /// Returns the number of live entries of a namespace, and of expired entries that are not
    /// swept.
    pub(crate) async fn count(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<[u64; 2]> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.keys(), tag.expiries()];
        let request = Request::script(&tag, Read, &scripts::COUNT, &names);
        replies::integers(self.caller.ask(ctx, &request).await?)
    }

    /// Returns the namespaces that have a live entry.
    async fn live(&self, ctx: &ExecutionContext, listed: &[ListedName]) -> Result<Vec<Namespace>> {
        let ask = |listed: &ListedName| {
            let ns = listed.namespace();
            async move {
                let ns = ns?;
                let [live, _] = self.count(ctx, &ns).await?;
                Ok((live > 0).then_some(ns))
            }
        };
        let live = try_all(listed.iter().map(ask).collect()).await?;
        Ok(live.into_iter().flatten().collect())
    }

    /// Returns a page of the namespaces above `after` that have a live entry.
    pub(crate) async fn namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Page<Namespace>> {
        let mut found: Vec<Namespace> = Vec::new();
        let mut after = after.map(|after| after.as_str().to_owned());
        while found.len() <= limit {
            // Most listed namespaces are live, so a small page needs few names.
            let count = (limit - found.len()).saturating_add(1).clamp(16, NAMES_PER_PAGE);
            let listed = self.listed_namespaces(ctx, prefix, after.as_deref(), count).await?;
            found.extend(self.live(ctx, &listed).await?);
            if listed.len() < count {
                break;
            }
            after = listed.into_iter().last().map(|listed| listed.name);
        }
        Ok(page(found, limit))
    }

    /// Returns a page of the tenants above `after` that have a live entry.
    pub(crate) async fn tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let mut found: Vec<TenantId> = Vec::new();
        let mut after = after.map(|after| after.as_rendered().to_owned());
        while found.len() <= limit {
            let count = (limit - found.len()).saturating_add(1).clamp(16, NAMES_PER_PAGE);
            let listed = self.listed_tenants(ctx, after.as_deref(), count).await?;
            let ask = |listed: &ListedName| {
                let tenant = listed.tenant();
                async move {
                    let tenant = tenant?;
                    let prefix = NamespacePrefix::from(tenant.clone());
                    let live = self.namespaces(ctx, &prefix, None, 1).await?;
                    Ok((!live.items.is_empty()).then_some(tenant))
                }
            };
            found.extend(try_all(listed.iter().map(ask).collect()).await?.into_iter().flatten());
            if listed.len() < count {
                break;
            }
            after = listed.into_iter().last().map(|listed| listed.name);
        }
        Ok(page(found, limit))
    }
}

/// The bounds of the member of a name, with any token.
fn only_name(name: &str) -> (Vec<u8>, Vec<u8>) {
    ([b"[", name.as_bytes(), b"\0"].concat(), past_name(name))
}

/// The bound after the member of a name, with any token.
fn past_name(name: &str) -> Vec<u8> {
    [b"(", name.as_bytes(), b"\0\xff"].concat()
}

fn page<T: Clone>(mut found: Vec<T>, limit: usize) -> Page<T> {
    let more = found.len() > limit;
    found.truncate(limit);
    Page { next: found.last().filter(|_| more).cloned(), items: found }
}
