//! The file of an export. It is written under a temporary name, and renamed once it is complete.

mod leftovers;

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub(super) use self::leftovers::Leftover;
use self::leftovers::Part;
use crate::entries::compression::{check_name_to_write, names_zstd};
use crate::error::Failure;
use crate::output::shown_path;

/// The compression level: a few times smaller than JSON, and faster than any store.
const LEVEL: i32 = 3;

pub(super) struct FileTarget {
    writer: Writer,
    path: PathBuf,
    /// The temporary file; `None` for a target that cannot be replaced, such as a pipe.
    part: Option<Part>,
    /// The metadata of the replaced file.
    replaced: Option<Metadata>,
}

enum Writer {
    Plain(BufWriter<File>),
    Zstd(Box<zstd::Encoder<'static, BufWriter<File>>>),
    /// The writer was finished, successfully or not.
    Ended,
}

impl FileTarget {
    /// Creates the file, which only its owner can read and write. Returns the temporary files that
    /// earlier exports to the same name left behind.
    pub(super) fn create(path: &Path) -> Result<(Self, Vec<Leftover>), Failure> {
        let refused = |error| Failure::io(format!("cannot write {}", shown_path(path)), error);
        // A symbolic link is kept, and its target is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        check_name_to_write(&target).map_err(Failure::Usage)?;
        // The extension of the link or of its target decides.
        let compress = names_zstd(path) || names_zstd(&target);
        let path = target;
        let present = fs::metadata(&path).ok();
        if present.as_ref().is_some_and(|present| !present.is_file()) {
            let file = File::options().write(true).open(&path).map_err(refused)?;
            let writer = Writer::new(file, compress).map_err(refused)?;
            return Ok((Self { writer, path, part: None, replaced: None }, Vec::new()));
        }
        let leftovers = leftovers::remove(&path);
        let (part, file) = Part::create(&path).map_err(refused)?;
        let writer = Writer::new(file, compress).map_err(refused)?;
        Ok((Self { writer, path, part: Some(part), replaced: present }, leftovers))
    }

    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, line)
            .map_err(Into::into)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|error| self.failure(error))
    }

    pub(super) fn keep(mut self) -> Result<(), Failure> {
        self.finish().map_err(|error| self.failure(error))
    }

    fn finish(&mut self) -> io::Result<()> {
        let file = std::mem::replace(&mut self.writer, Writer::Ended).finish()?;
        let Some(part) = &mut self.part else { return Ok(()) };
        if let Some(file) = &file {
            if let Some(replaced) = self.replaced.take() {
                // At the end, so an interrupted export leaves a file that only its owner can read.
                copy_access(file, &replaced)?;
            }
            file.sync_all()?;
        }
        // The file is still open and locked, so other exports do not remove it.
        part.rename(&self.path)
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::io(format!("cannot write {}", shown_path(&self.path)), error)
    }
}

/// Copies the mode, the owner and the group of `replaced` to `file`, so the same users can read it.
/// If the group cannot be set, only the owner can read it.
#[cfg(unix)]
fn copy_access(file: &File, replaced: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

    let (owner, group) = (Some(replaced.uid()), Some(replaced.gid()));
    // Only a privileged user can change the owner. Others can only set one of their own groups.
    let kept = fchown(file, owner, group).or_else(|_| fchown(file, None, group)).is_ok();
    let mut permissions = replaced.permissions();
    if !kept {
        permissions.set_mode(permissions.mode() & 0o700);
    }
    file.set_permissions(permissions)
}

#[cfg(not(unix))]
fn copy_access(file: &File, replaced: &Metadata) -> io::Result<()> {
    file.set_permissions(replaced.permissions())
}

impl Writer {
    fn new(file: File, compress: bool) -> io::Result<Self> {
        let file = BufWriter::new(file);
        if !compress {
            return Ok(Self::Plain(file));
        }
        let mut encoder = zstd::Encoder::new(file, LEVEL)?;
        // Checksums let a reader detect corruption.
        encoder.include_checksum(true)?;
        Ok(Self::Zstd(Box::new(encoder)))
    }

    fn finish(self) -> io::Result<Option<File>> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Ended => return Ok(None),
        };
        file.into_inner().map(Some).map_err(io::IntoInnerError::into_error)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Ended => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Ended => Ok(()),
        }
    }
}
