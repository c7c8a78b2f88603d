//! Checks of a sample of keys: registrations, indexes, entries.

use std::sync::Arc;

use cubbyhole_core::limits::check_key;
use cubbyhole_core::{Diagnosis, ErrorKind, ExecutionContext, Namespace, Result, Verdict};

use super::problem::problem;
use crate::cluster::{Caller, Node};
use crate::index::{Comparison, IndexFinding, NamespaceIndex};
use crate::keys::ParsedKey;
use crate::registry::Registry;
use crate::replies;

/// How many keys of each master are drawn.
const SAMPLES: usize = 100;

/// Draws keys of each master, and checks their namespaces.
pub(super) async fn check(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    masters: &[Arc<Node>],
) -> Result<()> {
    let drawn = draw(ctx, caller, masters).await?;
    check_registrations(ctx, diagnosis, caller, &drawn).await?;
    check_index(ctx, diagnosis, caller, &drawn).await?;
    check_entries(ctx, diagnosis, caller, drawn.of).await
}

/// The namespaces that keys belong to which were drawn, one for each key.
#[derive(Default)]
struct Drawn {
    of: Vec<Namespace>,
    /// Of which these are of values.
    values: Vec<(Namespace, String)>,
    /// Some server did not let the user draw.
    denied: bool,
}

/// Draws keys of each master. What is rare may be missed.
async fn draw(ctx: &ExecutionContext, caller: &Caller, masters: &[Arc<Node>]) -> Result<Drawn> {
    let mut found = Drawn::default();
    for node in masters {
        for _ in 0..SAMPLES {
            let drawn = ctx.race(node.ask(&redis::cmd("RANDOMKEY"))).await?;
            found.denied |= drawn.as_ref().is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
            let Ok(Some(name)) = drawn.and_then(replies::bytes) else {
                break;
            };
            match ParsedKey::parse(caller.config().prefix(), &name) {
                Some(ParsedKey::Keys(ns)) => found.of.push(ns),
                Some(ParsedKey::Value(ns, key)) => {
                    if check_key(key).is_ok() {
                        found.values.push((ns.clone(), key.to_owned()));
                    }
                    found.of.push(ns);
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Whether the namespaces are listed that were drawn.
async fn check_registrations(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    drawn: &Drawn,
) -> Result<()> {
    let registry = Registry::new(caller);
    let (looked_at, mut unlisted) = (drawn.of.len(), 0_u64);
    for ns in &drawn.of {
        let listed = registry.is_listed(ctx, ns).await;
        let tenant = registry.listed_tenant(ctx, &ns.tenant()).await;
        if !matches!((listed, tenant), (Ok(false), _) | (_, Ok(None))) {
            continue;
        }
        // It may have gone meanwhile.
        let [live, _] = registry.count(ctx, ns).await.unwrap_or_default();
        unlisted += u64::from(live > 0);
    }
    ctx.check()?;
    if unlisted > 0 {
        diagnosis.found(
            Verdict::Problem,
            "registrations",
            format!("{unlisted} of {looked_at} keys drawn are of namespaces that are not listed"),
            "run `cubbyhole doctor --repair`",
        );
    } else if drawn.denied {
        diagnosis.found(
            Verdict::Warning,
            "registrations",
            "this user may not draw keys (`RANDOMKEY`)",
            "ask as a user that may, after a failover",
        );
    } else {
        diagnosis.ok("registrations", format!("{looked_at} keys drawn, all of listed namespaces"));
    }
    Ok(())
}

/// Whether the values that were drawn are in the index of their namespace.
async fn check_index(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
    drawn: &Drawn,
) -> Result<()> {
    let (looked_at, mut orphaned, mut unlisted) = (drawn.values.len(), 0_u64, 0_u64);
    for (ns, key) in &drawn.values {
        match NamespaceIndex::new(caller, ns).compare(ctx, &[key], Comparison::Check).await {
            Ok(compared) => match compared.unwrap_or_default()[..] {
                [IndexFinding::Orphaned { .. }] => orphaned += 1,
                [IndexFinding::Unlisted] => unlisted += 1,
                _ => {}
            },
            Err(error) => {
                ctx.check()?;
                let advice = "ask as a user that may run `STRLEN` and `PEXPIRETIME`, and see that \
                              nothing else writes under the store's prefix";
                diagnosis.found(Verdict::Warning, "index", error.message().to_owned(), advice);
                return Ok(());
            }
        }
    }
    let mut findings = Vec::new();
    if orphaned > 0 {
        findings.push(format!(
            "{orphaned} of {looked_at} values drawn are orphaned: their meta data is lost, and listings \
             and `erase` may miss them"
        ));
    }
    if unlisted > 0 {
        findings.push(format!(
            "{unlisted} of {looked_at} values drawn are of live entries that a damaged index does not \
             list"
        ));
    }
    let advice = match orphaned {
        0 => "run `cubbyhole doctor --repair`, which restores the index",
        _ => {
            "run `cubbyhole doctor --repair`, which restores what it can and lists orphaned values, and \
             then with `--orphans register` or `--orphans remove`"
        }
    };
    if findings.is_empty() {
        diagnosis.ok("index", format!("{looked_at} values drawn, all in their namespace's index"));
    } else {
        diagnosis.found(Verdict::Problem, "index", findings.join("; "), advice);
    }
    Ok(())
}

/// What has expired and is not swept. The values are gone then, by the server's own doing, and the
/// keys stand in the indexes until a sweep.
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
                let advice = "see that nothing else writes under the store's prefix, and what the \
                              server logs";
                problem(diagnosis, "entries", &error, advice);
                return Ok(());
            }
        }
    }
    let (entries, looked_at) = (live + expired, namespaces.len());
    let finding = match expired {
        0 => format!("{entries} in {looked_at} namespaces drawn, none of them expired"),
        _ => format!(
            "{entries} in {looked_at} namespaces drawn, {expired} of them expired and not swept"
        ),
    };
    if expired * 4 > entries {
        let advice = "run `cubbyhole evict`, and then regularly";
        diagnosis.found(Verdict::Warning, "entries", finding, advice);
    } else {
        diagnosis.ok("entries", finding);
    }
    Ok(())
}
