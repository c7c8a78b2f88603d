//! `edit`: opens a value in an editor and saves it, if the entry still has the version that was
//! read.

mod editor;

use clap::Args;
use cubbyhole::{
    Backend, Bytes, Condition, Entry, EntryMeta, ExecutionContext, Expiry, GetOptions, Namespace,
    PutOptions, Version,
};
use serde::Serialize;
use tokio::time::Instant;

use self::editor::{Draft, Editor};
use super::common::not_found;
use super::put::check_json;
use crate::args::parse::{parse_key, parse_namespace};
use crate::error::Failure;
use crate::output::{escape, exact_duration, shell_quoted};
use crate::session::{Origin, Session};

const EXAMPLES: &str = "\
The editor is $VISUAL, else $EDITOR; both may contain arguments, as in `code --wait`. Unchanged text
is not written. If saving fails, for example because another writer changed the entry, the text is
kept in a file that the error names. The expiry of the entry does not change. --timeout applies to
reading and to saving separately, and not to the time in the editor.

Examples:
  cubbyhole edit acme:agent-7 instructions
  EDITOR='code --wait' cubbyhole edit acme:agent-7 settings.json --create";

/// Edit the value of an entry in an editor
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Edit {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// Key; write one that begins with `-` after `--`
    #[arg(value_parser = parse_key)]
    key: String,
    /// Start with an empty text if the entry does not exist
    #[arg(long)]
    create: bool,
}

#[derive(Serialize)]
struct Edited {
    changed: bool,
    version: Option<Version>,
}

/// The entry before it was edited.
struct Before {
    text: Bytes,
    meta: Option<EntryMeta>,
    /// When the entry expires, by this process's clock.
    expires: Option<Instant>,
    json: bool,
}

impl Edit {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let editor = Editor::of_the_environment()?;
        let whole = session.ctx.clone();
        session.ctx = step(session, &whole);
        let before = self.read(session).await?;
        // Only one process can open a file, and an editor may be open for hours.
        session.close().await?;
        session.ctx = whole.clone();

