//! Reports the cases in which clap returns no command: help, the version, and usage errors.

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::error::{EXIT_USAGE, Failure};
use crate::output::Output;

pub(crate) fn report(error: &clap::Error) -> ExitCode {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Without a command, help is written to stderr with exit code 2. `--json` gets a JSON error.
    let nothing_named = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if nothing_named && wants_json() {
        let failure = Failure::Usage("a command is missing; see --help".to_owned());
        return ExitCode::from(Output::standard(true).conclude(Err(failure), None));
    }
    if nothing_named {
        Output::standard(false).help_on_stderr(&error.render());
        return ExitCode::from(EXIT_USAGE);
    }
    if help {
        let mut out = Output::standard(false);
        let outcome = out.help(&error.render());
        return ExitCode::from(out.conclude(outcome, None));
    }
    let failure = Failure::Usage(one_line(&error.render().to_string()));
    ExitCode::from(Output::standard(wants_json()).conclude(Err(failure), None))
}

/// Looks for the flag itself: clap returns no parsed options with an error.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|a| a == "--json")
}

/// Joins clap's paragraphs (error, tips, usage, pointer to the help) into one line.
fn one_line(rendered: &str) -> String {
    let mut message = String::new();
    let mut usage = None;
    for line in rendered.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("Usage: ") {
            usage = Some(text);
        } else if !line.starts_with("For more information") && usage.is_none() {
            let line = line.strip_prefix("error: ").unwrap_or(line);
            if !message.is_empty() {
                message.push_str(if line.starts_with("tip:") { "; " } else { " " });
            }
            message.push_str(line);
        }
    }
    match usage {
        Some(usage) => format!("{message}; usage: {usage}"),
        None => format!("{message}; see --help"),
    }
}

#[cfg(test)]
mod tests;
