//! [`KeyFile`]: a key ring in a file.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cubbyhole_core::{
    Clock, Error, ErrorKind, ExecutionContext, Result, SystemClock, async_trait, runtime,
};
use zeroize::Zeroizing;

use super::cipher::{hex, random};
use super::{KeyProvider, KeyRing, SecretKey, WrappedKey};

/// How long a key id that the file did not have is known to be missing.
const MISSING_FOR: Duration = Duration::from_secs(1);
/// The maximum number of missing key ids in memory. One more clears them.
const MAX_MISSING: usize = 100;

/// A [`KeyRing`] in a file, in the [text form](KeyRing#text-form).
///
/// The file is read when it is opened, before a data key is wrapped, and when a data key is wrapped
/// with a key that is not in memory. A running process therefore uses a rotated file without a restart.
///
/// # Errors while it is in use
///
/// - The file was removed: the keys in memory are used.
/// - The file cannot be read, its text is invalid, or group or others may access it: a new data key is
///   not wrapped, because the key in memory can be a retired one. The error is `Unavailable` and
///   permanent. Data keys whose wrapping key is in memory are still unwrapped.
/// - The file does not have a key: `Unavailable` and permanent. The file is read again for the same key
///   after one second at the earliest. A key that is added is therefore used one second later at most.
///
/// To replace a file in use, write the new text next to it and rename it. A process that reads a
/// partly written file reports an error.
///
/// On Unix, the file must not be accessible to group or others: mode 0600 or 0400.
///
/// # Examples
///
/// ```
/// use cubbyhole_layers::KeyFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("keys");
/// let file = KeyFile::create(&path)?;
/// let first = file.ring().current_id().to_owned();
///
/// let second = KeyFile::rotate(&path)?;
/// let file = KeyFile::open(&path)?;
/// assert_eq!(file.ring().key_ids().collect::<Vec<_>>(), [&second, &first]);
/// # Ok(())
/// # }
/// ```
pub struct KeyFile {
    path: PathBuf,
    ring: RwLock<Arc<KeyRing>>,
    /// Key ids that the file did not have when it was read last. Locked while the file is read, so
    /// concurrent calls do not read it for the same key.
    missing: Mutex<HashMap<String, Missing>>,
    clock: Arc<dyn Clock>,
}

/// A key id that the file did not have.
struct Missing {
    /// The clock's `elapsed` after the file was read.
    read_at: Duration,
    /// The error, if the file could not be read.
    error: Option<Error>,
}

