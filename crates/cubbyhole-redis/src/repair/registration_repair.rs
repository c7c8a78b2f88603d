//! Repair of the registration of a namespace or a tenant.

use cubbyhole_core::{ExecutionContext, Namespace, Result, TenantId};
use redis::Value;

use crate::cluster::{Caller, Request};
use crate::effect::Effect::Read;
use crate::entries::Entries;
use crate::keys::HashTag;
use crate::registry::Registry;

/// Repairs registrations.
pub(super) struct RegistrationRepair<'a> {
    caller: &'a Caller,
    registry: Registry<'a>,
}

impl<'a> RegistrationRepair<'a> {
    pub(super) const fn new(caller: &'a Caller) -> Self {
        Self { caller, registry: Registry::new(caller) }
    }

    /// Whether the tenant had to be listed. Its own marker says only that it once was.
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

    /// Whether the namespace had to be listed, and whether it had to be marked.
    pub(super) async fn repair_namespace(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
    ) -> Result<(bool, bool)> {
        let listed = self.registry.is_listed(ctx, ns).await?;
        let marked = self.is_marked(ctx, ns).await?;
        if !marked {
            // Registers, and so lists.
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
