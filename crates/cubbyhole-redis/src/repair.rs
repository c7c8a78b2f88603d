//! Making the books whole again after a failover that lost a part of them.

use std::collections::HashSet;

use cubbyhole_core::{ExecutionContext, Namespace, Result, ResultExt, TenantId};
use redis::Value;

use crate::call::{Caller, Request};
use crate::config::RedisConfig;
use crate::connection::Node;
use crate::error::Effect::Read;
use crate::keys::{self, Found, Place};
use crate::keyspace::Keyspace;
use crate::registry::all;
use crate::{replies, servers};

/// How many keys a server looks at before it serves others.
const SCAN_STEP: usize = 1000;

/// What was wrong.
#[derive(Debug, Default)]
struct Repaired {
    namespaces: u64,
    markers: u64,
    tenants: u64,
}

/// Lists every namespace and tenant again that holds entries and is not listed, which happens when
/// a failover loses the registration and not the entries. It looks at every key of the servers
/// (the only `SCAN` there is), others may go on, and it can be repeated. Not while slots are being
/// moved: what moves may be passed over. Returns what was done, a line each: nothing if nothing was
/// wrong.
///
/// # Errors
/// What the servers meet; what was listed before stays listed.
pub async fn repair(ctx: &ExecutionContext, config: RedisConfig) -> Result<Vec<String>> {
    let repair = async {
        ctx.begin_in_runtime().await?;
        let caller = Caller::new(config)?;
        servers::admit(ctx, &caller).await?;
        let keyspace = Keyspace { caller };
        let mut repaired = Repaired::default();
        let mut tenants = HashSet::new();
        for node in keyspace.caller.topology().masters() {
            keyspace.repair_node(ctx, &node, &mut tenants, &mut repaired).await?;
        }
        Ok(repaired.lines())
    };
    repair.await.in_operation("repair")
}

impl Repaired {
    fn lines(&self) -> Vec<String> {
        let lines = [
            (self.tenants, "tenants that hold entries were listed again"),
            (self.namespaces, "namespaces that hold entries were listed again"),
            (self.markers, "namespaces were marked as registered again"),
        ];
        let done = lines.into_iter().filter(|(count, _)| *count > 0);
        done.map(|(count, what)| format!("{count} {what}")).collect()
    }
}

impl Keyspace {
    async fn repair_node(
        &self,
        ctx: &ExecutionContext,
        node: &Node,
        tenants: &mut HashSet<TenantId>,
        repaired: &mut Repaired,
    ) -> Result<()> {
        let pattern = format!("{}{{*}}k", literal(self.prefix()));
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
            let answer = replies::array(ctx.race(servers::ask(node, &command)).await??)?;
            let [next, found]: [Value; 2] = answer.try_into().map_err(|_| replies::unexpected())?;
            let mut namespaces = Vec::new();
            for name in replies::array(found)? {
                let name = replies::bytes(name)?.unwrap_or_default();
                if let Some(Found::Keys(ns)) = keys::parse(self.prefix(), &name) {
                    namespaces.push(ns);
                }
            }
            let unknown: HashSet<TenantId> =
                namespaces.iter().map(Namespace::tenant).filter(|t| !tenants.contains(t)).collect();
            for tenant in unknown {
                repaired.tenants += u64::from(self.repair_tenant(ctx, &tenant).await?);
                tenants.insert(tenant);
            }
            let mended = all(namespaces.iter().map(|ns| self.repair_namespace(ctx, ns)).collect());
            for (listed, marked) in mended.await? {
                repaired.namespaces += u64::from(listed);
                repaired.markers += u64::from(marked);
            }
            cursor = replies::text(next)?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    /// Whether the tenant had to be listed. Its own marker says only that it once was.
    async fn repair_tenant(&self, ctx: &ExecutionContext, tenant: &TenantId) -> Result<bool> {
        if self.listed_tenant(ctx, tenant).await?.is_some() {
            return Ok(false);
        }
        self.register_tenant(ctx, tenant, "0", &mut self.caller.repeat()).await?;
        Ok(true)
    }

    /// Whether the namespace had to be listed, and whether it had to be marked.
    async fn repair_namespace(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
    ) -> Result<(bool, bool)> {
        let listed = self.is_listed(ctx, ns).await?;
        let marked = self.is_marked(ctx, ns).await?;
        if !marked {
            // Registers, and so lists.
            self.write(ctx, ns, &[]).await?;
        } else if !listed {
            self.register(ctx, ns, "0", &mut self.caller.repeat()).await?;
        }
        Ok((!listed, !marked))
    }

    async fn is_marked(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<bool> {
        let place = self.place(ns);
        let request =
            Request::command(&place, Read, "ZSCORE").arg(place.expiries()).arg(Place::MARKER);
        Ok(self.caller.ask(ctx, &request).await? != Value::Nil)
    }
}

/// A prefix as a pattern that matches it alone.
fn literal(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len());
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
