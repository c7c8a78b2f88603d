//! Sweeps of expired entries.

use cubbyhole_core::{ExecutionContext, NamespacePrefix, Result};

use super::run::{RemovalRun, emptied};
use crate::cluster::{Caller, Request};
use crate::concurrent::MAX_CONCURRENT_CALLS;
use crate::effect::Effect::Write;
use crate::registry::{ListedName, NAMES_PER_PAGE, Registry};
use crate::{replies, scripts};

/// The number of entries that one script removes. It bounds how long the server is blocked.
const SWEEP_STEP: usize = 500;
/// The number of tenants that are swept concurrently.
const CONCURRENT_TENANTS: usize = 8;

/// A sweep of all namespaces.
pub(crate) struct Sweep<'a> {
    run: RemovalRun<'a>,
    registry: Registry<'a>,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(ctx: &'a ExecutionContext, caller: &'a Caller) -> Self {
        Self { run: RemovalRun::new(ctx, caller), registry: Registry::new(caller) }
    }

    /// Sweeps and returns the number of removed entries.
    pub(crate) async fn run(self) -> Result<u64> {
        let swept = self.sweep_tenants().await;
        let (swept, removed) = self.run.conclude(swept);
        match swept {
            Ok(()) => Ok(removed),
            Err(error) if removed > 0 => Err(error.with_unknown_outcome()),
            Err(error) => Err(error),
        }
    }

    async fn sweep_tenants(&self) -> Result<()> {
        let mut after = None;
        loop {
            let tenants = self
                .registry
                .listed_tenants(self.run.ctx, after.as_deref(), NAMES_PER_PAGE)
                .await?;
            let sweep = |tenant| self.sweep_tenant(tenant);
            self.run.each(CONCURRENT_TENANTS, tenants.iter().map(sweep).collect()).await?;
            if tenants.len() < NAMES_PER_PAGE {
                return Ok(());
            }
            after = tenants.into_iter().last().map(|tenant| tenant.name);
        }
    }

    async fn sweep_tenant(&self, listed: &ListedName) -> Result<()> {
        let ctx = self.run.ctx;
        let prefix = NamespacePrefix::from(listed.tenant()?);
        let index = self.run.caller.tenant_tag(&prefix.tenant());
        let mut after = None;
        let mut some_left = false;
        loop {
            let names = self
                .registry
                .listed_namespaces(ctx, &prefix, after.as_deref(), NAMES_PER_PAGE)
                .await?;
            let sweep = |name| self.sweep_namespace(name);
            let calls = names.iter().map(sweep).collect();
            let are_empty = self.run.each(MAX_CONCURRENT_CALLS, calls).await?;
            let emptied = emptied(&names.iter().collect::<Vec<_>>(), &are_empty);
            some_left |= emptied.len() < names.len();
            self.registry.unlist(ctx, &index, &emptied).await?;
            if names.len() < NAMES_PER_PAGE {
                break;
            }
            after = names.into_iter().last().map(|name| name.name);
        }
        if some_left { Ok(()) } else { self.registry.unlist_tenant(ctx, listed).await }
    }

    /// Sweeps a namespace and returns whether it is empty and its name can be removed.
    async fn sweep_namespace(&self, listed: &ListedName) -> Result<bool> {
        let RemovalRun { ctx, caller, .. } = &self.run;
        let tag = caller.namespace_tag(&listed.namespace()?);
        let names = [tag.keys(), tag.metas(), tag.expiries(), tag.fence()];
        loop {
            let request = Request::script(&tag, Write, &scripts::SWEEP, &names)
                .arg(&listed.token)
                .arg(SWEEP_STEP);
            let [count, emptied, more] = replies::integers(caller.ask(ctx, &request).await?)?;
            self.run.count(count);
            if more == 0 {
                return Ok(emptied > 0);
            }
        }
    }
}
