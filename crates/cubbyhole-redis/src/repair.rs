//! Rebuilding lost indexes: the registrations of namespaces and tenants, and the index of each
//! namespace.

mod done;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cubbyhole_core::limits::check_key;
use cubbyhole_core::{
    Error, ExecutionContext, Namespace, OrphanAction, RepairOptions, RepairReport, Result,
    ResultExt, TenantId,
};
use futures_util::{StreamExt, stream};
use redis::Value;

use crate::call::{Caller, Request};
use crate::config::Config;
use crate::connection::Node;
use crate::error::Effect::Read;
use crate::index::{Compared, Comparison, IndexPart, KEYS_AT_ONCE, Walk, key_of};
use crate::keys::{self, Found, Place};
use crate::keyspace::Keyspace;
use crate::registry::CALLS_AT_ONCE;
use crate::{replies, servers};
use done::{Done, Holds, Outcome, PartOutcome, no_string};

/// How many keys a server looks at before it serves others.
const SCAN_STEP: usize = 1000;
/// Each attempt follows a sweep of the same namespace, which is rare once.
const ATTEMPTS: u32 = 32;

/// Repairs with [`RepairOptions::new`] and returns a line for each kind of repair: none if nothing was
/// wrong. [`repair_with_options`] documents the repairs and reports orphaned values.
///
/// # Errors
/// What the servers meet; what was repaired before stays so.
pub async fn repair(ctx: &ExecutionContext, config: Config) -> Result<Vec<String>> {
    let report = repair_with_options(ctx, config, &RepairOptions::new()).await?;
    match report.failure {
        Some(error) => Err(error),
        None => Ok(report.repaired),
    }
}

/// Repairs what a failover, an eviction or another program took from the indexes and not from the
/// values:
///
/// - Namespaces and tenants that are not listed and hold entries, or would take a put without being
///   listed, are listed again.
/// - Index entries whose value is gone are removed. Keys and expiries that an index lost are restored
///   from the meta data.
/// - Orphaned values, whose meta data is lost, are listed, registered or removed: see [`OrphanAction`].
///   A value whose entry is live by its meta data is never removed.
///
/// It looks at every key of the servers (the only `SCAN` there is) in bounded steps. Others may use the
/// store meanwhile: each key is judged within one script. It can be repeated. Do not run it while slots
/// are being moved: it may pass over what moves.
///
/// # Errors
/// What connecting meets. What ends a repair later is in the [`RepairReport`].
pub async fn repair_with_options(
    ctx: &ExecutionContext,
    config: Config,
    options: &RepairOptions,
) -> Result<RepairReport> {
    let repair = async {
        ctx.begin_in_runtime().await?;
        let caller = Caller::new(config)?;
        servers::admit(ctx, &caller).await?;
        let mut repair = Repair {
            keyspace: Keyspace { caller },
            options: *options,
            listed_tenants: HashSet::new(),
            registered: HashSet::new(),
            done: Done::default(),
        };
        let ended = repair.run(ctx).await;
        Ok(repair.done.report(ended.err()))
    };
    repair.await.in_operation("repair")
}

/// A repair under way.
struct Repair {
    keyspace: Keyspace,
    options: RepairOptions,
    /// Tenants that are listed.
    listed_tenants: HashSet<TenantId>,
    /// Namespaces that are listed, of those in which orphaned values were found.
    registered: HashSet<Namespace>,
    done: Done,
}

/// What a page of a server's keys names.
#[derive(Default)]
struct Named {
    /// Sets: `SCAN` may name a key twice in a page, which one script would count twice.
    values: BTreeMap<Namespace, BTreeSet<String>>,
    parts: BTreeSet<(Namespace, IndexPart)>,
    tenants: BTreeSet<TenantId>,
}

impl Named {
    fn add(&mut self, prefix: &str, name: &[u8]) {
        match keys::parse(prefix, name) {
            Some(Found::Keys(ns)) => drop(self.parts.insert((ns, IndexPart::Keys))),
            Some(Found::Metas(ns)) => drop(self.parts.insert((ns, IndexPart::Metas))),
            Some(Found::Expiries(ns)) => drop(self.parts.insert((ns, IndexPart::Expiries))),
            Some(Found::Names(tenant)) => drop(self.tenants.insert(tenant)),
            // A put refuses any other key: its value is another program's.
            Some(Found::Value(ns, key)) if check_key(key).is_ok() => {
                self.values.entry(ns).or_default().insert(key.to_owned());
            }
            _ => {}
        }
    }
}

