//! Health checks of the servers.

mod problem;
mod sample;
mod server;

use std::sync::Arc;

use cubbyhole_core::{
    Diagnosis, Error, ErrorKind, ExecutionContext, Namespace, Result, ResultExt, Verdict,
};

use crate::cluster::{Caller, ClusterHealth, Node, Servers};
use crate::config::Config;
use crate::registry::Registry;
use problem::problem;

/// Checks the health of the servers, and advises what to do about each finding.
///
/// It checks the connection, encryption, the cluster, the settings and clock of each master, and a
/// sample of registrations and entries. It opens its own connections and changes nothing. Failed
/// checks are findings in the [`Diagnosis`].
///
/// # Errors
/// `Cancelled` or `DeadlineExceeded` if the context ends, and `InvalidArgument` without a tokio
/// runtime with timers and I/O.
pub async fn diagnose(ctx: &ExecutionContext, config: &Config) -> Result<Diagnosis> {
    ctx.begin_in_runtime().await.in_operation("diagnose")?;
    let mut diagnosis = Diagnosis::default();
    let caller = match Caller::new(config.clone()) {
        Ok(caller) => caller,
        Err(error) => {
            problem(&mut diagnosis, "connection", &error, advice_on_connecting(&error));
            return Ok(diagnosis);
        }
    };
    if let Err(error) = Servers::new(&caller).admit(ctx).await {
        ctx.check()?;
        problem(&mut diagnosis, "connection", &error, advice_on_connecting(&error));
        return Ok(diagnosis);
    }
    check_encryption(&mut diagnosis, config);
    let masters = caller.topology().masters();
    if config.is_cluster() {
        ctx.race(check_cluster(&mut diagnosis, &masters)).await?;
    }
    for node in &masters {
        let name = |what: &str| {
            if config.is_cluster() { format!("{what} {}", node.address) } else { what.to_owned() }
        };
        let looked = ctx.race(server::check(node, config, &mut diagnosis, &name)).await?;
        if let Err(error) = looked {
            let advice = "check that it is running, and see its log";
            problem(&mut diagnosis, &name("server"), &error, advice);
        }
    }
    check_scripts(ctx, &mut diagnosis, &caller).await?;
    sample::check(ctx, &mut diagnosis, &caller, &masters).await?;
    Ok(diagnosis)
}

fn check_encryption(diagnosis: &mut Diagnosis, config: &Config) {
    let local = |host: &str| host == "localhost" || host == "::1" || host.starts_with("127.");
    if config.tls {
        diagnosis.ok("encryption", "TLS with verification of the server's name");
    } else if config.addresses.iter().all(|address| local(&address.host)) {
        diagnosis.ok("encryption", "none, but the connection is local");
    } else {
        diagnosis.found(
            Verdict::Warning,
            "encryption",
            "none: values and the password cross the network in plain text",
            "enable TLS on the servers and write `rediss://`, or use a private network",
        );
    }
}

async fn check_cluster(diagnosis: &mut Diagnosis, masters: &[Arc<Node>]) {
    let mut reported = false;
    for node in masters {
        let Ok(health) = ClusterHealth::of(node).await else {
            continue;
        };
        reported = true;
        if let Some(finding) = health.trouble() {
            diagnosis.found(
                Verdict::Problem,
                "cluster",
                finding,
                "see `redis-cli --cluster check`, and what each node logs",
            );
            return;
        }
        if !health.moving.is_empty() {
            diagnosis.found(
                Verdict::Warning,
                "cluster",
                format!(
                    "slots are being migrated from {}: {}; most calls on them wait until the end",
                    node.address, health.moving
                ),
                "let the migration end, or fix an interrupted one: `redis-cli --cluster fix`",
            );
            return;
        }
    }
    if reported {
        let finding = format!("{} masters, all slots served, none being migrated", masters.len());
        diagnosis.ok("cluster", finding);
    }
}

/// Runs a read-only script on a namespace that does not exist.
async fn check_scripts(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
) -> Result<()> {
    let nowhere = Namespace::from_parts("doctor", ["nothing is kept here"])?;
    match Registry::new(caller).count(ctx, &nowhere).await {
        Ok(_) => diagnosis.ok("scripts", "can be run"),
        Err(error) => {
            ctx.check()?;
            let advice = "allow the user to run `EVALSHA`, `SCRIPT LOAD` and the commands of the \
                          scripts on keys with the store's prefix";
            problem(diagnosis, "scripts", &error, advice);
        }
    }
    Ok(())
}

fn advice_on_connecting(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "check user, password and client certificate in the URL, and the server's ACL"
        }
        ErrorKind::InvalidArgument => "correct the URL",
        ErrorKind::Unsupported => "use a newer server",
        _ => "check the address, that the server is running, and that it accepts this machine",
    }
}
