//! `cargo xtask test`: every check that must pass, in order.

use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::beside::Beside;
use crate::cargo_deny::CargoDeny;
use crate::failures::run_tests;
use crate::process::{cargo, cargo_apart, line, run as run_command};
use crate::services::Services;
use crate::{bench, fuzz, integrations, tidy};

/// Runs every step and stops at the first that fails. `arguments` go to `cargo test`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let started = Instant::now();
    let mut report = Report::default();
    report.command("format", &mut cargo(["fmt", "--all", "--check"]))?;
    // Without `--all`, which would format the crates of the main workspace again.
    for (name, manifest) in [("format bench", bench::MANIFEST), ("format fuzz", fuzz::MANIFEST)] {
        report.command(name, &mut cargo(["fmt", "--manifest-path", manifest, "--check"]))?;
    }
    report.command("format integrations", &mut integrations::format())?;
    report.step("tidy", "the layout rules", tidy::run)?;
    report.command("clippy", &mut clippy(&["--workspace", "--all-targets"]))?;
    // The facade is the only crate whose code depends on features.
    let mut clippy_memory = clippy(&["--package", "cubbyhole", "--no-default-features"]);
    report.command("clippy memory", &mut clippy_memory)?;
    // An installation runs next to the tests, which often wait for a server.
    let cargo_deny = thread::spawn(CargoDeny::find_or_install);
    let services = Services::start()?;
    // Starts when the tests are built, because cargo builds one workspace of a folder at a time.
    let mut checks = None;
    let begun = || checks = Some(Beside::start(checks_beside_the_tests()));
    report.tests("tests", &mut tests(arguments), &services, begun)?;
    if let Some(checks) = checks {
        report.steps.extend(checks.finish()?);
    }
    report.tests("tests integrations", &mut integrations::tests(), &services, || ())?;
    drop(services);
    // The harness has tests. They also show that the rest of the benchmarks compiles.
    report.command("tests bench", &mut cargo_apart("test", bench::MANIFEST))?;
    report.dependencies(cargo_deny)?;
    report.print(started.elapsed(), arguments);
    Ok(())
}

/// The steps that need no server, and the builds of the steps that follow the tests.
fn checks_beside_the_tests() -> Vec<(&'static str, Command)> {
    // Only compiles the targets, without libFuzzer, which needs a C++ compiler.
    let mut clippy_fuzz = cargo_apart("clippy", fuzz::MANIFEST);
    clippy_fuzz.args(["--no-default-features", "--", "-D", "warnings"]);
    let mut build_integrations = integrations::tests();
    build_integrations.arg("--no-run");
    let mut build_bench = cargo_apart("test", bench::MANIFEST);
    build_bench.arg("--no-run");
    vec![
        ("clippy integrations", integrations::clippy()),
        ("build integrations", build_integrations),
        ("docs", docs()),
        ("docs integrations", integrations::docs()),
        ("build bench", build_bench),
        ("clippy fuzz", clippy_fuzz),
    ]
}

fn clippy(selection: &[&str]) -> Command {
    let mut command = cargo(["clippy", "--locked"]);
    command.args(selection).args(["--", "-D", "warnings"]);
    command
}

/// The tests, doc tests included.
fn tests(arguments: &[String]) -> Command {
    // A failed test program does not hide failures of the others.
    let mut command = cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
    command.args(arguments);
    command
}

fn docs() -> Command {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The steps that have passed, with their durations.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, Duration)>,
}

impl Report {
    fn step(
        &mut self,
        name: &'static str,
        what: &str,
        work: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        println!("==> {name}: {what}");
        let start = Instant::now();
        work().map_err(|error| format!("step `{name}` failed: {error}"))?;
        self.steps.push((name, start.elapsed()));
        Ok(())
    }

    fn command(&mut self, name: &'static str, command: &mut Command) -> Result<(), String> {
        let what = line(command);
        self.step(name, &what, || run_command(command))
    }

    /// Runs tests with servers.
    fn tests(
        &mut self,
        name: &'static str,
        command: &mut Command,
        services: &Services,
        begun: impl FnOnce(),
    ) -> Result<(), String> {
        command.envs(services.environment());
        // libpq's variables may name the developer's server, or settings that tests do not expect.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        let what = line(command);
        self.step(name, &what, || run_tests(command, &mut std::io::stdout(), begun))
    }

    /// Checks licences, bans and sources. Advisories are excluded: they come from the network and change
    /// independently of the code, so a commit that passes today could fail tomorrow.
    fn dependencies(
        &mut self,
        cargo_deny: JoinHandle<Result<CargoDeny, String>>,
    ) -> Result<(), String> {
        const CHECK: [&str; 6] =
            ["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
        self.step("dependencies", &format!("cargo-deny {}", CHECK.join(" ")), || {
            let cargo_deny = cargo_deny.join().map_err(|_| "the installation panicked")??;
            run_command(&mut cargo_deny.command(CHECK))?;
            // This manifest has its own `deny.toml`.
            let integrations = ["--manifest-path", integrations::MANIFEST];
            run_command(&mut cargo_deny.command(integrations.into_iter().chain(CHECK)))
        })
    }

    /// Prints the steps. Their sum is more than `total`, because some run next to others.
    fn print(&self, total: Duration, arguments: &[String]) {
        println!("\n{:<20} {:>9}", "step", "seconds");
        for (name, time) in &self.steps {
            println!("{name:<20} {:>9.1}", time.as_secs_f64());
        }
        println!("\n{}", self.closing_line(total, arguments));
    }

    fn closing_line(&self, total: Duration, arguments: &[String]) -> String {
        let (passed, seconds) = (self.steps.len(), total.as_secs_f64());
        let mut text = format!("cargo xtask test: passed, {passed} steps in {seconds:.1} s");
        if !arguments.is_empty() {
            text += &format!("; tests narrowed to: {}", arguments.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_step_is_named_and_not_counted() {
        let mut report = Report::default();
        let error = report.step("tidy", "", || Err("2 rules broken".to_owned())).unwrap_err();
        assert_eq!(error, "step `tidy` failed: 2 rules broken");
        assert!(report.steps.is_empty());
    }

    #[test]
    fn closing_line_counts_steps_and_names_the_filter() {
        let steps = vec![("tidy", Duration::from_millis(1500)), ("tests", Duration::from_secs(60))];
        let report = Report { steps };
        let total = Duration::from_millis(61_500);
        assert_eq!(report.closing_line(total, &[]), "cargo xtask test: passed, 2 steps in 61.5 s");
        assert_eq!(
            report.closing_line(total, &["list".to_owned()]),
            "cargo xtask test: passed, 2 steps in 61.5 s; tests narrowed to: list"
        );
    }
}
