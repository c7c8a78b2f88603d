//! `cargo xtask fuzz`: coverage-guided runs of the targets in `fuzz/`, on the stable compiler.
//!
//! The compiler flags are those of cargo-fuzz without the address sanitizer. Only the sanitizer needs a
//! nightly compiler; it makes runs ten times slower and finds nothing in code without `unsafe`. Inputs
//! are in the folders of cargo-fuzz, so each tool continues a run of the other.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::process::{cargo, output, root, run as run_command, target_folder};

/// The manifest of the fuzz targets, a separate workspace.
pub(crate) const MANIFEST: &str = "fuzz/Cargo.toml";

/// One source file for each target.
const TARGETS: &str = "fuzz/fuzz_targets";

/// The flags that make programs report coverage and comparisons to libFuzzer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Cdebug-assertions -Ccodegen-units=1";

/// The packages whose coverage libFuzzer follows, in addition to ours: they parse text. Following the
/// engine and the runtime doubles the time of a run, and threads make their coverage random.
const FOLLOWED: [&str; 7] =
    ["base64", "humantime", "percent-encoding", "serde_json", "time", "tokio-postgres", "uuid"];

/// Set when cargo runs this program instead of the compiler.
const WRAPS_COMPILER: &str = "CUBBYHOLE_XTASK_WRAPS_COMPILER";

/// How long a target runs unless `--for` says otherwise.
const DEFAULT_TIME: Duration = Duration::from_secs(5 * 60);

/// The time limit of an input. A slower input is a failure.
const MOST_SECONDS_PER_INPUT: u32 = 60;

/// How many lines of a failed target's log are printed.
const SHOWN_LINES: usize = 25;

/// The targets to run, and how.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    targets: Vec<String>,
    time: Duration,
    /// How many targets run at the same time.
    jobs: usize,
}

/// Runs the targets that `arguments` name, or all, and prints a table of the results.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let plan = Plan::parse(arguments, targets()?)?;
    let programs = build(&plan)?;
    let queue = Mutex::new(plan.targets.iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || {
            let next = || queue.lock().ok()?.next();
            while let Some(target) = next() {
                let outcome = Outcome::of(target, &programs.join(target), plan.time);
                if let Ok(mut outcomes) = outcomes.lock() {
                    outcomes.push(outcome);
                }
            }
        };
        for _ in 0..plan.jobs {
            scope.spawn(work);
        }
    });
    report(&outcomes.into_inner().map_err(|_| "a run panicked".to_owned())?)
}

impl Plan {
    fn parse(arguments: &[String], known: Vec<String>) -> Result<Self, String> {
        let mut plan = Self { targets: Vec::new(), time: DEFAULT_TIME, jobs: 1 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--for" => {
                    let text = value()?;
                    let time = humantime::parse_duration(text);
                    plan.time = time.map_err(|error| format!("--for {text}: {error}"))?;
                    if plan.time < Duration::from_secs(1) {
                        return Err(format!("--for {text}: use at least 1s"));
                    }
                }
                "--jobs" => {
                    let text = value()?;
                    let jobs = text.parse().ok().filter(|jobs| *jobs > 0);
                    plan.jobs =
                        jobs.ok_or_else(|| format!("--jobs {text}: use a number from 1"))?;
                }
                target if known.iter().any(|name| name == target) => {
                    plan.targets.push(target.to_owned());
                }
                other => {
                    return Err(format!(
                        "there is no target {other}; the targets are {}",
                        known.join(", ")
                    ));
                }
            }
        }
        if plan.targets.is_empty() {
            plan.targets = known;
        }
        Ok(plan)
    }
}

