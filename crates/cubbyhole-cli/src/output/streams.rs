//! Standard input and output, with an error where std reports none: std takes reading from a closed
//! stdin for its end, and writing to a closed stdout for success.

use std::io::{self, BufWriter, Read, Write};

const BUFFER_BYTES: usize = 64 * 1024;

/// The same number on every Unix.
const EBADF: i32 = 9;

/// The process's stdin.
///
/// # Errors
/// If it is closed, or not open for reading.
pub(crate) fn stdin() -> io::Result<Box<dyn Read + Send>> {
    let mut stdin = open_stdin()?;
    // The system checks the mode of the file before it looks at the length.
    refuse_closed(stdin.read(&mut []))?;
    Ok(stdin)
}

/// The process's stdout, buffered. Writing fails if it is closed, or not open for writing.
pub(crate) fn stdout() -> Box<dyn Write + Send + Sync> {
    let stdout = open_stdout().and_then(|mut stdout| {
        // As above.
        refuse_closed(stdout.write(&[]))?;
        Ok(stdout)
    });
    match stdout {
        Ok(stdout) => Box::new(BufWriter::with_capacity(BUFFER_BYTES, stdout)),
        Err(error) => Box::new(Closed(error)),
    }
}

/// Any other error, of a full disk for one, is for the read or write that meets it.
fn refuse_closed(outcome: io::Result<usize>) -> io::Result<()> {
    // `io::ErrorKind` has none for EBADF.
    match outcome {
        Err(error) if cfg!(unix) && error.raw_os_error() == Some(EBADF) => {
            Err(io::Error::other("it is closed"))
        }
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn open_stdin() -> io::Result<Box<dyn Read + Send>> {
    use std::os::fd::AsFd;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Box::new(std::fs::File::from(stdin)))
}

#[cfg(unix)]
fn open_stdout() -> io::Result<Box<dyn Write + Send + Sync>> {
    use std::os::fd::AsFd;
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(Box::new(std::fs::File::from(stdout)))
}

#[cfg(not(unix))]
fn open_stdin() -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(io::stdin()))
}

#[cfg(not(unix))]
fn open_stdout() -> io::Result<Box<dyn Write + Send + Sync>> {
    Ok(Box::new(io::stdout()))
}

/// A stream that fails when something is to be written, were it nothing, and not before.
struct Closed(io::Error);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0.kind(), self.0.to_string()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