impl KeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// - `InvalidArgument`: there is no such file, or its text is invalid. The message names the line.
    /// - `PermissionDenied`: the file is not readable, or group or others may access it.
    /// - `Unavailable`: the file cannot be read for another reason.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let ring = read(&path)?;
        Ok(Self::with_ring(path, ring))
    }

    fn with_ring(path: PathBuf, ring: KeyRing) -> Self {
        let ring = RwLock::new(Arc::new(ring));
        Self { path, ring, missing: Mutex::default(), clock: Arc::new(SystemClock) }
    }

    /// Creates a file with one random key, and syncs it to disk. On Unix, its mode is 0600.
    ///
    /// The file appears complete or not at all. If the process is killed, a file `PATH.new-` with 8
    /// hexadecimal digits can remain. It contains a key that nothing uses: remove it.
    ///
    /// # Errors
    /// - `InvalidArgument`: the file exists, or its folder does not.
    /// - `PermissionDenied`: the folder does not permit it.
    /// - `Unavailable`: the file cannot be written for another reason, or it was created but its folder
    ///   cannot be synced.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let ring = KeyRing::generate()?;
        let temporary = with_suffix(&path, &format!(".new-{}", hex(&random::<4>()?)));
        write_new(&path, &temporary, &ring).map_err(|error| match error.kind() {
            IoErrorKind::AlreadyExists => Error::invalid_argument(format!(
                "{} exists and is not overwritten; choose another path, or rotate its keys",
                path.display()
            )),
            _ => io_error("create", &path, error),
        })?;
        sync_folder(&path).map_err(|error| not_synced("created", &path, error))?;
        Ok(Self::with_ring(path, ring))
    }

    /// Adds a random key to the file, makes it current, and returns its id.
    ///
    /// The new text replaces the file atomically and is synced to disk. Comments are not kept. The file
    /// `PATH.rotating`, next to it, prevents two concurrent rotations. Run it as the owner of the file.
    ///
    /// Data keys stay wrapped with the old key until [`Encrypted::rekey`](crate::Encrypted::rekey).
    ///
    /// # Errors
    /// - The errors of [`open`](Self::open).
    /// - `Conflict`: another rotation runs, or one was interrupted. The message names the file to remove.
    /// - `Unavailable`: the file cannot be written. If the message says that the file was rotated, the new
    ///   key is current, and only the folder could not be synced.
    pub fn rotate(path: impl AsRef<Path>) -> Result<String> {
        Self::rotate_and_sync(path.as_ref(), sync_folder)
    }

    fn rotate_and_sync(
        path: &Path,
        sync_folder: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<String> {
        read(path)?;
        // Behind a symbolic link, the file is replaced and not the link.
        let path = fs::canonicalize(path).map_err(|error| io_error("read", path, error))?;
        let temporary = with_suffix(&path, ".rotating");
        create_private(&temporary).map_err(|error| match error.kind() {
            IoErrorKind::AlreadyExists => Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} exists: another rotation runs, or one was interrupted; if none runs, \
                     remove this file",
                    temporary.display()
                ),
            ),
            _ => io_error("create", &temporary, error),
        })?;
        // After the rename, a file with this name belongs to another rotation.
        let id = replace(&path, &temporary).inspect_err(|_| discard(&temporary))?;
        sync_folder(&path).map_err(|error| not_synced("rotated", &path, error))?;
        Ok(id)
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the keys that were read last.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open). The keys in memory then stay as they are.
    pub fn reload(&self) -> Result<()> {
        let ring = Arc::new(read(&self.path)?);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    /// Reads the file again for its current key. Blocks for the reading of a small file, once for each
    /// new data key.
    fn refresh(&self) -> Result<()> {
        match File::open(&self.path) {
            // Without the file, the keys in memory still work.
            Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
            _ => self.reload().map_err(|error| in_use(&error)),
        }
    }

    /// Reads the file again if it can have a key that is not in memory. Blocks for the reading of a
    /// small file, once for each rotation, and once a second for a key that is missing.
    fn find_again(&self, id: &str) -> Result<()> {
        let known = || self.ring().find(id).is_some();
        if known() {
            return Ok(());
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        // A concurrent call may have read the file while this one waited.
        if known() {
            return Ok(());
        }
        if let Some(missing) = missing.get(id)
            && self.clock.elapsed().saturating_sub(missing.read_at) < MISSING_FOR
        {
            return missing.error.clone().map_or(Ok(()), Err);
        }
        missing.remove(id);
        let reloaded = self.reload().map_err(|error| in_use(&error));
        if !known() {
            if missing.len() >= MAX_MISSING {
                missing.clear();
            }
            let error = reloaded.clone().err();
            missing.insert(id.to_owned(), Missing { read_at: self.clock.elapsed(), error });
        }
        reloaded
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("path", &self.path)
            .field("ring", &self.ring())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyProvider for KeyFile {
    async fn current_key_id(&self, _: &ExecutionContext) -> Result<String> {
        runtime::cooperate().await;
        self.refresh()?;
        Ok(self.ring().current_id().to_owned())
    }

    async fn wrap(
        &self,
        _: &ExecutionContext,
        data_key: &SecretKey,
        associated: &[u8],
    ) -> Result<WrappedKey> {
        runtime::cooperate().await;
        self.refresh()?;
        self.ring().wrap_key(data_key, associated)
    }

    async fn unwrap(
        &self,
        _: &ExecutionContext,
        wrapped: &WrappedKey,
        associated: &[u8],
    ) -> Result<SecretKey> {
        runtime::cooperate().await;
        self.find_again(&wrapped.key_id)?;
        self.ring().unwrap_key(wrapped, associated)
    }
}

/// Returns an error of reading the file again as callers of a store see it: they did nothing wrong, and
/// repeating the call does not fix the file.
fn in_use(error: &Error) -> Error {
    Error::unavailable(error.message().to_owned()).permanent().with_source(error.clone())
}

fn read(path: &Path) -> Result<KeyRing> {
    let failed = |error| io_error("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    check_mode(path, &file)?;
    let length = file.metadata().map_err(failed)?.len();
    // Reserves all of it, because growing would leave copies of keys in memory.
    let capacity = usize::try_from(length).unwrap_or(0).saturating_add(1).min(1 << 20);
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.read_to_string(&mut text).map_err(failed)?;
    KeyRing::parse(&text).map_err(|error| {
        Error::new(error.kind(), format!("key file {}: {}", path.display(), error.message()))
    })
}

#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata().map_err(|error| io_error("read", path, error))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::permission_denied(format!(
        "key file {path}: its mode {:03o} lets group or others access it; run `chmod 600 {path}`",
        mode & 0o777,
        path = path.display()
    )))
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &File) -> Result<()> {
    Ok(())
}

