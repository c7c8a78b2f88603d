//! `man`: writes manual pages, generated from the definition of the command line.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, roman};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{count, shown_path};
use crate::session::Session;

const TOOL: &str = "cubbyhole";

const EXAMPLES: &str = "\
Example:
  cubbyhole man ~/.local/share/man/man1 && man cubbyhole-put";

/// Write the manual pages to a folder
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// Folder; created if it is missing. Existing pages are replaced
    folder: PathBuf,
}

#[derive(Serialize)]
struct PagesLine {
    pages: u64,
}

impl Man {
    /// `tool` is the definition of the whole command line.
    pub(crate) fn run(self, tool: Command, session: &mut Session) -> Result<(), Failure> {
        let shown = shown_path(&self.folder);
        std::fs::create_dir_all(&self.folder)
            .map_err(|error| Failure::io(format!("cannot create the folder {shown}"), error))?;
        let mut tool = tool.disable_help_subcommand(true);
        // Adds the global options and the full names to the commands.
        tool.build();
        let pages = write_all(tool, &self.folder)?;
        if session.out.json() {
            return session.out.object(&PagesLine { pages });
        }
        session.out.note(&format!("wrote {} to {shown}", count(pages, "page", "pages")));
        Ok(())
    }
}

/// Writes the pages of a command and its subcommands. Returns the number of pages.
fn write_all(command: Command, folder: &Path) -> Result<u64, Failure> {
    let mut pages = 1;
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        // `help` is clap's, not a command of the tool.
        if command.get_name() != "help" {
            pages += write_all(command.clone(), folder)?;
        }
    }
    write(command, folder)?;
    Ok(pages)
}

fn write(command: Command, folder: &Path) -> Result<(), Failure> {
    let whole = command.get_name() == TOOL;
    let parts = command.has_subcommands();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // No date, so one build always writes the same pages.
    let page = Page::new(command)
        .source(concat!("Cubbyhole ", env!("CARGO_PKG_VERSION")))
        .manual("Cubbyhole manual");
    let file = folder.join(page.get_filename());
    let mut text = Vec::new();
    render(&page, whole, parts, &help, &mut text)
        .and_then(|()| std::fs::write(&file, text))
        .map_err(|error| Failure::io(format!("cannot write {}", shown_path(&file)), error))
}

/// Renders the sections of clap's page. The text below the help gets its own headings.
fn render(page: &Page, whole: bool, parts: bool, help: &str, text: &mut Vec<u8>) -> io::Result<()> {
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    if parts {
        page.render_subcommands_section(text)?;
    }
    let mut roff = Roff::new();
    notes(help, &mut roff);
    if !whole {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(format!("{TOOL}(1)"))]);
    }
    roff.to_writer(text)
}

/// Renders paragraphs as paragraphs, and indented text line by line.
fn notes(help: &str, roff: &mut Roff) {
    let mut section = "";
    for paragraph in help.split("\n\n") {
        let example = paragraph.strip_prefix("Examples:");
        let example = example.or_else(|| paragraph.strip_prefix("Example:"));
        let heading = if example.is_some() { "EXAMPLES" } else { "NOTES" };
        if std::mem::replace(&mut section, heading) == heading {
            roff.control("PP", []);
        } else {
            roff.control("SH", [heading]);
        }
        for line in example.unwrap_or(paragraph).lines().filter(|line| !line.trim().is_empty()) {
            // Lines of an example are not wrapped.
            let verbatim = example.is_some() || line.starts_with(' ');
            if verbatim {
                roff.control("nf", []);
            }
            roff.text([roman(line.trim())]);
            if verbatim {
                roff.control("fi", []);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_get_headings_and_examples_keep_line_breaks() {
        let mut roff = Roff::new();
        notes("One\ntwo.\n\nThree.\n\nExamples:\n  first --x\n  .second", &mut roff);
        let text = roff.render();
        let (_, text) = text.split_once(".SH NOTES\n").unwrap();
        assert_eq!(
            text,
            "One\ntwo.\n.PP\nThree.\n.SH EXAMPLES\n.nf\nfirst \\-\\-x\n.fi\n.nf\n\\&.second\n.fi\n"
        );
    }
}
