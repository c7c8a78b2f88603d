//! Looking the servers over.

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

/// Looks servers, cluster, settings, clocks and a sample of registrations and entries over, and says
/// what to do. Connects by itself and changes nothing. What goes wrong is in the [`Diagnosis`].
///
/// # Errors
/// The context's end; `InvalidArgument` without a tokio runtime with timers.
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
            let advice = "see whether it runs, and its log";
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
        diagnosis.ok("encryption", "TLS, and the server's name is checked");
    } else if config.addresses.iter().all(|address| local(&address.host)) {
        diagnosis.ok("encryption", "none, to this machine");
    } else {
        diagnosis.found(
            Verdict::Warning,
            "encryption",
            "none: values and the password cross the network in the clear",
            "turn TLS on at the servers and write `rediss://`, or keep the network to yourself",
        );
    }
}

async fn check_cluster(diagnosis: &mut Diagnosis, masters: &[Arc<Node>]) {
    let mut told = false;
    for node in masters {
        let Ok(health) = ClusterHealth::of(node).await else {
            continue;
        };
        told = true;
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
                    "slots on their way from {}: {}; most calls on them wait for the end of it",
                    node.address, health.moving
                ),
                "let it end, or mend what was left half way: `redis-cli --cluster fix`",
            );
            return;
        }
    }
    if told {
        let finding = format!("{} masters, all slots served, none on its way", masters.len());
        diagnosis.ok("cluster", finding);
    }
}

/// Runs a script that reads, where nothing is.
async fn check_scripts(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    caller: &Caller,
) -> Result<()> {
    let nowhere = Namespace::from_parts("doctor", ["nothing is kept here"])?;
    match Registry::new(caller).count(ctx, &nowhere).await {
        Ok(_) => diagnosis.ok("scripts", "they run"),
        Err(error) => {
            ctx.check()?;
            let advice = "allow the user `EVALSHA`, `SCRIPT LOAD` and the commands of the scripts \
                          on the keys under the store's prefix";
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
        _ => "check the address, and that the server runs and lets this machine in",
    }
}
