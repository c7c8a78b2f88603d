//! `cargo xtask prove`: long runs of the tests of faults, histories and hostile input.

use std::process::Command;
use std::time::Instant;

use crate::process::{cargo, line, run as run_command};
use crate::services::Services;

/// One part: a test program, the filter of its tests, and the variables that make the run long.
struct Part {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    filter: &'static str,
    much: &'static [(&'static str, &'static str)],
}

const KILLS: &[(&str, &str)] = &[("CUBBYHOLE_CRASH_CYCLES", "1000")];
const CUTS: &[(&str, &str)] = &[("CUBBYHOLE_CRASH_CYCLES", "5000")];
const DAMAGES: &[(&str, &str)] = &[("CUBBYHOLE_DAMAGES", "5000")];
const HISTORIES: &[(&str, &str)] = &[("CUBBYHOLE_HISTORY_OPERATIONS", "1000000")];
const SEQUENCES: &[(&str, &str)] = &[("CUBBYHOLE_MODEL_CASES", "5000")];

const INPUTS: &[(&str, &str)] = &[("PROPTEST_CASES", "5000")];

const HISTORY: &str = "bytes::history::histories_are_linearizable";
const MODEL: &str = "model::random_operations";

const fn part(
    name: &'static str,
    (package, program): (&'static str, &'static str),
    filter: &'static str,
    much: &'static [(&'static str, &'static str)],
) -> Part {
    Part { name, package, program, filter, much }
}

const MEMORY: (&str, &str) = ("cubbyhole-conformance", "memory");
const EMBEDDED: (&str, &str) = ("cubbyhole-embedded", "conformance");
const POSTGRES: (&str, &str) = ("cubbyhole-postgres", "conformance");
const REDIS: (&str, &str) = ("cubbyhole-redis", "conformance");

const PARTS: [Part; 15] = [
    part("kills", ("cubbyhole-embedded", "crash"), "acknowledged", KILLS),
    part("power", ("cubbyhole-embedded", "power_loss"), "", CUTS),
    part("damage", ("cubbyhole-embedded", "damage"), "", DAMAGES),
    part("history-memory", MEMORY, HISTORY, HISTORIES),
    part("history-embedded", EMBEDDED, HISTORY, HISTORIES),
    part("history-postgres", POSTGRES, HISTORY, HISTORIES),
    part("history-redis", REDIS, HISTORY, HISTORIES),
    part("model-memory", MEMORY, MODEL, SEQUENCES),
    part("model-embedded", EMBEDDED, MODEL, SEQUENCES),
    part("model-postgres", POSTGRES, MODEL, SEQUENCES),
    part("model-redis", REDIS, MODEL, SEQUENCES),
    part("hostile-core", ("cubbyhole-core", "hostile"), "", INPUTS),
    part("hostile-tool", ("cubbyhole-cli", "hostile"), "", INPUTS),
    part("hostile-postgres", ("cubbyhole-postgres", "server"), "hostile::", INPUTS),
    part("hostile-redis", ("cubbyhole-redis", "server"), "hostile::", INPUTS),
];

/// Runs the parts whose names start with one of `names`, or all parts. A failed part does not stop the
/// parts after it.
pub(crate) fn run(names: &[String]) -> Result<(), String> {
    let chosen = chosen(names)?;
    let services = Services::start()?;
    let mut failed = Vec::new();
    let mut table = String::new();
    for part in chosen {
        let mut command = part.command();
        command.envs(services.environment());
        println!("==> {}: {}", part.name, line(&command));
        let start = Instant::now();
        let outcome = run_command(&mut command);
        let seconds = start.elapsed().as_secs();
        let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
        table += &format!("{:<18} {seconds:>7} s  {verdict}\n", part.name);
        failed.extend(outcome.err().map(|_| part.name));
    }
    println!("\n{table}");
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Returns the filters of all parts.
pub(crate) fn filters() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|part| part.filter)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Part>, String> {
    let begins = |part: &Part, name: &String| part.name.starts_with(name.as_str());
    if let Some(unknown) = names.iter().find(|name| !PARTS.iter().any(|part| begins(part, name))) {
        let known: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        return Err(format!("there is no part {unknown}; the parts are {}", known.join(", ")));
    }
    let is_chosen = |part: &&Part| names.is_empty() || names.iter().any(|name| begins(part, name));
    Ok(PARTS.iter().filter(is_chosen).collect())
}

impl Part {
    fn command(&self) -> Command {
        let mut command = cargo(["test", "--release", "--locked"]);
        command.args(["--package", self.package, "--test", self.program]);
        command.args(["--", self.filter, "--nocapture"]);
        command.envs(self.much.iter().copied());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_selected_by_the_start_of_their_names() {
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            chosen(&asked).map(|parts| parts.iter().map(|part| part.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), PARTS.len());
        assert_eq!(names(&["history", "kills"]).unwrap().len(), 5);
        assert_eq!(names(&["model-redis"]).unwrap(), ["model-redis"]);
        assert!(names(&["kills", "nothing"]).unwrap_err().contains("nothing"));
    }
}
