//! `cubbyhole`: the command-line tool. Parses the command line, runs one command and turns its
//! outcome into an exit code.

mod args;
mod cli;
mod commands;
mod entries;
mod error;
mod logging;
mod output;
mod session;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Error, ExecutionContext};

use crate::cli::Cli;
use crate::error::Failure;
use crate::output::Output;
use crate::session::{ChosenStore, Session, Settings};
use crate::signals::Signals;

/// How long a command may run on after its context has ended. Commands observe the context; this
/// limit is for one that is blocked in a system call, such as a write to a pipe without a reader.
/// It is longer than a copy or an import waits for its batches and the store for closing, together.
const GRACE: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    suppress_panic_text();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => return args::usage_error::report(&error),
    };
    logging::install(&cli.globals);
    let mut out = Output::standard(cli.globals.json);
    // Two workers: a write that blocks one of them does not delay a signal.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(execute(cli, out));
            // The store is closed. Any task that is left waits for input.
            runtime.shutdown_background();
            code
        }
        Err(error) => out.conclude(Err(Failure::io("cannot start the async runtime", error)), None),
    };
    ExitCode::from(code)
}

/// Suppresses the panic text of all threads but the main one, unless `RUST_BACKTRACE` is set. Such
/// a panic ends the command with an error that reports it.
fn suppress_panic_text() {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        return;
    }
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // No task catches a panic of the main thread.
        if std::thread::current().name() == Some("main") {
            default_hook(panic);
        }
    }));
}

async fn execute(cli: Cli, mut out: Output) -> u8 {
    let started = tokio::time::Instant::now();
    let settings = Arc::new(Settings::new((&cli.globals).into()));
    let chosen =
        if cli.command.needs_store() { settings.choose() } else { Ok(settings.without_store()) };
    let ChosenStore { store, timeout } = match chosen {
        Ok(chosen) => chosen,
        Err(failure) => return out.conclude(Err(failure), None),
    };
    let mut ctx = ExecutionContext::new();
    if let Some(timeout) = timeout.filter(|_| !cli.command.applies_timeout_to_each_step()) {
        ctx = ctx.with_timeout(timeout);
    }
    let signals = match Signals::listen(&ctx) {
        Ok(signals) => signals,
        Err(error) => {
            return out.conclude(Err(Failure::io("cannot listen for signals", error)), None);
        }
    };
    let json = cli.globals.json;
    let writes = cli.command.writes();
    let mut session = Session::new(ctx.clone(), store, out).with_settings(settings);
    session.timeout = timeout;
    let received = signals.clone();
    // A separate task: the select below still runs if the command is blocked in a system call,
    // including the one that writes the last output.
    let command = tokio::spawn(async move {
        let outcome = cli::run(cli.command, &mut session).await;
        session.out.conclude(outcome, received.received())
    });
    let code = tokio::select! {
        ended = command => match ended {
            Ok(code) => code,
            Err(error) => {
                let failure = Error::internal("the command failed").with_source(error).into();
                Output::standard(json).conclude(Err(failure), signals.received())
            }
        },
        error = overtime(&ctx) => {
            let error = if writes { error.with_unknown_outcome() } else { error };
            // The blocked task may hold stdout indefinitely, so only stderr is used from here.
            output::abandon(json, &error.into(), signals.received())
        }
    };
    logging::ended(&cli.name, code, started.elapsed());
    code
}

async fn overtime(ctx: &ExecutionContext) -> Error {
    let error = ctx.ended().await;
    // The grace period needs a context that has not ended.
    drop(ExecutionContext::new().sleep(GRACE).await);
    error
}
