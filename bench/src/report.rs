//! The report: Markdown tables, JSON and charts.

mod charts;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::goals::Goal;
use crate::harness::Settings;
use crate::measure::Comparison;

/// The source of the crate versions in the report.
const LOCK_FILE: &str = include_str!("../Cargo.lock");
const CRATES: [&str; 11] = [
    "cubbyhole",
    "dashmap",
    "entelix-memory",
    "entelix-persistence",
    "hashbrown",
    "moka",
    "openkeyv",
    "redb",
    "redis",
    "rusqlite",
    "tokio-postgres",
];

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    versions: BTreeMap<String, String>,
    settings: Settings,
    goals: Vec<Goal>,
    comparisons: Vec<Comparison>,
    sizes: Vec<Size>,
}

#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    system: String,
}

/// Bytes per entry, including the value.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    pub backend: &'static str,
    pub name: &'static str,
    pub entries: usize,
    pub value_bytes: usize,
    pub bytes: f64,
}

impl Report {
    pub fn new(settings: Settings) -> Self {
        let versions =
            CRATES.iter().filter_map(|name| Some(((*name).to_owned(), locked_version(name)?)));
        let report = Self {
            machine: Machine::this(),
            versions: versions.collect(),
            settings,
            goals: Vec::new(),
            comparisons: Vec::new(),
            sizes: Vec::new(),
        };
        print!("{}", tables::heading(&report));
        report
    }

    /// Adds the version of a server.
    pub fn add_version(&mut self, name: &str, version: String) {
        self.versions.insert(name.to_owned(), version);
    }

    pub fn add_comparison(&mut self, comparison: Comparison) {
        println!("{}", tables::comparison(&comparison));
        self.comparisons.push(comparison);
    }

    pub fn add_sizes(&mut self, sizes: Vec<Size>) {
        if !sizes.is_empty() {
            println!("{}", tables::sizes(&sizes));
        }
        self.sizes.extend(sizes);
    }

    pub fn add_goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    /// Prints the goals and the folder of the results.
    pub fn print_summary(&self, folder: &Path) {
        print!("\n{}", tables::goals(&self.goals));
        println!("\nresults written to {}", folder.display());
    }

    /// Writes all results so far to the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(folder.join("results.md"), tables::page(self))?;
        for (name, chart) in charts::all(&self.comparisons) {
            fs::write(folder.join(name), chart)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }
}

/// The version of a crate in the lock file. If there are several, the newest is the one that this
/// workspace depends on.
fn locked_version(name: &str) -> Option<String> {
    let start = format!("name = \"{name}\"\nversion = \"");
    let found = LOCK_FILE.rsplit_once(&start)?.1;
    Some(found.split_once('"')?.0.to_owned())
}

impl Machine {
    /// Describes this machine. On systems other than Linux, some fields are empty.
    fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let field = |text: &str, name| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim_start_matches(['\t', ':', ' ']).to_owned())
        };
        let kibibytes = field(&meminfo, "MemTotal")
            .and_then(|total| total.trim_end_matches(" kB").parse::<u64>().ok());
        Self {
            processor: field(&cpuinfo, "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kibibytes.unwrap_or_default() / (1024 * 1024),
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert_eq!(locked_version("redb").unwrap().split('.').next(), Some("4"));
        assert_eq!(locked_version("redis").unwrap().split('.').next(), Some("1"));
        assert!(CRATES.iter().all(|name| locked_version(name).is_some()));
    }
}
