//! Repair: rebuilds the registrations of namespaces and tenants, and the index of each namespace.

mod contents;
mod counts;
mod index_repair;
mod part_findings;
mod registration_repair;
mod scanned_keys;
mod value_findings;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cubbyhole_core::{
    Error, ExecutionContext, Namespace, OrphanAction, RepairOptions, RepairReport, Result,
    ResultExt, TenantId,
};
use futures_util::{StreamExt, stream};
use redis::Value;

use crate::cluster::{Caller, Node, Servers};
use crate::concurrent::MAX_CONCURRENT_CALLS;
use crate::config::Config;
use crate::index::{Comparison, IndexFinding, IndexPart, KEYS_PER_SCRIPT, NamespaceIndex};
use crate::replies;
use contents::NamespaceContents;
use counts::RepairCounts;
use index_repair::IndexRepair;
use registration_repair::RegistrationRepair;
use scanned_keys::ScannedKeys;
use value_findings::ValueFindings;

/// The number of keys that a server visits per `SCAN`. It bounds how long the server is blocked.
const SCAN_STEP: usize = 1000;
/// The number of attempts to register values in a namespace that sweeps keep removing.
const ATTEMPTS: u32 = 32;

/// Repairs with the default options, and returns one line for each kind of repair that was made.
/// Orphaned values are kept and not reported; see [`repair_with_options`].
///
/// # Errors
/// The errors of [`repair_with_options`], and the first failure of the repair. Earlier repairs are
/// kept.
pub async fn repair(ctx: &ExecutionContext, config: Config) -> Result<Vec<String>> {
    let report = repair_with_options(ctx, config, &RepairOptions::new()).await?;
    match report.failure {
        Some(error) => Err(error),
        None => Ok(report.repaired),
    }
}

/// Rebuilds indexes that a failover, an eviction or another program has damaged.
///
/// - Lists namespaces and tenants again that have entries, or a registration marker, but are not
///   listed.
/// - Removes index entries without a value, and restores keys and expiries from the metadata.
/// - Lists, registers or removes orphaned values, whose metadata is lost: see [`OrphanAction`]. It
///   never removes a value whose metadata belongs to a live entry.
///
/// It visits every key of the servers with `SCAN`, in bounded steps. The store can be used during
/// the repair, because one script compares and repairs each key atomically. A repair is idempotent.
/// Do not run it while slots are being migrated, because it can miss keys that move.
///
/// # Errors
/// The errors of [`RedisStore::open`](crate::RedisStore::open). A failure after that is in the
/// [`RepairReport`].
pub async fn repair_with_options(
    ctx: &ExecutionContext,
    config: Config,
    options: &RepairOptions,
) -> Result<RepairReport> {
    let repair = async {
        ctx.begin_in_runtime().await?;
        let caller = Caller::new(config)?;
        Servers::new(&caller).admit(ctx).await?;
        let mut repair = Repair {
            caller,
            options: *options,
            listed_tenants: HashSet::new(),
            registered: HashSet::new(),
            counts: RepairCounts::default(),
        };
        let ended = repair.run(ctx).await;
        Ok(repair.counts.report(ended.err()))
    };
    repair.await.in_operation("repair")
}

/// A repair in progress.
struct Repair {
    caller: Caller,
    options: RepairOptions,
    /// The tenants that are known to be listed.
    listed_tenants: HashSet<TenantId>,
    /// The namespaces with orphaned values that are known to be registered.
    registered: HashSet<Namespace>,
    counts: RepairCounts,
}

