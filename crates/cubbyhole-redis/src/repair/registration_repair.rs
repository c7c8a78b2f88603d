//! Repair of the registrations of namespaces and tenants.

use cubbyhole_core::{ExecutionContext, Namespace, Result, TenantId};
use redis::Value;

use crate::cluster::{Caller, Request};
use crate::effect::Effect::Read;
use crate::entries::Entries;
use crate::keys::HashTag;
use crate::registry::Registry;

/// Repairs the registrations of namespaces and tenants.
pub(super) struct RegistrationRepair<'a> {
    caller: &'a Caller,
    registry: Registry<'a>,
}

impl<'a> RegistrationRepair<'a> {
    pub(super) const fn new(caller: &'a Caller) -> Self {
        Self { caller, registry: Registry::new(caller) }
    }

    /// Lists a tenant if it is not listed, and returns whether it was not. The tenant's marker does
    /// not prove that the index of tenants still lists it.
    pub(super) async fn repair_tenant(
        &self,
        ctx: &ExecutionContext,
        tenant: &TenantId,
    ) -> Result<bool> {
        if self.registry.listed_tenant(ctx, tenant).await?.is_some() {
            return Ok(false);
        }
        self.registry.register_tenant(ctx, tenant, "0", &mut self.caller.retry()).await?;
        Ok(true)
    }

    /// Lists and marks a namespace if necessary. Returns whether it was not listed, and whether it
    /// was not marked.
    pub(super) async fn repair_namespace(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
    ) -> Result<(bool, bool)> {
        let listed = self.registry.is_listed(ctx, ns).await?;
        let marked = self.is_marked(ctx, ns).await?;
        if !marked {
            // An empty batch registers the namespace, which also lists it.
            Entries::new(self.caller).write(ctx, ns, &[]).await?;
        } else if !listed {
            self.registry.register(ctx, ns, "0", &mut self.caller.retry()).await?;
        }
        Ok((!listed, !marked))
    }

    async fn is_marked(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<bool> {
        let tag = self.caller.namespace_tag(ns);
        let request =
            Request::command(&tag, Read, "ZSCORE").arg(tag.expiries()).arg(HashTag::MARKER);
        Ok(self.caller.ask(ctx, &request).await? != Value::Nil)
    }
}
