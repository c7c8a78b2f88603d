//! Standard input and output that report a closed stream as an error. The standard library treats a
//! closed stdin as empty, and discards output to a closed stdout.

use std::io::{self, BufWriter, Read, Write};

const BUFFER_BYTES: usize = 64 * 1024;

/// The error number for a bad file descriptor, the same on every Unix.
const EBADF: i32 = 9;

/// Returns the process's stdin.
///
/// # Errors
/// If stdin is closed or not open for reading.
pub(crate) fn stdin() -> io::Result<Box<dyn Read + Send>> {
    let mut stdin = open_stdin()?;
    // The system checks the mode of the file before the length of the read.
    refuse_closed(stdin.read(&mut []))?;
    Ok(stdin)
}

/// Returns the process's stdout, buffered. Writing fails if stdout is closed or not open for
/// writing.
pub(crate) fn stdout() -> Box<dyn Write + Send + Sync> {
    let stdout = open_stdout().and_then(|mut stdout| {
        // Like the read of length zero above.
        refuse_closed(stdout.write(&[]))?;
        Ok(stdout)
    });
    match stdout {
        Ok(stdout) => Box::new(BufWriter::with_capacity(BUFFER_BYTES, stdout)),
        Err(error) => Box::new(Closed(error)),
    }
}

/// Returns an error for a closed stream only. Other errors, such as a full disk, are left to the
/// read or write that meets them.
fn refuse_closed(outcome: io::Result<usize>) -> io::Result<()> {
    // `io::ErrorKind` has no kind for EBADF.
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

/// A stream on which every write fails, including one of zero bytes.
struct Closed(io::Error);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0.kind(), self.0.to_string()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