/// Reads the ring only now, under the protection of `temporary`, so no key of another rotation is lost.
fn replace(path: &Path, temporary: &Path) -> Result<String> {
    let mut ring = read(path)?;
    let id = ring.rotate()?;
    let file = OpenOptions::new().write(true).open(temporary);
    file.and_then(|file| write_ring(file, &ring))
        .and_then(|()| fs::rename(temporary, path))
        .map_err(|error| io_error("replace", path, error))?;
    Ok(id)
}

/// Writes `temporary` and gives it the name `path`, which must not exist. An interrupted call therefore
/// leaves no incomplete file that blocks the next one.
fn write_new(path: &Path, temporary: &Path, ring: &KeyRing) -> std::io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(IoErrorKind::AlreadyExists.into());
    }
    let file = create_private(temporary)?;
    let named = write_ring(file, ring).and_then(|()| match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != IoErrorKind::AlreadyExists => reserve(path, temporary),
        linked => linked,
    });
    discard(temporary);
    named
}

/// Renames `temporary` to `path`, which must not exist. For file systems without hard links: an
/// interrupted call can leave an empty file.
fn reserve(path: &Path, temporary: &Path) -> std::io::Result<()> {
    create_private(path)?;
    fs::rename(temporary, path).inspect_err(|_| discard(path))
}

/// Removes a temporary file. A failure is ignored, because the result of the call matters more.
fn discard(temporary: &Path) {
    let _ = fs::remove_file(temporary);
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_ring(mut file: File, ring: &KeyRing) -> std::io::Result<()> {
    file.write_all(ring.to_text().as_bytes())?;
    file.sync_all()
}

/// Creates a file that only its owner may access.
fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Syncs the folder, so the name of the file survives a power failure.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn not_synced(done: &str, path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!(
        "key file {} was {done}, but its folder could not be synced: a power failure can undo it; \
         run `sync`, and keep a copy of the file",
        path.display()
    ))
    .permanent()
    .with_source(error)
}

fn io_error(verb: &str, path: &Path, error: std::io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        IoErrorKind::NotFound => {
            (ErrorKind::InvalidArgument, "there is no such file or folder; check the path")
        }
        IoErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "the file or its folder does not permit it")
        }
        IoErrorKind::InvalidData => (ErrorKind::InvalidArgument, "the file is not UTF-8 text"),
        _ => (ErrorKind::Unavailable, "the operating system reports an error"),
    };
    Error::new(kind, format!("cannot {verb} key file {}: {hint}", path.display()))
        .with_source(error)
}
