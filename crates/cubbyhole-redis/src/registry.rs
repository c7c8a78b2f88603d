//! Which namespaces a tenant has, and which tenants there are.
//!
//! A namespace's entries and the index that lists it are in different slots, so that no step
//! changes both. The protocol keeps three promises all the same: what is live is listed; what is
//! listed and empty can be told apart, and goes with the next sweep; a client may die between any
//! two steps. ARCHITECTURE.md has the argument, `tests/registration_model.rs` a model of it.

use cubbyhole_core::{Error, ExecutionContext, Namespace, NamespacePrefix, Page, Result, TenantId};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::call::{Repeat, Request};
use crate::error::Effect::{Read, Registration};
use crate::error::Refusal;
use crate::keys::Place;
use crate::keyspace::Keyspace;
use crate::{replies, scripts};

/// Each attempt follows another's tidying of the same tenant, which is rare once.
const ATTEMPTS: u32 = 32;
/// How many names of an index are read at a time.
pub(crate) const NAMES_AT_ONCE: usize = 1000;
/// How many namespaces are asked at the same time, over the shared connections.
pub(crate) const CALLS_AT_ONCE: usize = 128;

/// What a place needs to be registered: drawn by the index that lists it, for a question that the
/// place put at an instant of its own clock.
pub(crate) struct Token {
    pub(crate) drawn: String,
    pub(crate) issued: String,
}

/// A name in an index, and the token with which it was listed.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) token: String,
}

impl Listed {
    /// As it stands in the index.
    pub(crate) fn member(&self) -> String {
        format!("{}\0{}", self.name, self.token)
    }

    fn read(member: &str) -> Result<Self> {
        let (name, token) = member.split_once('\0').ok_or_else(|| {
            Error::corrupt("a name in an index has no token: another program wrote it")
        })?;
        Ok(Self { name: name.to_owned(), token: token.to_owned() })
    }

    pub(crate) fn namespace(&self) -> Result<Namespace> {
        Namespace::parse(&self.name).map_err(|error| {
            Error::corrupt("a name in an index is no namespace: another program wrote it")
                .with_source(error)
        })
    }

    pub(crate) fn tenant(&self) -> Result<TenantId> {
        Ok(self.namespace()?.tenant())
    }
}

impl Keyspace {
    /// Lists a namespace in its tenant's index, and the tenant in the index of tenants if it is
    /// not. Answers the token with which the namespace's own slot takes it.
    pub(crate) async fn register(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        fence: &str,
        repeat: &mut Repeat,
    ) -> Result<String> {
        let tenant = ns.tenant();
        let index = self.tenant_place(&tenant);
        let mut own: Option<Token> = None;
        for _ in 0..ATTEMPTS {
            let mut names = vec![index.index()];
            names.extend(own.as_ref().map(|_| index.index_fence()));
            let (drawn, issued) = own.as_ref().map_or(("", ""), |own| (&own.drawn, &own.issued));
            let request = Request::script(&index, Registration, &scripts::REGISTER, &names)
                .arg(ns.as_str())
                .arg(fence)
                .arg("")
                .arg(drawn)
                .arg(issued);
            match self.caller.call(ctx, &request, repeat).await? {
                Ok(token) => return replies::text(token),
                Err(Refusal::Unregistered { issued, fence }) => {
                    let drawn = self.register_tenant(ctx, &tenant, &fence, repeat).await?;
                    own = Some(Token { drawn, issued });
                }
                Err(_) => return Err(replies::unexpected()),
            }
        }
        Err(Error::unavailable(
            "the tenant was emptied and tidied again and again while it was written to",
        ))
    }

    pub(crate) async fn register_tenant(
        &self,
        ctx: &ExecutionContext,
        tenant: &TenantId,
        fence: &str,
        repeat: &mut Repeat,
    ) -> Result<String> {
        let root = Place::root(self.prefix());
        let request = Request::script(&root, Registration, &scripts::REGISTER, &[root.index()])
            .arg(tenant.as_rendered())
            .arg(fence)
            .arg("root")
            .arg("")
            .arg("");
        replies::text(self.caller.ask_within(ctx, &request, repeat).await?)
    }

    /// The listed tenants past `after`, also those that hold nothing any more.
    pub(crate) async fn listed_tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<Listed>> {
        let root = Place::root(self.prefix());
        let from = after.map_or_else(|| b"[\x01".to_vec(), past_name);
        self.listed(ctx, &root, &from, b"+", count).await
    }

