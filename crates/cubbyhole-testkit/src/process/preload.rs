//! C libraries that replace functions of the system in a server, and the file that controls each.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::process::folder::Folder;
use crate::process::table::output;

const ADVICE: &str = "\
A server with a manual clock or a failing disk needs a C compiler, `cc`. Install it:
  Debian, Ubuntu   apt-get install gcc libc6-dev
  Fedora           dnf install gcc";

/// A library and its source.
pub(crate) struct Library {
    /// The name of its files in a server's folder.
    name: &'static str,
    source: &'static str,
    /// The environment variable with the path of its control file.
    variable: &'static str,
    /// The compiled library, once it exists.
    content: Mutex<Option<Vec<u8>>>,
}

impl Library {
    pub(crate) const fn new(
        name: &'static str,
        source: &'static str,
        variable: &'static str,
    ) -> Self {
        Self { name, source, variable, content: Mutex::new(None) }
    }

    /// Returns the compiled library. Compiles it in `folder` if this program has not done so yet.
    fn content(&self, folder: &Folder) -> Result<Vec<u8>, String> {
        // The lock is held throughout, so tests that start together compile once.
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = &*content {
            return Ok(content.clone());
        }
        let source = folder.write(&format!("{}.c", self.name), self.source)?;
        let compiled = folder.path().join(format!("{}.compiled", self.name));
        let mut command = Command::new("cc");
        command.args(["-O1", "-shared", "-fPIC", "-pipe", "-o"]).arg(&compiled).arg(source);
        output(&mut command).map_err(|error| format!("{error}\n{ADVICE}"))?;
        let read =
            fs::read(&compiled).map_err(|error| format!("{}: {error}", compiled.display()))?;
        *content = Some(read.clone());
        Ok(read)
    }
}

/// A library and its control file, in the folder of a server.
pub(crate) struct Preload {
    variable: &'static str,
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Preload {
    /// Writes both into `folder`, with `content` in the control file.
    pub(crate) fn create(
        folder: &Folder,
        library: &Library,
        content: &[u8],
    ) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err(format!("a server with a replaced {} needs Linux", library.name));
        }
        let compiled = library.content(folder)?;
        let compiled = folder.write(&format!("{}.so", library.name), compiled)?;
        let path = folder.write(library.name, content)?;
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { variable: library.variable, library: compiled, path, file })
    }

    /// Overwrites a part of the control file in one write, because the server reads it at any time.
    pub(crate) fn overwrite(&self, bytes: &[u8], at: u64) -> Result<(), String> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Returns the arguments of `env` that load the libraries into a server.
pub(crate) fn variables<'a>(preloads: impl IntoIterator<Item = &'a Preload>) -> Vec<OsString> {
    let mut variables = Vec::new();
    let mut libraries = OsString::from("LD_PRELOAD=");
    for Preload { variable, library, path, .. } in preloads {
        if !variables.is_empty() {
            libraries.push(":");
        }
        libraries.push(library);
        let mut file = OsString::from(variable);
        file.push("=");
        file.push(path);
        variables.push(file);
    }
    if !variables.is_empty() {
        variables.push(libraries);
    }
    variables
}
