//! What clap answers in place of a command: help, the version, or a usage error.

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::error::{EXIT_USAGE, Failure};
use crate::output::Output;

pub(crate) fn report(error: &clap::Error) -> ExitCode {
    // Without any argument the help is the better answer; clap then sends it to stderr, as code 2.
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // A group of commands without one of them shows its help too; who asked for JSON gets that.
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

/// clap gives no parsed options with an error: look for the flag itself.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|a| a == "--json")
}

/// clap's paragraphs (the error, tips, the usage, a pointer to the help) as one line.
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
