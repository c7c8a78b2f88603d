//! The person's editor, and the file that it is given.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Stdio;

use cubbyhole::{Bytes, ExecutionContext};
use tempfile::TempDir;
use tokio::process::Command;

use crate::error::Failure;
use crate::signals;

const VARIABLES: [&str; 2] = ["VISUAL", "EDITOR"];

const USUAL: &str = if cfg!(windows) { "notepad" } else { "vi" };

/// Of a key in the name of the file.
const NAME_CHARS: usize = 64;

/// What is run, and its arguments before the file's.
pub(super) struct Editor {
    program: String,
    arguments: Vec<String>,
}

impl Editor {
    /// `$VISUAL`, else `$EDITOR`, else what every system has.
    pub(super) fn of_the_environment() -> Result<Self, Failure> {
        for variable in VARIABLES {
            let Some(value) = std::env::var_os(variable) else { continue };
            let value = value
                .into_string()
                .map_err(|_| Failure::Usage(format!("{variable} is not UTF-8")))?;
            if !value.trim().is_empty() {
                return Self::parse(&value).ok_or_else(|| {
                    Failure::Usage(format!("{variable} cannot be read: a quote is left open"))
                });
            }
        }
        Ok(Self { program: USUAL.to_owned(), arguments: Vec::new() })
    }

    /// Splits the words as a shell does. On Windows a `\` parts folders and escapes nothing.
    fn parse(value: &str) -> Option<Self> {
        let words = match cfg!(windows) {
            true => shlex::split(&value.replace('\\', r"\\")),
            false => shlex::split(value),
        };
        let mut words = words?.into_iter();
        Some(Self { program: words.next()?, arguments: words.collect() })
    }

    /// Runs it until it ends, which may take hours.
    ///
    /// Ctrl-C is meant for the editor, which gets it too. SIGTERM and SIGHUP end the wait, and leave
    /// the editor running.
    pub(super) async fn edit(&self, ctx: &ExecutionContext, draft: &Draft) -> Result<(), Failure> {
        ctx.check()?;
        let _theirs = signals::leave_interrupts();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(&draft.path);
        if !io::stdout().is_terminal() {
            // What the editor draws is no data of this tool.
            command.stdout(Stdio::from(io::stderr()));
        }
        let mut editor = command.spawn().map_err(|error| {
            Failure::Usage(format!(
                "the editor `{}` cannot be started: {error}; name one with VISUAL or EDITOR",
                self.program
            ))
        })?;
        let what = |what: &str| format!("the editor `{}` {what}", self.program);
        let ended = ctx.race(editor.wait()).await?;
        let status = ended.map_err(|error| Failure::io(what("cannot be waited for"), error))?;
        if status.success() {
            return Ok(());
        }
        let status = io::Error::other(status.to_string());
        Err(Failure::io(what("failed, and nothing was written"), status))
    }
}

/// The text on its way: in a folder that nobody else may enter, which also holds what the editor
/// leaves beside it, and which goes with this.
pub(super) struct Draft {
    folder: TempDir,
    path: PathBuf,
    before: Bytes,
}

impl Draft {
    pub(super) fn new(key: &str, text: &Bytes, json: bool) -> Result<Self, Failure> {
        let failed = |error| Failure::io("no file can be made for the editor", error);
        let mut builder = tempfile::Builder::new();
        builder.prefix("cubbyhole-edit-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir().map_err(failed)?;
        let path = folder.path().join(file_name(key, json));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        file.write_all(text).map_err(failed)?;
        Ok(Self { folder, path, before: text.clone() })
    }

    /// What stands in the file now. Many editors end the last line where the value did not.
    pub(super) fn text(&self) -> Result<Bytes, Failure> {
        // By its name: an editor may have put another file in its place.
        let text = std::fs::read(&self.path)
            .map_err(|error| Failure::io("the edited text cannot be read", error))?;
        let text = Bytes::from(text);
        if self.before.ends_with(b"\n") || !text.ends_with(b"\n") {
            return Ok(text);
        }
        let ending = if text.ends_with(b"\r\n") { 2 } else { 1 };
        Ok(text.slice(..text.len() - ending))
    }

    /// Whether the file holds what is nowhere else.
    pub(super) fn changed(&self) -> bool {
        self.text().is_ok_and(|text| text != self.before)
    }

    /// Leaves the file where it is, and says where.
    pub(super) fn keep(self) -> PathBuf {
        // The folder's own name is in the path already.
        let _ = self.folder.keep();
        self.path
    }
}

/// A name that tells the editor what it is and the person which one: the key, with what no file
/// system minds.
fn file_name(key: &str, json: bool) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let mut name: String = key.chars().take(NAME_CHARS).map(plain).collect();
    // Neither hidden nor an option.
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name.insert_str(0, "value");
    }
    let ending = if json { ".json" } else { ".txt" };
    let has_one = name.rsplit_once('.').is_some_and(|(_, end)| !end.is_empty() && end.len() <= 5);
    if (json && !name.ends_with(ending)) || !has_one {
        name.push_str(ending);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_may_hold_arguments() {
        for (value, words) in [
            ("vi", &["vi"][..]),
            ("code --wait", &["code", "--wait"]),
            ("'/opt/my editor/ed' -c \"set tw=0\"", &["/opt/my editor/ed", "-c", "set tw=0"]),
        ] {
            let editor = Editor::parse(value).unwrap();
            let parsed: Vec<_> = std::iter::once(editor.program).chain(editor.arguments).collect();
            assert_eq!(parsed, words);
        }
        assert!(Editor::parse("vi 'half").is_none());
    }

    #[test]
    fn the_file_is_named_for_the_content() {
        for (key, json, name) in [
            ("settings", true, "settings.json"),
            ("settings.json", true, "settings.json"),
            ("notes.md", false, "notes.md"),
            ("notes.md", true, "notes.md.json"),
            ("turn-1", false, "turn-1.txt"),
            ("../../etc/passwd", false, "value.._.._etc_passwd.txt"),
            ("-rf", false, "value-rf.txt"),
            ("", false, "value.txt"),
            ("what?", false, "what_.txt"),
            ("日本", true, "value__.json"),
        ] {
            assert_eq!(file_name(key, json), name);
        }
        assert!(file_name(&"k".repeat(1000), true).len() < 80);
    }

    #[test]
    fn one_newline_at_the_end_is_the_editors() {
        for (before, after, text) in [
            ("a", "b\n", "b"),
            ("a", "b\r\n", "b"),
            ("a", "b\n\n", "b\n"),
            ("a\n", "b\n", "b\n"),
            ("a\n", "b", "b"),
            ("", "\n", ""),
        ] {
            let draft = Draft::new("k", &Bytes::from(before), false).unwrap();
            std::fs::write(&draft.path, after).unwrap();
            assert_eq!(draft.text().unwrap(), text);
            assert_eq!(draft.changed(), text != before);
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_the_draft_and_it_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let draft = Draft::new("k", &Bytes::from("secret"), false).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (folder, file) = (draft.folder.path().to_owned(), draft.path.clone());
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        drop(draft);
        assert!(!folder.exists());
        let kept = Draft::new("k", &Bytes::from("secret"), false).unwrap().keep();
        assert_eq!(std::fs::read(&kept).unwrap(), b"secret");
        std::fs::remove_dir_all(kept.parent().unwrap()).unwrap();
    }
}
