//! The plan of a run, parsed from the command line: backends, sizes and number of rounds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Result;
use crate::harness::Settings;

pub const HELP: &str = "\
Compares the stores with their peers and their engines in alternating rounds. Prints medians, ratios
and the goals with their results. Starts the servers that it needs.

  cargo xtask bench [memory|layers|embedded|postgres|redis|all] [--quick] [--out FOLDER]

  memory, …, redis   measure one backend, or the layers over memory; the default is all
  --quick            fewer rounds, and the mixes at one size; at most 15 minutes
  --out FOLDER       folder for results.md, results.json and the charts; the default is target/bench
";

/// The names of the backends, and of the layers over memory.
pub const MEMORY: &str = "memory";
pub const LAYERS: &str = "layers";
pub const EMBEDDED: &str = "embedded";
pub const POSTGRES: &str = "postgres";
pub const REDIS: &str = "redis";
pub const ALL: [&str; 5] = [MEMORY, LAYERS, EMBEDDED, POSTGRES, REDIS];

/// The row of Cubbyhole over bytes.
pub const OURS: &str = "cubbyhole";
/// The row of Cubbyhole over strings, which are encoded as JSON like those of the peers.
pub const OURS_JSON: &str = "cubbyhole, JSON";

/// The plan of a run.
pub struct Plan {
    pub backends: Vec<&'static str>,
    pub settings: Settings,
    /// The number of entries in the stores that are compared with the goals.
    pub entries: usize,
    pub value_bytes: usize,
    /// The sizes at which the mixes are measured.
    pub scales: &'static [Scale],
    pub out: PathBuf,
}

/// A store size, and the numbers of concurrent callers.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub entries: usize,
    pub value_bytes: usize,
    pub callers: &'static [u64],
}

const QUICK: &[Scale] = &[Scale { entries: 10_000, value_bytes: 1024, callers: &[1, 16] }];
const FULL: &[Scale] = &[
    Scale { entries: 10_000, value_bytes: 10 * 1024, callers: &[16] },
    Scale { entries: 100_000, value_bytes: 1024, callers: &[1, 2, 16, 128] },
    // One caller only: a peer that lists by scanning all of Redis takes seconds for each call.
    Scale { entries: 1_000_000, value_bytes: 100, callers: &[1] },
];

/// Parses the arguments. Returns `None` if they ask for help.
pub fn parse(arguments: &[String]) -> Result<Option<Plan>> {
    let milliseconds = Duration::from_millis;
    let mut plan = Plan {
        backends: ALL.to_vec(),
        settings: Settings { rounds: 7, turn: milliseconds(50), warm_up: milliseconds(150) },
        entries: 1_000_000,
        value_bytes: 256,
        scales: FULL,
        out: folder(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "all" => plan.backends = ALL.to_vec(),
            "--quick" => {
                plan.scales = QUICK;
                plan.settings =
                    Settings { rounds: 5, turn: milliseconds(30), warm_up: milliseconds(100) };
            }
            "--out" => plan.out = arguments.next().ok_or("--out takes a folder")?.into(),
            "--help" | "-h" => return Ok(None),
            name => {
                let known = ALL.into_iter().find(|known| *known == name);
                let unknown = || format!("unknown argument: {name}\n\n{HELP}");
                plan.backends = vec![known.ok_or_else(unknown)?];
            }
        }
    }
    Ok(Some(plan))
}

/// The folder for results and measured files. It is in the checkout, because a temporary folder can
/// be in memory.
pub fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).join("target/bench")
}
