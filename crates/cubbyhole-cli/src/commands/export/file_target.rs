//! The file of an export: it takes its name only once it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use cubbyhole::Version;
use serde::Serialize;

use crate::compression::names_zstd;
use crate::error::Failure;
use crate::output::shown_path;

/// A few times smaller than JSON, at a speed that no store outruns.
const LEVEL: i32 = 3;

pub(super) struct FileTarget {
    writer: Writer,
    path: PathBuf,
    /// Where it is written meanwhile; `None` for what cannot be replaced, such as a pipe.
    temporary: Option<PathBuf>,
}

enum Writer {
    Plain(BufWriter<File>),
    Zstd(Box<zstd::Encoder<'static, BufWriter<File>>>),
    /// The end of a compressed file was written, or could not be.
    Ended,
}

impl FileTarget {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let refused = |error| Failure::io(format!("cannot write {}", shown_path(path)), error);
        // By the name that was given, which may be that of a link.
        let compress = names_zstd(path);
        // A link stays a link: what it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let present = fs::metadata(&path).ok();
        if present.as_ref().is_some_and(|present| !present.is_file()) {
            let file = File::options().write(true).open(&path).map_err(refused)?;
            let writer = Writer::new(file, compress).map_err(refused)?;
            return Ok(Self { writer, path, temporary: None });
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        // Not by the process: in a container each has the same number, and one that was killed leaves
        // its file.
        name.push(format!(".{}.part", Version::draw()));
        let temporary = path.with_file_name(name);
        let refused =
            |error| Failure::io(format!("cannot write {}", shown_path(&temporary)), error);
        let file = File::options().write(true).create_new(true).open(&temporary);
        let file = file.map_err(refused)?;
        if let Some(present) = present {
            // Who may read the old export may read the new one, and nobody else.
            file.set_permissions(present.permissions()).map_err(refused)?;
        }
        let writer = Writer::new(file, compress).map_err(refused)?;
        Ok(Self { writer, path, temporary: Some(temporary) })
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
        if let Some(temporary) = &self.temporary {
            if let Some(file) = file {
                file.sync_all()?;
            }
            fs::rename(temporary, &self.path)?;
            self.temporary = None;
        }
        Ok(())
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::io(format!("cannot write {}", shown_path(&self.path)), error)
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The failure that led here is being told; a file left over is the lesser one.
            drop(fs::remove_file(temporary));
        }
    }
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