impl Repair {
    async fn run(&mut self, ctx: &ExecutionContext) -> Result<()> {
        self.done.action = self.options.orphans();
        for node in self.keyspace.caller.topology().masters() {
            let mut cursor = "0".to_owned();
            loop {
                let (next, named) = self.scan(ctx, &node, &cursor).await?;
                self.repair_page(ctx, named).await?;
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Where to go on, and what a page of a server's keys names.
    async fn scan(
        &self,
        ctx: &ExecutionContext,
        node: &Node,
        cursor: &str,
    ) -> Result<(String, Named)> {
        let prefix = self.keyspace.prefix();
        let pattern = format!("{}{{*}}[kmvxn]*", literal(prefix));
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
        let answer = replies::array(ctx.race(servers::ask(node, &command)).await??)?;
        let [next, found]: [Value; 2] = answer.try_into().map_err(|_| replies::unexpected())?;
        let mut named = Named::default();
        for name in replies::array(found)? {
            let name = replies::bytes(name)?.unwrap_or_default();
            named.add(prefix, &name);
        }
        Ok((replies::text(next)?, named))
    }

    async fn repair_page(&mut self, ctx: &ExecutionContext, named: Named) -> Result<()> {
        self.repair_values(ctx, named.values).await?;
        let keyspace = &self.keyspace;
        let repair = async |(ns, part): (Namespace, IndexPart)| {
            let outcome = repair_part(keyspace, ctx, &ns, part).await?;
            Ok((ns, outcome))
        };
        let repairs = stream::iter(named.parts.into_iter().map(repair));
        let outcomes: Vec<Result<_>> = repairs.buffered(CALLS_AT_ONCE).collect().await;
        let (mut ended, mut namespaces) = (Ok(()), BTreeMap::new());
        for outcome in outcomes {
            let Some((ns, outcome)) = self.done.note(outcome, &mut ended) else { continue };
            if outcome.holds != Holds::Nothing {
                namespaces.insert(ns, outcome.holds);
            }
            self.done.count_part(outcome);
        }
        ended?;
        self.repair_tenants(ctx, named.tenants).await?;
        self.repair_registrations(ctx, namespaces.into_iter().collect()).await
    }

    async fn repair_values(
        &mut self,
        ctx: &ExecutionContext,
        values: BTreeMap<Namespace, BTreeSet<String>>,
    ) -> Result<()> {
        // What is registered needs its namespace listed first: that is seen to where there is any.
        let registers = self.options.orphans() == OrphanAction::Register;
        let action = if registers { OrphanAction::List } else { self.options.orphans() };
        let (keyspace, limit) = (&self.keyspace, self.options.listed_orphans());
        let chunks = values.into_iter().flat_map(|(ns, keys)| {
            let keys = Vec::from_iter(keys);
            let chunks: Vec<_> = keys.chunks(KEYS_AT_ONCE).map(<[String]>::to_vec).collect();
            chunks.into_iter().map(move |keys| (ns.clone(), keys))
        });
        let compare = async |(ns, keys): (Namespace, Vec<String>)| {
            let compared = compare(keyspace, ctx, &ns, &keys, action).await?;
            Ok(Outcome { ns, compared: keys.into_iter().zip(compared).collect() })
        };
        let outcomes: Vec<Result<Outcome>> =
            stream::iter(chunks.map(compare)).buffered(CALLS_AT_ONCE).collect().await;
        let (mut ended, mut to_register) = (Ok(()), Vec::new());
        for outcome in outcomes {
            let Some(mut outcome) = self.done.note(outcome, &mut ended) else { continue };
            if registers {
                let is_orphan = |(_, compared): &mut (String, Compared)| {
                    matches!(compared, Compared::Orphaned { .. })
                };
                let orphans = outcome.compared.extract_if(.., is_orphan).map(|(key, _)| key);
                to_register.push((outcome.ns.clone(), orphans.collect::<Vec<_>>()));
            }
            self.done.count(outcome, limit);
        }
        for (ns, keys) in to_register.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            ended.as_ref().map_err(Clone::clone)?;
            let registered = self.register_orphans(ctx, ns, keys).await;
            self.done.note(registered, &mut ended);
        }
        ended
    }

    async fn register_orphans(
        &mut self,
        ctx: &ExecutionContext,
        ns: Namespace,
        keys: Vec<String>,
    ) -> Result<()> {
        let register = Comparison::Repair(OrphanAction::Register);
        for _ in 0..ATTEMPTS {
            if self.registered.insert(ns.clone()) {
                self.repair_registrations(ctx, vec![(ns.clone(), Holds::Entries)]).await?;
            }
            if let Some(compared) = self.keyspace.compare(ctx, &ns, &keys, register).await? {
                let compared = keys.into_iter().zip(compared).collect();
                self.done.count(Outcome { ns, compared }, self.options.listed_orphans());
                return Ok(());
            }
            // Swept meanwhile, for nothing was in it.
            self.registered.remove(&ns);
        }
        Err(Error::unavailable("the namespace was swept again and again while it was repaired"))
    }

    /// Lists tenants again, unless they are listed.
    async fn repair_tenants(
        &mut self,
        ctx: &ExecutionContext,
        tenants: BTreeSet<TenantId>,
    ) -> Result<()> {
        for tenant in tenants {
            if self.listed_tenants.contains(&tenant) {
                continue;
            }
            let mut ended = Ok(());
            let repaired = self.keyspace.repair_tenant(ctx, &tenant).await;
            if let Some(listed) = self.done.note(repaired, &mut ended) {
                self.done.tenants += u64::from(listed);
                self.listed_tenants.insert(tenant);
            }
            ended?;
        }
        Ok(())
    }

    /// Lists namespaces and their tenants again, unless they are listed.
    async fn repair_registrations(
        &mut self,
        ctx: &ExecutionContext,
        namespaces: Vec<(Namespace, Holds)>,
    ) -> Result<()> {
        let tenants = namespaces.iter().map(|(ns, _)| ns.tenant()).collect();
        self.repair_tenants(ctx, tenants).await?;
        let repair = |(ns, holds): &(Namespace, Holds)| {
            let (keyspace, ns, holds) = (&self.keyspace, ns.clone(), *holds);
            async move { Ok((holds, keyspace.repair_namespace(ctx, &ns).await?)) }
        };
        let repairs = stream::iter(namespaces.iter().map(repair).collect::<Vec<_>>());
        let repaired: Vec<Result<_>> = repairs.buffered(CALLS_AT_ONCE).collect().await;
        let mut ended = Ok(());
        for repaired in repaired {
            if let Some((holds, (listed, marked))) = self.done.note(repaired, &mut ended) {
                match holds {
                    Holds::Entries => self.done.namespaces += u64::from(listed),
                    _ => self.done.namespaces_without_entries += u64::from(listed),
                }
                self.done.markers += u64::from(marked);
            }
        }
        ended
    }
}

/// Compares keys with values, and repairs the index.
async fn compare(
    keyspace: &Keyspace,
    ctx: &ExecutionContext,
    ns: &Namespace,
    keys: &[String],
    action: OrphanAction,
) -> Result<Vec<Compared>> {
    let compared = keyspace.compare(ctx, ns, keys, Comparison::Repair(action)).await?;
    compared.ok_or_else(replies::unexpected)
}

/// Compares all keys of a part of an index with their values. It skips orphaned values: each is judged
/// where `SCAN` finds the value itself.
async fn repair_part(
    keyspace: &Keyspace,
    ctx: &ExecutionContext,
    ns: &Namespace,
    part: IndexPart,
) -> Result<PartOutcome> {
    let place = keyspace.place(ns);
    let mut outcome = PartOutcome::default();
    let mut walk = Walk::new(part);
    while let Some(members) = keyspace.walk_on(ctx, &place, &mut walk).await? {
        // A page may name a key twice, too.
        let mut keys = BTreeSet::new();
        for member in members {
            match key_of(member) {
                Ok(key) => drop(keys.insert(key)),
                Err(error) => drop(outcome.failure.get_or_insert(error)),
            }
        }
        for keys in Vec::from_iter(keys).chunks(KEYS_AT_ONCE) {
            for compared in compare(keyspace, ctx, ns, keys, OrphanAction::List).await? {
                match compared {
                    Compared::InLine | Compared::Orphaned { .. } => {}
                    Compared::OtherExpiry => outcome.expiries += 1,
                    Compared::WithoutValue => outcome.without_value += 1,
                    Compared::Unlisted => outcome.unlisted += 1,
                    Compared::NoString => drop(outcome.failure.get_or_insert_with(no_string)),
                }
            }
        }
    }
    let holds = async |name: String| {
        let request = Request::command(&place, Read, "ZCARD").arg(name);
        Ok(replies::integer(&keyspace.caller.ask(ctx, &request).await?)? > 0)
    };
    if holds(place.keys()).await? {
        outcome.holds = Holds::Entries;
    } else if holds(place.expiries()).await? {
        outcome.holds = Holds::NoEntries;
    }
    Ok(outcome)
}

impl Keyspace {
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