        let draft = Draft::new(&self.key, &before.text, before.json)?;
        if let Err(failure) = editor.edit(&session.ctx, &draft).await {
            // After SIGTERM or SIGHUP the editor may still have the draft open.
            return Err(match draft.changed() || whole.check().is_err() {
                true => self.keep(failure, draft, &before, session),
                false => failure,
            });
        }
        session.ctx = step(session, &whole);
        let text = draft.text()?;
        if text == before.text {
            let why = if before.meta.is_some() { "unchanged" } else { "left empty" };
            session.out.note(&format!("{why}; nothing was written"));
            return show(false, before.meta.map(|meta| meta.version), session);
        }
        match self.save(text, &before, session).await {
            Ok(version) => show(true, Some(version), session),
            Err(failure) => Err(self.keep(failure, draft, &before, session)),
        }
    }

    async fn read(&self, session: &mut Session) -> Result<Before, Failure> {
        session.store.check_layers_writable()?;
        // A missing store has no entries. Saving creates it.
        let nowhere = session.store.file().is_some_and(|file| !file.exists());
        let mut expires = None;
        let entry = match self.create && nowhere {
            true => None,
            false => {
                let store = session.open().await?;
                let entry = self.entry(&*store, session).await?;
                if let Some(at) = entry.as_ref().and_then(|entry| entry.meta.expires_at) {
                    let time = store.current_time(&session.ctx, &self.namespace).await?;
                    expires = Instant::now().checked_add(at.saturating_since(time));
                }
                entry
            }
        };
        let Some(Entry { value, meta, .. }) = entry else {
            return match self.create {
                true => Ok(Before { text: Bytes::new(), meta: None, expires, json: false }),
                false => Err(not_found(&self.namespace, &self.key)),
            };
        };
        if std::str::from_utf8(&value).is_err() {
            return Err(Failure::Usage(format!(
                "the value is not UTF-8 text, and an editor would damage it; use `cubbyhole get {} \
                 > FILE` and `cubbyhole put {} --file FILE`",
                self.named(),
                self.named(),
            )));
        }
        let json = check_json(&value).is_ok();
        Ok(Before { text: value, meta: Some(meta), expires, json })
    }

    async fn entry(
        &self,
        store: &dyn Backend,
        session: &Session,
    ) -> Result<Option<Entry<Bytes>>, Failure> {
        let options = GetOptions::new();
        Ok(store.get_entry(&session.ctx, &self.namespace, &self.key, options).await?)
    }

    async fn save(
        &self,
        text: Bytes,
        before: &Before,
        session: &mut Session,
    ) -> Result<Version, Failure> {
        if before.json {
            check_json(&text)?;
        } else if std::str::from_utf8(&text).is_err() {
            return Err(Failure::Usage("the text is no longer UTF-8".to_owned()));
        }
        let mut options = PutOptions::new();
        let (store, condition) = match &before.meta {
            None => (session.open_or_create().await?, Condition::IfAbsent),
            Some(meta) => {
                let store = session.open().await?;
                // `touch` may have changed the expiry, which does not change the version.
                let now = self.entry(&*store, session).await?;
                let now = now.map_or(*meta, |entry| entry.meta);
                options = options.with_expiry(Expiry::of(&now));
                (store, Condition::IfVersion(meta.version))
            }
        };
        let (namespace, key) = (&self.namespace, &self.key);
        let version =
            store.put_entry(&session.ctx, namespace, key, text, options, condition).await?;
        // Close the store before the draft is deleted: the write is then durable.
        session.close().await?;
        Ok(version)
    }

    /// Keeps the draft, and adds to the failure where it is.
    fn keep(&self, failure: Failure, draft: Draft, before: &Before, session: &Session) -> Failure {
        let path = draft.keep().display().to_string();
        let mut command = format!("cubbyhole put --file {}", shell_quoted(&path));
        let left = before.expires.map(|at| at.saturating_duration_since(Instant::now()).as_secs());
        let idle_ttl = before.meta.and_then(|meta| meta.idle_ttl);
        match (left, idle_ttl) {
            (Some(1..), Some(ttl)) => {
                command.push_str(&format!(" --idle-ttl {}", exact_duration(ttl)));
            }
            (Some(left @ 1..), None) => command.push_str(&format!(" --ttl {left}s")),
            _ => {}
        }
        match &session.store.origin {
            Origin::Option | Origin::File => {
                // The URL of a server may contain a password.
                let url = session.store.file().map_or("URL", |_| session.store.url.as_str());
                command.push_str(&format!(" --store {}", shell_quoted(&escape(url))));
            }
            Origin::Profile { name, .. } => {
                command.push_str(&format!(" --profile {}", shell_quoted(&escape(name))));
                if let Some(config) = &session.settings.options.config {
                    let config = config.display().to_string();
                    command.push_str(&format!(" --config {}", shell_quoted(&escape(&config))));
                }
            }
            Origin::Environment | Origin::Default | Origin::Target => {}
        }
        let named = self.named();
        let conflict = match failure.conflicting_version() {
            Some(Some(_)) => "another writer changed the entry while you edited it; ",
            Some(None) => "the entry was deleted or has expired while you edited it; ",
            None => "",
        };
        let kept = format!(
            "{conflict}your text is in {path}; `{command} {named}` overwrites the entry with it"
        );
        Failure::Kept { failure: Box::new(failure), kept }
    }

    /// Returns the arguments that name the entry, quoted for a shell.
    fn named(&self) -> String {
        let dashes = if self.key.starts_with('-') { "-- " } else { "" };
        let namespace = shell_quoted(&escape(self.namespace.as_str()));
        format!("{dashes}{namespace} {}", shell_quoted(&escape(&self.key)))
    }
}

/// Returns the context of one step, with its own timeout.
fn step(session: &Session, whole: &ExecutionContext) -> ExecutionContext {
    match session.timeout {
        Some(timeout) => whole.child().with_timeout(timeout),
        None => whole.clone(),
    }
}

fn show(changed: bool, version: Option<Version>, session: &mut Session) -> Result<(), Failure> {
    if session.out.json() {
        return session.out.object(&Edited { changed, version });
    }
    Ok(())
}
