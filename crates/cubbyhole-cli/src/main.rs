//! `cubbyhole`: the operator's tool. Parses, sets up the context, runs one command, and turns its
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

/// How long a command may take to wind up once its context has ended. Commands end by themselves;
/// this is for one that is stuck where no context reaches, such as a pipe that nobody reads. Longer
/// than a copy or an import waits for its batches and then a store for its closing, together.
const GRACE: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    quieten_panics();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => return args::usage_error::report(&error),
    };
    logging::install(&cli.globals);
    let mut out = Output::standard(cli.globals.json);
    // Two workers, so that a write to a slow pipe on one never keeps a signal from being seen.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(execute(cli, out));
            // The store is closed by now; what is left, if anything, waits for input.
            runtime.shutdown_background();
            code
        }
        Err(error) => out.conclude(Err(Failure::io("the runtime could not start", error)), None),
    };
    ExitCode::from(code)
}

/// A panic of a worker or of the engine ends as an error, which says what happened: its own text
/// would only stand before that. Who sets `RUST_BACKTRACE` wants to see it.
fn quieten_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        return;
    }
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Nothing catches one of the main thread.
        if std::thread::current().name() == Some("main") {
            usual(panic);
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
    if let Some(timeout) = timeout.filter(|_| !cli.command.counts_its_own_time()) {
        ctx = ctx.with_timeout(timeout);
    }
    let signals = match Signals::listen(&ctx) {
        Ok(signals) => signals,
        Err(error) => {
            return out.conclude(Err(Failure::io("signals cannot be received", error)), None);
        }
    };
    let json = cli.globals.json;
    let writes = cli.command.writes();
    let mut session = Session::new(ctx.clone(), store, out).with_settings(settings);
    session.timeout = timeout;
    let received = signals.clone();
    // A task of its own: the wait below goes on when the command is stuck in a system call, also
    // in the last one, which writes what is left of the output.
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
            // The stuck task may hold stdout for ever: nothing from here on touches it.
            output::abandon(json, &error.into(), signals.received())
        }
    };
    logging::ended(&cli.name, code, started.elapsed());
    code
}

async fn overtime(ctx: &ExecutionContext) -> Error {
    let error = ctx.ended().await;
    // The context has ended; the grace is counted on one that has not.
    drop(ExecutionContext::new().sleep(GRACE).await);
    error
}
