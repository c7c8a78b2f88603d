//! The file of an export: it takes its name only once it is whole.

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

/// A few times smaller than JSON, at a speed that no store outruns.
const LEVEL: i32 = 3;

pub(super) struct FileTarget {
    writer: Writer,
    path: PathBuf,
    /// Where it is written meanwhile; `None` for what cannot be replaced, such as a pipe.
    part: Option<Part>,
    /// The file that is replaced.
    replaced: Option<Metadata>,
}

enum Writer {
    Plain(BufWriter<File>),
    Zstd(Box<zstd::Encoder<'static, BufWriter<File>>>),
    /// The end of a compressed file was written, or could not be.
    Ended,
}

impl FileTarget {
    /// Creates the file, which only its owner may read and write. Returns what earlier exports to
    /// the same name left behind.
    pub(super) fn create(path: &Path) -> Result<(Self, Vec<Leftover>), Failure> {
        let refused = |error| Failure::io(format!("cannot write {}", shown_path(path)), error);
        // A link stays a link: what it leads to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        check_name_to_write(&target).map_err(Failure::Usage)?;
        // By the name that was given, which may be that of a link, or by that of the file.
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
                // Only now: an export that is cut short leaves a file that its owner alone may read.
                copy_access(file, &replaced)?;
            }
            file.sync_all()?;
        }
        // The file is still open, and with it the lock by which other exports know it is in use.
        part.rename(&self.path)
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::io(format!("cannot write {}", shown_path(&self.path)), error)
    }
}

/// Lets the users who may read `replaced` read `file`, and no others: it gets the same mode, and the
/// same owner and group, to which the mode refers. Where the group cannot be kept, only the owner may
/// read it.
#[cfg(unix)]
fn copy_access(file: &File, replaced: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

    let (owner, group) = (Some(replaced.uid()), Some(replaced.gid()));
    // A privileged user may give a file away, others choose among their own groups.
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
        // Of every frame, so that a reader notices what a disk or a network changed.
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
