//! `complete-words`: returns completion candidates. The scripts of `completions` call it.

mod candidate;
mod names;
mod shells;
mod words;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Command, ValueEnum};
use cubbyhole::ExecutionContext;

use self::candidate::Candidate;
use self::shells::{BashLine, bare};
use self::words::{Completion, StoreOptions, Wanted, asked};
use crate::error::Failure;
use crate::output::escape;
use crate::session::store_url::anchored_path;
use crate::session::{Options, Session, Settings};

const EXAMPLES: &str = "\
Example:
  cubbyhole complete-words zsh -- cubbyhole get ac";

/// How long reading names may take, while a person waits for them.
const TIMEOUT: Duration = Duration::from_millis(600);

/// How long closing the store may take. The next process that opens it completes an unfinished
/// close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Print completion candidates for the end of a command line
#[derive(Debug, Args)]
#[command(hide = true, after_help = EXAMPLES)]
pub(crate) struct CompleteWords {
    /// Shell of the script
    shell: Scripted,
    /// Words of the line; the last is incomplete. From bash: the line up to the cursor, then the
    /// word separators
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scripted {
    Bash,
    Zsh,
    Fish,
}

impl CompleteWords {
    /// `tool` is the definition of the whole command line.
    ///
    /// Errors are not reported, because a message would appear in the middle of the command line.
    pub(crate) async fn run(self, tool: Command, session: &mut Session) -> Result<(), Failure> {
        for line in self.answer(tool, session).await.unwrap_or_default() {
            // The tab separates the candidate from its description. All other control characters
            // are escaped.
            let parts: Vec<String> = line.split('\t').map(escape).collect();
            session.out.raw(parts.join("\t").as_bytes())?;
            session.out.raw(b"\n")?;
        }
        Ok(())
    }

    async fn answer(self, mut tool: Command, session: &Session) -> Option<Vec<String>> {
        let words: Option<Vec<String>> =
            self.words.into_iter().map(|word| word.into_string().ok()).collect();
        let mut words = words?;
        let mut line = None;
        if self.shell == Scripted::Bash {
            let [text, breaks] = words.as_slice() else { return None };
            let read = BashLine::read(text, breaks);
            words.clone_from(&read.words);
            line = Some(read);
        }
        tool.build();
        let asked = asked(&tool, &words);
        if asked.wanted == Wanted::File {
            return Some(vec!["files".to_owned()]);
        }
        let candidates = candidates(&asked, session).await?;
        Some(match line {
            Some(line) => line.answer(&asked.lead, &candidates),
            None => bare(&asked.lead, &candidates),
        })
    }
}

async fn candidates(asked: &Completion, session: &Session) -> Option<Vec<Candidate>> {
    let StoreOptions { store, store_file, profile, config } = asked.named.clone();
    // The shell expands `~/` only when it runs the line.
    let path = |path: String| anchored_path(&path, Path::new(""));
    let (store_file, config) = (store_file.map(path), config.map(path));
    let settings = Settings::new(Options { store, store_file, profile, config, timeout: None });
    match &asked.wanted {
        Wanted::Words(words) => return Some(words.clone()),
        Wanted::Profile { begun, or } => {
            let mut candidates = or.clone();
            if let Ok(file) = settings.file() {
                let profiles = file.profiles.keys().filter(|name| name.starts_with(begun));
                candidates.extend(profiles.cloned().map(Candidate::name));
            }
            return Some(candidates);
        }
        Wanted::Nothing | Wanted::File => return None,
        Wanted::Namespace { .. } | Wanted::Tenant { .. } | Wanted::Key { .. } => {}
    }
    let choice = settings.choose().ok()?.store;
    let ctx = session.ctx.child().with_timeout(TIMEOUT);
    let store = names::open(&ctx, &choice).await?;
    let mut found = match &asked.wanted {
        Wanted::Namespace { begun, prefixes } => {
            let scope = choice.layers.layers.scope();
            names::namespaces(&ctx, &*store, begun, *prefixes, scope).await
        }
        Wanted::Tenant { begun } => {
            let scope = choice.layers.layers.scope();
            let mut found = names::namespaces(&ctx, &*store, begun, true, scope).await;
            found.retain(|name| !name.ends_with(':'));
            found
        }
        Wanted::Key { namespace, begun } => names::keys(&ctx, &*store, namespace, begun).await,
        _ => Vec::new(),
    };
    drop(store.close(&ExecutionContext::new().with_timeout(CLOSE_TIMEOUT)).await);
    found.retain(|name| names::can_be_shown(name));
    // A name that begins with `-` is only valid after `--` or after the `=` of an option.
    found.retain(|name| asked.dashes || !asked.lead.is_empty() || !name.starts_with('-'));
    Some(found.into_iter().map(Candidate::name).collect())
}