    pub(crate) async fn is_listed(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<bool> {
        let index = self.tenant_place(&ns.tenant());
        let (from, to) = only_name(ns.as_str());
        Ok(!self.listed(ctx, &index, &from, &to, 1).await?.is_empty())
    }

    /// A tenant, if it is listed.
    pub(crate) async fn listed_tenant(
        &self,
        ctx: &ExecutionContext,
        tenant: &TenantId,
    ) -> Result<Option<Listed>> {
        let root = Place::root(self.prefix());
        let (from, to) = only_name(tenant.as_rendered());
        Ok(self.listed(ctx, &root, &from, &to, 1).await?.pop())
    }

    /// The listed namespaces under `prefix` past `after`, also those that hold nothing any more.
    pub(crate) async fn listed_namespaces(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<Listed>> {
        let index = self.tenant_place(&prefix.tenant());
        let prefix = prefix.as_str();
        let mut found = Vec::new();
        // A prefix is itself and what begins with it and `:`: other names stand between the two.
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
        index: &Place,
        from: &[u8],
        to: &[u8],
        count: usize,
    ) -> Result<Vec<Listed>> {
        let request = Request::command(index, Read, "ZRANGE")
            .arg(index.index())
            .arg(from)
            .arg(to)
            .arg(&["BYLEX", "LIMIT", "0"])
            .arg(count);
        let members = replies::array(self.caller.ask(ctx, &request).await?)?;
        replies::in_order(from, &members)?;
        members.into_iter().map(|member| Listed::read(&replies::text(member)?)).collect()
    }

    /// How many entries of a namespace are live, and how many have expired and are not swept.
    pub(crate) async fn count(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<[u64; 2]> {
        let place = self.place(ns);
        let names = [place.keys(), place.expiries()];
        let request = Request::script(&place, Read, &scripts::COUNT, &names);
        replies::integers(self.caller.ask(ctx, &request).await?)
    }

    /// Those of the listed namespaces that hold a live entry.
    async fn live(&self, ctx: &ExecutionContext, listed: &[Listed]) -> Result<Vec<Namespace>> {
        let ask = |listed: &Listed| {
            let ns = listed.namespace();
            async move {
                let ns = ns?;
                let [live, _] = self.count(ctx, &ns).await?;
                Ok((live > 0).then_some(ns))
            }
        };
        let live = all(listed.iter().map(ask).collect()).await?;
        Ok(live.into_iter().flatten().collect())
    }

    /// Live namespaces past `after`; at most `limit`, and whether there are more.
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
            // A page of few is found among few, where most are live.
            let count = (limit - found.len()).saturating_add(1).clamp(16, NAMES_AT_ONCE);
            let listed = self.listed_namespaces(ctx, prefix, after.as_deref(), count).await?;
            found.extend(self.live(ctx, &listed).await?);
            if listed.len() < count {
                break;
            }
            after = listed.into_iter().last().map(|listed| listed.name);
        }
        Ok(page(found, limit))
    }

    /// Tenants with a live entry past `after`; at most `limit`, and whether there are more.
    pub(crate) async fn tenants(
        &self,
        ctx: &ExecutionContext,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Page<TenantId>> {
        let mut found: Vec<TenantId> = Vec::new();
        let mut after = after.map(|after| after.as_rendered().to_owned());
        while found.len() <= limit {
            let count = (limit - found.len()).saturating_add(1).clamp(16, NAMES_AT_ONCE);
            let listed = self.listed_tenants(ctx, after.as_deref(), count).await?;
            let ask = |listed: &Listed| {
                let tenant = listed.tenant();
                async move {
                    let tenant = tenant?;
                    let prefix = NamespacePrefix::from(tenant.clone());
                    let live = self.namespaces(ctx, &prefix, None, 1).await?;
                    Ok((!live.items.is_empty()).then_some(tenant))
                }
            };
            found.extend(all(listed.iter().map(ask).collect()).await?.into_iter().flatten());
            if listed.len() < count {
                break;
            }
            after = listed.into_iter().last().map(|listed| listed.name);
        }
        Ok(page(found, limit))
    }
}

/// What many calls answer, some at a time.
pub(crate) async fn all<T>(calls: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(calls).buffered(CALLS_AT_ONCE).try_collect().await
}

/// A name with whatever token.
fn only_name(name: &str) -> (Vec<u8>, Vec<u8>) {
    ([b"[", name.as_bytes(), b"\0"].concat(), past_name(name))
}

/// Past a name with whatever token.
fn past_name(name: &str) -> Vec<u8> {
    [b"(", name.as_bytes(), b"\0\xff"].concat()
}

fn page<T: Clone>(mut found: Vec<T>, limit: usize) -> Page<T> {
    let more = found.len() > limit;
    found.truncate(limit);
    Page { next: found.last().filter(|_| more).cloned(), items: found }
}
