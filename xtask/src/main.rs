//! The project's chores, run as `cargo xtask …`; [`HELP`] lists them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_macros,
    reason = "a tool for the terminal: there is no caller to hand its output to"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "steps are timed for the reader; no deadline is judged by that"
)]

mod bench;
mod cargo_deny;
mod failures;
mod fuzz;
mod process;
mod prove;
mod services;
mod soak;
mod test;
mod tidy;

use std::env;
use std::process::ExitCode;

const HELP: &str = "\
The project's chores.

  cargo xtask test [-- ARGS]   everything that must pass; ARGS go to `cargo test`
  cargo xtask tidy             only the layout rules
  cargo xtask bench [ARGS]     the benchmarks; `cargo xtask bench --help` lists ARGS
  cargo xtask prove [NAMES]    the tests of faults, histories and hostile input, for hours: kills,
                               power, damage, history-BACKEND, model-BACKEND, hostile-PART; all of
                               them, or those whose names begin so
  cargo xtask soak ARGS        all backends under load for a time, such as `--for 10m`, watched
                               for wrong answers and growth; `cargo xtask soak --help` lists ARGS
  cargo xtask fuzz [TARGETS]   coverage-guided runs of the targets in `fuzz/`, on the stable
                               compiler; `--for 5m` for each, `--jobs 2` at a time
  cargo xtask help             this text
";

fn main() -> ExitCode {
    if let Some(ended) = fuzz::compile() {
        return ended;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<(), String> {
    let Some((chore, arguments)) = arguments.split_first() else {
        return Err(format!("which chore?\n\n{HELP}"));
    };
    match (chore.as_str(), arguments) {
        ("test", []) => test::run(&[]),
        ("test", [dashes, arguments @ ..]) if dashes == "--" => test::run(arguments),
        ("tidy", []) => tidy::run(),
        ("bench", arguments) => bench::run(arguments),
        ("prove", names) => prove::run(names),
        ("fuzz", arguments) => fuzz::run(arguments),
        ("soak", arguments) => soak::run(arguments),
        ("help" | "--help" | "-h", []) => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("not understood: {chore} {}\n\n{HELP}", arguments.join(" "))),
    }
}