/// Returns the names of all targets, sorted.
fn targets() -> Result<Vec<String>, String> {
    let unreadable = |error| format!("{TARGETS}: {error}");
    let mut names = Vec::new();
    for file in fs::read_dir(root().join(TARGETS)).map_err(unreadable)? {
        let path = file.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Runs the compiler if cargo runs this program instead of it. Removes the coverage flags for packages
/// that libFuzzer does not follow.
pub(crate) fn compile() -> Option<ExitCode> {
    env::var_os(WRAPS_COMPILER)?;
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next()?;
    let arguments = arguments.filter(|argument| is_followed(&package) || !reports(argument));
    let status = Command::new(compiler).args(arguments).status();
    let succeeded = status.is_ok_and(|status| status.success());
    Some(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_followed(package: &str) -> bool {
    package.starts_with("cubbyhole") || FOLLOWED.contains(&package)
}

/// Returns whether a compiler flag is for coverage.
fn reports(flag: &OsString) -> bool {
    let flag = flag.to_string_lossy();
    flag.contains("sancov") || flag.contains("sanitizer-coverage")
}

/// Builds the targets. Returns the folder of their programs.
fn build(plan: &Plan) -> Result<PathBuf, String> {
    let version = output(&mut cargo(["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("`cargo -vV` does not print the host")?;
    let folder = target_folder().join("fuzz");
    let mut command = cargo(["build", "--release", "--locked", "--manifest-path", MANIFEST]);
    command.arg("--target-dir").arg(&folder);
    // With `--target` the flags do not apply to build scripts, which cannot be linked with them.
    command.args(["--target", host]);
    command.args(plan.targets.iter().flat_map(|target| ["--bin", target]));
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", RUSTFLAGS);
    let wrapper = env::current_exe()
        .map_err(|error| format!("cannot find the path of this program: {error}"))?;
    command.env("RUSTC_WRAPPER", wrapper).env(WRAPS_COMPILER, "1");
    run_command(&mut command)?;
    Ok(folder.join(host).join("release"))
}

/// The result of a target's run.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    target: String,
    runs: u64,
    time: Duration,
    /// How many edges of the control flow the inputs cover.
    covered: u64,
    failure: Option<String>,
}

impl Outcome {
    fn of(target: &str, program: &Path, time: Duration) -> Self {
        let start = Instant::now();
        let (log, result) = match fuzz(target, program, time) {
            Ok((log, result)) => (log, result),
            Err(error) => (String::new(), Err(error)),
        };
        let failure = result.err().map(|error| failure(&log, program, &error));
        let (runs, covered) = (runs(&log), covered(&log));
        Self { target: target.to_owned(), runs, time: start.elapsed(), covered, failure }
    }
}

/// Runs a target for a time. Returns its log and its result.
fn fuzz(
    target: &str,
    program: &Path,
    time: Duration,
) -> Result<(String, Result<(), String>), String> {
    let corpus = format!("fuzz/corpus/{target}");
    let artifacts = format!("fuzz/artifacts/{target}/");
    for folder in [&corpus, &artifacts] {
        let made = fs::create_dir_all(root().join(folder));
        made.map_err(|error| format!("cannot create {folder}: {error}"))?;
    }
    let path = target_folder().join("fuzz").join(format!("{target}.log"));
    let unusable = |error: std::io::Error| format!("{}: {error}", path.display());
    let log = File::create(&path).map_err(unusable)?;
    let shown = humantime::format_duration(time);
    println!("==> {target}: for {shown}; its log is {}", path.display());
    let mut command = Command::new(program);
    command.current_dir(root()).arg(&corpus).args([
        format!("-artifact_prefix={artifacts}"),
        format!("-max_total_time={}", time.as_secs()),
        format!("-timeout={MOST_SECONDS_PER_INPUT}"),
        "-print_final_stats=1".to_owned(),
    ]);
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(unusable)?).stderr(log);
    let result = run_command(&mut command);
    let log = fs::read(&path).map_err(unusable)?;
    Ok((String::from_utf8_lossy(&log).into_owned(), result))
}

/// Returns the number after `name` on the last line that contains it.
fn last_number(log: &str, name: &str) -> Option<u64> {
    let after = |line: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    log.lines().rev().find_map(after)
}

fn runs(log: &str) -> u64 {
    last_number(log, "stat::number_of_executed_units:").unwrap_or(0)
}

fn covered(log: &str) -> u64 {
    last_number(log, " cov: ").unwrap_or(0)
}

/// Describes a failed run: the end of its log, and the input that reproduces the failure.
fn failure(log: &str, program: &Path, error: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    let input = log.lines().find_map(|line| line.split_once("Test unit written to "));
    let again = input.map_or_else(String::new, |(_, input)| {
        format!("\nRun that input again: {} {}", program.display(), input.trim())
    });
    format!("{end}\n{error}{again}")
}

fn report(outcomes: &[Outcome]) -> Result<(), String> {
    for outcome in outcomes {
        if let Some(failure) = &outcome.failure {
            println!("\n==> {} failed\n{failure}", outcome.target);
        }
    }
    println!("\n{:<16} {:>12} {:>8} {:>8}  result", "target", "runs", "runs/s", "edges");
    for Outcome { target, runs, time, covered, failure } in outcomes {
        let rate = *runs as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE);
        let result = if failure.is_some() { "FAILED" } else { "passed" };
        println!("{target:<16} {runs:>12} {rate:>8.0} {covered:>8}  {result}");
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some());
    let failed: Vec<&str> = failed.map(|outcome| outcome.target.as_str()).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Plan::parse(&arguments, ["a", "b"].map(str::to_owned).to_vec())
    }

    #[test]
    fn all_targets_run_unless_some_are_named() {
        let all = plan(&[]).unwrap();
        assert_eq!(
            (all.targets, all.time, all.jobs),
            (vec!["a".into(), "b".into()], DEFAULT_TIME, 1)
        );
        let one = plan(&["--for", "90s", "b", "--jobs", "2"]).unwrap();
        assert_eq!((one.targets, one.time.as_secs(), one.jobs), (vec!["b".into()], 90, 2));
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert_eq!(plan(&["c"]).unwrap_err(), "there is no target c; the targets are a, b");
        for wrong in [&["--for"][..], &["--for", "x"], &["--for", "1ms"], &["--jobs", "0"]] {
            assert!(plan(wrong).unwrap_err().contains(wrong[0]), "{wrong:?}");
        }
    }

    #[test]
    fn coverage_includes_our_packages_but_not_the_engine() {
        assert!(is_followed("cubbyhole-embedded") && is_followed("serde_json"));
        assert!(!is_followed("redb"));
        let flags = RUSTFLAGS.split_whitespace().filter(|flag| !reports(&OsString::from(flag)));
        let others = ["--cfg", "fuzzing", "-Cllvm-args=-simplifycfg-branch-fold-threshold=0"];
        assert_eq!(flags.take(3).collect::<Vec<_>>(), others);
    }

    #[test]
    fn every_target_of_the_repository_is_found() {
        let manifest = fs::read_to_string(root().join(MANIFEST)).unwrap();
        let targets = targets().unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }

    #[test]
    fn log_is_parsed_for_runs_coverage_and_the_failing_input() {
        let log = "#2\tINITED cov: 10 ft: 11\n#9\tNEW    cov: 12 ft: 14 corp: 2/2b\n\
                   thread 'main' panicked at x.rs:1\n\
                   artifact_prefix='a/'; Test unit written to a/crash-1\n\
                   stat::number_of_executed_units: 4321\n";
        assert_eq!((runs(log), covered(log)), (4321, 12));
        let failure = failure(log, Path::new("p"), "exit status: 77");
        assert!(failure.contains("panicked at x.rs:1"), "{failure}");
        assert!(failure.ends_with("77\nRun that input again: p a/crash-1"), "{failure}");
        assert_eq!((runs(""), covered("")), (0, 0));
    }
}
