//! Health checks of a random sample: registrations, indexes and entries.

use std::sync::Arc;

use cubbyhole_core::limits::check_key;
use cubbyhole_core::{Diagnosis, ErrorKind, ExecutionContext, Namespace, Result, Verdict};

use super::problem::problem;
use crate::cluster::{Caller, Node};
use crate::index::{Comparison, IndexFinding, NamespaceIndex};
use crate::keys::ParsedKey;
use crate::registry::Registry;
use crate::replies;

/// The number of keys that are sampled from each master.
const SAMPLES: usize = 100;

/// Samples keys of each master, and checks their namespaces.
pub(super) async fn check(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    masters: &[Arc<Node>],
) -> Result<()> {
    let sample = take_sample(ctx, caller, masters).await?;
    check_registrations(ctx, diagnosis, caller, &sample).await?;
    check_index(ctx, diagnosis, caller, &sample).await?;
    check_entries(ctx, diagnosis, caller, sample.namespaces).await
}

/// A random sample of keys.
#[derive(Default)]
struct Sample {
    /// The namespaces of the keys, one for each key.
    namespaces: Vec<Namespace>,
    /// The sampled keys of values.
    values: Vec<(Namespace, String)>,
    /// Whether a server denied `RANDOMKEY`.
    denied: bool,
}

/// Samples keys of each master. Rare defects may be missed.
async fn take_sample(
    ctx: &ExecutionContext,
    caller: &Caller,
    masters: &[Arc<Node>],
) -> Result<Sample> {
    let mut found = Sample::default();
    for node in masters {
        for _ in 0..SAMPLES {
            let drawn = ctx.race(node.ask(&redis::cmd("RANDOMKEY"))).await?;
            found.denied |= drawn.as_ref().is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
            let Ok(Some(name)) = drawn.and_then(replies::bytes) else {
                break;
            };
            match ParsedKey::parse(caller.config().prefix(), &name) {
                Some(ParsedKey::Keys(ns)) => found.namespaces.push(ns),
                Some(ParsedKey::Value(ns, key)) => {
                    if check_key(key).is_ok() {
                        found.values.push((ns.clone(), key.to_owned()));
                    }
                    found.namespaces.push(ns);
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Checks that the namespaces of the sample are listed.
async fn check_registrations(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    sample: &Sample,
) -> Result<()> {
    let registry = Registry::new(caller);
    let (looked_at, mut unlisted) = (sample.namespaces.len(), 0_u64);
    for ns in &sample.namespaces {
        let listed = registry.is_listed(ctx, ns).await;
        let tenant = registry.listed_tenant(ctx, &ns.tenant()).await;
        if !matches!((listed, tenant), (Ok(false), _) | (_, Ok(None))) {
            continue;
        }
        // It may have been removed since it was sampled.
        let [live, _] = registry.count(ctx, ns).await.unwrap_or_default();
        unlisted += u64::from(live > 0);
    }
    ctx.check()?;
    if unlisted > 0 {
        diagnosis.found(
            Verdict::Problem,
            "registrations",
            format!("{unlisted} of {looked_at} sampled keys belong to unlisted namespaces"),
            "run `cubbyhole doctor --repair`",
        );
    } else if sample.denied {
        diagnosis.found(
            Verdict::Warning,
            "registrations",
            "not checked: this user may not run `RANDOMKEY`",
            "after a failover, run the check as a user that may",
        );
    } else {
        diagnosis
            .ok("registrations", format!("{looked_at} sampled keys, all of listed namespaces"));
    }
    Ok(())
}

/// Checks that the values of the sample are in the index of their namespace.
async fn check_index(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    sample: &Sample,
) -> Result<()> {
    let (looked_at, mut orphaned, mut unlisted) = (sample.values.len(), 0_u64, 0_u64);
    for (ns, key) in &sample.values {
        match NamespaceIndex::new(caller, ns).compare(ctx, &[key], Comparison::Check).await {
            Ok(compared) => match compared.unwrap_or_default()[..] {
                [IndexFinding::Orphaned { .. }] => orphaned += 1,
                [IndexFinding::Unlisted] => unlisted += 1,
                _ => {}
            },
            Err(error) => {
                ctx.check()?;
                let advice = "run the check as a user that may run `STRLEN` and `PEXPIRETIME`, and \
                              make sure that no other program writes under the store's prefix";
                diagnosis.found(Verdict::Warning, "index", error.message().to_owned(), advice);
                return Ok(());
            }
        }
    }
    let mut findings = Vec::new();
    if orphaned > 0 {
        findings.push(format!(
            "{orphaned} of {looked_at} sampled values are orphaned: their metadata is lost, and \
             listings and `erase` may miss them"
        ));
    }
    if unlisted > 0 {
        findings.push(format!(
            "{unlisted} of {looked_at} sampled values belong to live entries that a damaged index \
             does not list"
        ));
    }
    let advice = match orphaned {
        0 => "run `cubbyhole doctor --repair`, which restores the index",
        _ => {
            "run `cubbyhole doctor --repair`, which restores the index where possible and lists \
             orphaned values; then run it with `--orphans register` or `--orphans remove`"
        }
    };
    if findings.is_empty() {
        diagnosis.ok(
            "index",
            format!("{looked_at} sampled values, all in the index of their namespace"),
        );
    } else {
        diagnosis.found(Verdict::Problem, "index", findings.join("; "), advice);
    }
    Ok(())
}

/// Counts expired entries that are not swept. The server has removed their values, but their keys
/// stay in the index until a sweep.
async fn check_entries(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    mut namespaces: Vec<Namespace>,
) -> Result<()> {
    let registry = Registry::new(caller);
    namespaces.sort();
    namespaces.dedup();
    let (mut live, mut expired) = (0_u64, 0_u64);
    for ns in &namespaces {
        match registry.count(ctx, ns).await {
            Ok([some_live, some_expired]) => {
                live += some_live;
                expired += some_expired;
            }
            Err(error) => {
                ctx.check()?;
                let advice = "make sure that no other program writes under the store's prefix, and \
                              see the server's log";
                problem(diagnosis, "entries", &error, advice);
                return Ok(());
            }
        }
    }
    let (entries, looked_at) = (live + expired, namespaces.len());
    let finding = match expired {
        0 => format!("{entries} in {looked_at} sampled namespaces, none of them expired"),
        _ => format!(
            "{entries} in {looked_at} sampled namespaces, {expired} of them expired and not swept"
        ),
    };
    if expired * 4 > entries {
        let advice = "run `cubbyhole evict` now and then regularly";
        diagnosis.found(Verdict::Warning, "entries", finding, advice);
    } else {
        diagnosis.ok("entries", finding);
    }
    Ok(())
}
