//! The project's tasks, run as `cargo xtask …`. [`HELP`] lists them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_macros,
    reason = "a tool for the terminal writes its output itself"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "steps are timed for the reader, and no deadline depends on the time"
)]

mod bench;
mod beside;
mod cargo_deny;
mod failures;
mod fuzz;
mod integrations;
mod process;
mod prove;
mod services;
mod soak;
mod test;
mod tidy;

use std::env;
use std::process::ExitCode;

const HELP: &str = "\
The project's tasks.

  cargo xtask test [-- ARGS]   Run every check that must pass. `cargo test` receives ARGS
  cargo xtask tidy             Check the layout rules only
  cargo xtask bench [ARGS]     Run the benchmarks. `cargo xtask bench --help` lists ARGS
  cargo xtask prove [NAMES]    Run the tests of faults, histories and hostile input for hours:
                               kills, power, damage, history-BACKEND, model-BACKEND, hostile-PART.
                               NAMES selects the parts that start with them; default: all
  cargo xtask soak ARGS        Run all backends under load for a time, such as `--for 10m`, and check
                               for wrong answers and growth. `cargo xtask soak --help` lists ARGS
  cargo xtask fuzz [TARGETS]   Run the targets in `fuzz/` with coverage guidance, on the stable
                               compiler. `--for 5m` is the time of each, `--jobs 2` the parallel runs
  cargo xtask help             Print this text
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
    let Some((task, arguments)) = arguments.split_first() else {
        return Err(format!("name a task\n\n{HELP}"));
    };
    match (task.as_str(), arguments) {
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
        _ => Err(format!("unknown task or arguments: {task} {}\n\n{HELP}", arguments.join(" "))),
    }
}
