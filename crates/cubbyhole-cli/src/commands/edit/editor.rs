//! The editor and the draft file that it edits.

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

/// The characters of a key that are used in the name of the draft.
const NAME_CHARS: usize = 64;

/// The program of the editor, and its arguments before the file.
pub(super) struct Editor {
    program: String,
    arguments: Vec<String>,
}

impl Editor {
    /// Returns the editor of `$VISUAL`, else of `$EDITOR`, else the default of the system.
    pub(super) fn of_the_environment() -> Result<Self, Failure> {
        for variable in VARIABLES {
            let Some(value) = std::env::var_os(variable) else { continue };
            let value = value
                .into_string()
                .map_err(|_| Failure::Usage(format!("{variable} is not UTF-8")))?;
            if !value.trim().is_empty() {
                return Self::parse(&value).ok_or_else(|| {
                    Failure::Usage(format!("cannot parse {variable}: a quote is not closed"))
                });
            }
        }
        Ok(Self { program: USUAL.to_owned(), arguments: Vec::new() })
    }

    /// Splits the words as a shell does. On Windows, `\` separates folders and is not an escape.
    fn parse(value: &str) -> Option<Self> {
        let words = match cfg!(windows) {
            true => shlex::split(&value.replace('\\', r"\\")),
            false => shlex::split(value),
        };
        let mut words = words?.into_iter();
        Some(Self { program: words.next()?, arguments: words.collect() })
    }

    /// Runs the editor until it ends, which may take hours.
    ///
    /// Ctrl-C is left to the editor, which also receives it. SIGTERM and SIGHUP end the wait and
    /// leave the editor running.
    pub(super) async fn edit(&self, ctx: &ExecutionContext, draft: &Draft) -> Result<(), Failure> {
        ctx.check()?;
        let _guard = signals::leave_interrupts();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(&draft.path);
        if !io::stdout().is_terminal() {
            // stdout is for data, so the editor draws on stderr.
            command.stdout(Stdio::from(io::stderr()));
        }
        let mut editor = command.spawn().map_err(|error| {
            Failure::Usage(format!(
                "cannot start the editor `{}`: {error}; set VISUAL or EDITOR",
                self.program
            ))
        })?;
        let what = |what: &str| format!("the editor `{}` {what}", self.program);
        let ended = ctx.race(editor.wait()).await?;
        let status = ended.map_err(|error| Failure::io(what("could not be waited for"), error))?;
        if status.success() {
            return Ok(());
        }
        let status = io::Error::other(status.to_string());
        Err(Failure::io(what("failed; nothing was written"), status))
    }
}

/// A draft in its own private folder. Dropping it removes the folder with all files that the editor
/// created.
pub(super) struct Draft {
    folder: TempDir,
    path: PathBuf,
    before: Bytes,
}

impl Draft {
    pub(super) fn new(key: &str, text: &Bytes, json: bool) -> Result<Self, Failure> {
        let failed = |error| Failure::io("cannot create a file for the editor", error);
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

    /// Reads the edited text. A line end that the editor added to the last line is removed.
    pub(super) fn text(&self) -> Result<Bytes, Failure> {
        // By name, because an editor may replace the file.
        let text = std::fs::read(&self.path)
            .map_err(|error| Failure::io("cannot read the edited text", error))?;
        let text = Bytes::from(text);
        if self.before.ends_with(b"\n") || !text.ends_with(b"\n") {
            return Ok(text);
        }
        let ending = if text.ends_with(b"\r\n") { 2 } else { 1 };
        Ok(text.slice(..text.len() - ending))
    }

    /// Whether the text was changed.
    pub(super) fn changed(&self) -> bool {
        self.text().is_ok_and(|text| text != self.before)
    }

    /// Keeps the file, and returns its path.
    pub(super) fn keep(self) -> PathBuf {
        // The path already contains the folder.
        let _ = self.folder.keep();
        self.path
    }
}

/// Returns the name of the draft: the key in characters that every file system supports, with an
/// extension for the editor.
fn file_name(key: &str, json: bool) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let mut name: String = key.chars().take(NAME_CHARS).map(plain).collect();
    // The name must not be hidden or look like an option.
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
    fn variable_may_contain_arguments() {
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
    fn draft_is_named_after_key_and_content() {
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
    fn line_end_added_by_the_editor_is_removed() {
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
    fn draft_is_private_and_is_removed() {
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
