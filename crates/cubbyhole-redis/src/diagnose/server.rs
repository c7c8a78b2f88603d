//! Health checks of one server.

use std::time::Duration;

use cubbyhole_core::{Clock, Diagnosis, ErrorKind, Result, SystemClock, Verdict};

use crate::cluster::{Node, ServerInfo};
use crate::config::Config;
use crate::replies;

/// The tolerated difference between the clocks of server and client.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

pub(super) async fn check(
    node: &Node,
    config: &Config,
    diagnosis: &mut Diagnosis,
    name: &(dyn Fn(&str) -> String + Sync),
) -> Result<()> {
    let info = ServerInfo::of(node, "everything").await?;
    diagnosis.ok(name("server"), info.server());
    check_clock(diagnosis, node, name("clock")).await?;
    check_role(diagnosis, &info, name("role"));
    check_replicas(diagnosis, &info, config, name("replicas"));
    check_persistence(diagnosis, node, &info, name("persistence")).await?;
    check_memory(diagnosis, &info, name("memory"));
    Ok(())
}

async fn check_clock(diagnosis: &mut Diagnosis, node: &Node, name: String) -> Result<()> {
    let before = SystemClock.now();
    let server = replies::time(node.ask(&redis::cmd("TIME")).await?)?;
    let after = SystemClock.now();
    let apart = before.saturating_since(server).max(server.saturating_since(after));
    if apart > CLOCK_TOLERANCE {
        diagnosis.found(
            Verdict::Warning,
            name,
            format!("the clocks of the server and this machine differ by {apart:?}"),
            "synchronise the clocks of all servers with NTP: each server decides expiry in its \
             slots by its own clock, and so does a promoted replica",
        );
    } else {
        let finding = format!("differs from this machine's by at most {CLOCK_TOLERANCE:?}");
        diagnosis.ok(name, finding);
    }
    Ok(())
}

fn check_role(diagnosis: &mut Diagnosis, info: &ServerInfo, name: String) {
    if info.field("role") == Some("slave") {
        diagnosis.found(
            Verdict::Problem,
            name,
            "a replica: it rejects writes",
            "use the address of its master in the URL",
        );
    }
}

fn check_replicas(diagnosis: &mut Diagnosis, info: &ServerInfo, config: &Config, name: String) {
    let count = number(info, "connected_slaves");
    let wanted = u64::from(config.wait_replicas);
    if count < wanted {
        diagnosis.found(
            Verdict::Problem,
            name,
            format!("{count} connected, but every write waits for {wanted}"),
            "start the replicas, or lower `wait_replicas`",
        );
    } else if count == 0 && config.is_cluster() {
        diagnosis.found(
            Verdict::Warning,
            name,
            "none: if this master fails, the data in its slots is lost",
            "add a replica to each master",
        );
    } else {
        let waits = match wanted {
            0 => "writes do not wait for replicas".to_owned(),
            _ => format!("writes wait for {wanted}"),
        };
        diagnosis.ok(name, format!("{count} connected; {waits}"));
    }
}

async fn check_persistence(
    diagnosis: &mut Diagnosis,
    node: &Node,
    info: &ServerInfo,
    name: String,
) -> Result<()> {
    let failed = ["rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"]
        .into_iter()
        .find(|field| info.field(field).is_some_and(|status| status != "ok"));
    let saves = setting(node, "save").await?.is_some_and(|save| !save.is_empty());
    if let Some(field) = failed {
        let refuses = match field {
            "aof_last_write_status" => true,
            "rdb_last_bgsave_status" if saves => {
                setting(node, "stop-writes-on-bgsave-error").await?.as_deref() == Some("yes")
            }
            _ => false,
        };
        let refuses = if refuses { ", and rejects writes until it can" } else { "" };
        diagnosis.found(
            Verdict::Problem,
            name,
            format!("the server cannot write to its disk (`{field}`){refuses}"),
            "see its log; check disk space, permissions, and `fork` failures for lack of memory",
        );
        return Ok(());
    }
    let append = info.field("aof_enabled") == Some("1");
    let Some(fsync) = setting(node, "appendfsync").await? else {
        diagnosis.found(
            Verdict::Warning,
            name,
            "this user may not read the settings (`CONFIG GET`)",
            "check the settings `appendonly` and `appendfsync` on the server",
        );
        return Ok(());
    };
    match (append, fsync.as_str(), saves) {
        (true, "always", _) => {
            diagnosis.ok(name, "append-only file, synced before each reply");
        }
        (true, "everysec", _) => diagnosis.ok(
            name,
            "append-only file, synced every second: a power failure loses about one second of \
             writes",
        ),
        (true, _, _) => diagnosis.found(
            Verdict::Warning,
            name,
            "append-only file, synced by the operating system: a power failure loses up to half a \
             minute of writes",
            "set `appendfsync everysec` or `always`",
        ),
        (false, _, true) => diagnosis.found(
            Verdict::Warning,
            name,
            "snapshots only: a crash loses all writes since the last snapshot",
            "set `appendonly yes`",
        ),
        (false, _, false) => diagnosis.found(
            Verdict::Warning,
            name,
            "none: a server that restarts is empty, and its replicas then empty themselves as well",
            "set `appendonly yes`, unless the data can be recreated",
        ),
    }
    Ok(())
}

fn check_memory(diagnosis: &mut Diagnosis, info: &ServerInfo, name: String) {
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    let policy = info.field("maxmemory_policy").unwrap_or("noeviction");
    let keys: u64 = info.keys();
    let megabytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    if policy != "noeviction" {
        let verdict = if most > 0 { Verdict::Problem } else { Verdict::Warning };
        diagnosis.found(
            verdict,
            name,
            format!(
                "`maxmemory-policy` is `{policy}`: the server evicts keys when memory is short, {} \
                 so far",
                number(info, "evicted_keys")
            ),
            "set it to `noeviction`; eviction removes entries and indexes, and `erase` does not \
             find values without an index, but `cubbyhole doctor --repair` does",
        );
    } else if most > 0 && used.saturating_mul(10) > most.saturating_mul(9) {
        diagnosis.found(
            Verdict::Warning,
            name,
            format!(
                "{} of {} used; writes are rejected when it is full",
                megabytes(used),
                megabytes(most)
            ),
            "raise `maxmemory`, erase entries, or give them a TTL",
        );
    } else if most == 0 {
        let used = megabytes(used);
        diagnosis.ok(name, format!("{used} used, {keys} keys; no limit and no eviction"));
    } else {
        let (used, most) = (megabytes(used), megabytes(most));
        let finding = format!("{used} of {most} used, {keys} keys; no eviction");
        diagnosis.ok(name, finding);
    }
}

/// Returns a setting, or `None` without permission to read it.
async fn setting(node: &Node, name: &str) -> Result<Option<String>> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(name);
    match node.ask(&command).await {
        Ok(answer) => replies::array(answer)?.into_iter().nth(1).map(replies::text).transpose(),
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        Err(_) => Ok(None),
    }
}

fn number(info: &ServerInfo, field: &str) -> u64 {
    info.field(field).and_then(|text| text.parse().ok()).unwrap_or(0)
}