impl Repair {
    async fn run(&mut self, ctx: &ExecutionContext) -> Result<()> {
        self.counts.action = self.options.orphans();
        for node in self.caller.topology().masters() {
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

    /// Scans a page of a server's keys. Returns the next cursor and the keys of the store.
    async fn scan(
        &self,
        ctx: &ExecutionContext,
        node: &Node,
        cursor: &str,
    ) -> Result<(String, ScannedKeys)> {
        let prefix = self.caller.config().prefix();
        let pattern = format!("{}{{*}}[kmvxn]*", literal(prefix));
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
        let answer = replies::array(ctx.race(node.ask(&command)).await??)?;
        let [next, found]: [Value; 2] = answer.try_into().map_err(|_| replies::unexpected())?;
        let mut named = ScannedKeys::default();
        for name in replies::array(found)? {
            let name = replies::bytes(name)?.unwrap_or_default();
            named.add(prefix, &name);
        }
        Ok((replies::text(next)?, named))
    }

    async fn repair_page(&mut self, ctx: &ExecutionContext, named: ScannedKeys) -> Result<()> {
        self.repair_values(ctx, named.values).await?;
        let caller = &self.caller;
        let repair = async |(ns, part): (Namespace, IndexPart)| {
            let outcome = IndexRepair::new(caller, &ns).repair_part(ctx, part).await?;
            Ok((ns, outcome))
        };
        let repairs = stream::iter(named.parts.into_iter().map(repair));
        let outcomes: Vec<Result<_>> = repairs.buffered(MAX_CONCURRENT_CALLS).collect().await;
        let (mut ended, mut namespaces) = (Ok(()), BTreeMap::new());
        for outcome in outcomes {
            let Some((ns, outcome)) = self.counts.note(outcome, &mut ended) else { continue };
            if outcome.contents != NamespaceContents::Nothing {
                namespaces.insert(ns, outcome.contents);
            }
            self.counts.count_part(outcome);
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
        // To register orphaned values, first list them, then register their namespaces.
        let registers = self.options.orphans() == OrphanAction::Register;
        let action = if registers { OrphanAction::List } else { self.options.orphans() };
        let (caller, limit) = (&self.caller, self.options.listed_orphans());
        let chunks = values.into_iter().flat_map(|(ns, keys)| {
            let keys = Vec::from_iter(keys);
            let chunks: Vec<_> = keys.chunks(KEYS_PER_SCRIPT).map(<[String]>::to_vec).collect();
            chunks.into_iter().map(move |keys| (ns.clone(), keys))
        });
        let compare = async |(ns, keys): (Namespace, Vec<String>)| {
            let found = IndexRepair::new(caller, &ns).compare(ctx, &keys, action).await?;
            Ok(ValueFindings { ns, findings: keys.into_iter().zip(found).collect() })
        };
        let outcomes: Vec<Result<ValueFindings>> =
            stream::iter(chunks.map(compare)).buffered(MAX_CONCURRENT_CALLS).collect().await;
        let (mut ended, mut to_register) = (Ok(()), Vec::new());
        for outcome in outcomes {
            let Some(mut outcome) = self.counts.note(outcome, &mut ended) else { continue };
            if registers {
                let is_orphan = |(_, finding): &mut (String, IndexFinding)| {
                    matches!(finding, IndexFinding::Orphaned { .. })
                };
                let orphans = outcome.findings.extract_if(.., is_orphan).map(|(key, _)| key);
                to_register.push((outcome.ns.clone(), orphans.collect::<Vec<_>>()));
            }
            self.counts.count(outcome, limit);
        }
        for (ns, keys) in to_register.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            ended.as_ref().map_err(Clone::clone)?;
            let registered = self.register_orphans(ctx, ns, keys).await;
            self.counts.note(registered, &mut ended);
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
                self.repair_registrations(ctx, vec![(ns.clone(), NamespaceContents::Entries)])
                    .await?;
            }
            let index = NamespaceIndex::new(&self.caller, &ns);
            if let Some(found) = index.compare(ctx, &keys, register).await? {
                let findings = keys.into_iter().zip(found).collect();
                self.counts.count(ValueFindings { ns, findings }, self.options.listed_orphans());
                return Ok(());
            }
            // A sweep removed the registration, because the namespace was still empty.
            self.registered.remove(&ns);
        }
        Err(Error::unavailable(
            "sweeps kept removing the registration of the namespace during the repair",
        ))
    }

    /// Lists tenants that are not listed.
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
            let repaired = RegistrationRepair::new(&self.caller).repair_tenant(ctx, &tenant).await;
            if let Some(listed) = self.counts.note(repaired, &mut ended) {
                self.counts.tenants += u64::from(listed);
                self.listed_tenants.insert(tenant);
            }
            ended?;
        }
        Ok(())
    }

    /// Lists namespaces that are not listed, and their tenants.
    async fn repair_registrations(
        &mut self,
        ctx: &ExecutionContext,
        namespaces: Vec<(Namespace, NamespaceContents)>,
    ) -> Result<()> {
        let tenants = namespaces.iter().map(|(ns, _)| ns.tenant()).collect();
        self.repair_tenants(ctx, tenants).await?;
        let repair = |(ns, contents): &(Namespace, NamespaceContents)| {
            let (caller, ns, contents) = (&self.caller, ns.clone(), *contents);
            async move {
                let repair = RegistrationRepair::new(caller);
                Ok((contents, repair.repair_namespace(ctx, &ns).await?))
            }
        };
        let repairs = stream::iter(namespaces.iter().map(repair).collect::<Vec<_>>());
        let repaired: Vec<Result<_>> = repairs.buffered(MAX_CONCURRENT_CALLS).collect().await;
        let mut ended = Ok(());
        for repaired in repaired {
            if let Some((contents, (listed, marked))) = self.counts.note(repaired, &mut ended) {
                match contents {
                    NamespaceContents::Entries => self.counts.namespaces += u64::from(listed),
                    _ => self.counts.namespaces_without_entries += u64::from(listed),
                }
                self.counts.markers += u64::from(marked);
            }
        }
        ended
    }
}

/// Escapes a prefix for a glob pattern.
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
