//! Finds what to complete at the end of a command line.

use clap::{Arg, Command};

use super::candidate::Candidate;

/// The kind of candidates for the last word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Fixed words.
    Words(Vec<Candidate>),
    /// A namespace. With `prefixes`, also a prefix of namespaces.
    Namespace {
        begun: String,
        prefixes: bool,
    },
    Tenant {
        begun: String,
    },
    Key {
        namespace: String,
        begun: String,
    },
    /// A profile of the configuration file, or one of the words in `or`.
    Profile {
        begun: String,
        or: Vec<Candidate>,
    },
    File,
    Nothing,
}

/// The options that name the store. If one is repeated, the last one is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoreOptions {
    pub(super) store: Option<String>,
    pub(super) store_file: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) config: Option<String>,
}

/// What to complete, and the context that it depends on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) wanted: Wanted,
    /// The options that name the store.
    pub(super) named: StoreOptions,
    /// The text of the last word before the completed part: `--option=` or nothing.
    pub(super) lead: String,
    /// Whether the word is after `--`, where a name may begin with a dash.
    pub(super) dashes: bool,
}

/// A partial command line. Unlike clap, it accepts missing and wrong arguments.
struct CommandLine<'a> {
    command: &'a Command,
    positional: usize,
    escaped: bool,
    namespace: Option<String>,
    named: StoreOptions,
    /// The option whose value is next.
    option: Option<&'a Arg>,
}

/// Reads the words. The first is the name of the tool and the last is unfinished. `tool` must be
/// built, which adds the global options to each command.
pub(super) fn asked(tool: &Command, words: &[String]) -> Completion {
    let mut line = CommandLine {
        command: tool,
        positional: 0,
        escaped: false,
        namespace: None,
        named: StoreOptions::default(),
        option: None,
    };
    let (last, before) = match words {
        [_, before @ .., last] => (last.as_str(), before),
        _ => ("", &[][..]),
    };
    let known = before.iter().all(|word| line.take(word));
    let (wanted, lead) = if known { line.wanted(last) } else { (Wanted::Nothing, String::new()) };
    Completion { wanted, named: line.named, lead, dashes: line.escaped }
}

impl<'a> CommandLine<'a> {
    /// Reads a complete word. Returns false if the rest of the line cannot be completed.
    fn take(&mut self, word: &str) -> bool {
        if let Some(option) = self.option.take() {
            self.note(option, word);
        } else if self.escaped || !word.starts_with('-') || word == "-" {
            if self.command.has_subcommands() {
                let found = self.command.get_subcommands().find(|c| c.get_name() == word);
                let Some(command) = found else { return false };
                self.command = command;
            } else {
                if let Some(argument) = self.argument() {
                    self.note(argument, word);
                }
                self.positional += 1;
            }
        } else if word == "--" {
            self.escaped = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            if let Some(option) = self.long(name).filter(|option| takes_value(option)) {
                match value {
                    Some(value) => self.note(option, value),
                    None => self.option = Some(option),
                }
            }
        }
        true
    }

    fn note(&mut self, argument: &Arg, value: &str) {
        match argument.get_id().as_str() {
            "store" => self.named.store = Some(value.to_owned()),
            "store_file" => self.named.store_file = Some(value.to_owned()),
            "profile" => self.named.profile = Some(value.to_owned()),
            "config" => self.named.config = Some(value.to_owned()),
            _ if value_name(argument) == "NAMESPACE" => self.namespace = Some(value.to_owned()),
            _ => {}
        }
    }

    fn argument(&self) -> Option<&'a Arg> {
        self.command.get_positionals().nth(self.positional)
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|argument| argument.get_long() == Some(name))
    }

    /// Returns the candidates of the unfinished word, and the text before them in the word.
    fn wanted(&self, last: &str) -> (Wanted, String) {
        let plain = |wanted| (wanted, String::new());
        if let Some(option) = self.option {
            return plain(self.value(option, last));
        }
        if !self.escaped && last.starts_with('-') {
            let (name, value) = last.split_once('=').unwrap_or((last, ""));
            if name.len() < last.len() {
                let option = name.strip_prefix("--").and_then(|name| self.long(name));
                let option = option.filter(|option| takes_value(option));
                let wanted = option.map_or(Wanted::Nothing, |option| self.value(option, value));
                return (wanted, format!("{name}="));
            }
            return plain(self.options(last));
        }
        if self.command.has_subcommands() {
            let commands = self.command.get_subcommands();
            let commands = commands.filter(|c| !c.is_hide_set()).map(|c| {
                let about = c.get_about().map(ToString::to_string);
                Candidate { text: c.get_name().to_owned(), about: about.unwrap_or_default() }
            });
            return plain(beginning(commands, last));
        }
        plain(self.argument().map_or(Wanted::Nothing, |argument| self.value(argument, last)))
    }

    fn options(&self, begun: &str) -> Wanted {
        let options = self.command.get_arguments().filter(|argument| !argument.is_hide_set());
        let options = options.filter_map(|option| {
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            let about = help.lines().next().unwrap_or_default().to_owned();
            Some(Candidate { text: format!("--{}", option.get_long()?), about })
        });
        beginning(options, begun)
    }

    /// Returns the candidates of a value, by its name in the help.
    fn value(&self, argument: &Arg, begun: &str) -> Wanted {
        let values = argument.get_possible_values();
        if !values.is_empty() {
            let values = values.into_iter().filter(|value| !value.is_hide_set()).map(|value| {
                let about = value.get_help().map(ToString::to_string).unwrap_or_default();
                Candidate { text: value.get_name().to_owned(), about }
            });
            return beginning(values, begun);
        }
        let begun = begun.to_owned();
        match (value_name(argument), &self.namespace) {
            ("NAMESPACE", _) => Wanted::Namespace { begun, prefixes: false },
            ("PREFIX", _) => Wanted::Namespace { begun, prefixes: true },
            ("TENANT", _) => Wanted::Tenant { begun },
            // TEXT is a prefix of keys.
            ("KEY" | "TEXT", Some(namespace)) => {
                Wanted::Key { namespace: namespace.clone(), begun }
            }
            ("FILE" | "PATH" | "FOLDER", _) => Wanted::File,
            ("URL" | "URL|PROFILE", _) if begun.starts_with("redb:") => Wanted::File,
            ("URL", _) => Wanted::Words(schemes(&begun)),
            ("URL|PROFILE", _) => Wanted::Profile { or: schemes(&begun), begun },
            ("NAME", _) if argument.get_id() == "profile" => {
                Wanted::Profile { begun, or: Vec::new() }
            }
            _ => Wanted::Nothing,
        }
    }
}

fn schemes(begun: &str) -> Vec<Candidate> {
    let schemes = ["redb:", "postgres://", "redis://", "redis+cluster://"];
    let begin = schemes.into_iter().filter(|scheme| scheme.starts_with(begun));
    begin.map(|scheme| Candidate::name(scheme.to_owned())).collect()
}

fn takes_value(option: &Arg) -> bool {
    option.get_num_args().is_some_and(|number| number.takes_values())
}

fn value_name(argument: &Arg) -> &str {
    let names = argument.get_value_names().and_then(<[_]>::first);
    names.map_or_else(|| "", |name| name.as_str())
}

fn beginning(candidates: impl IntoIterator<Item = Candidate>, begun: &str) -> Wanted {
    Wanted::Words(candidates.into_iter().filter(|c| c.text.starts_with(begun)).collect())
}

#[cfg(test)]
mod tests;
