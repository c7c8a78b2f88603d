//! Creates the file atomically.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use cubbyhole_core::{Error, Result};
use redb::Database;
use redb::backends::FileBackend;

use super::unusable::not_a_store;
use crate::config::Config;
use crate::engine::format::{ENTRIES, EXPIRY, FORMAT, META, META_FORMAT, VALUES};
use crate::error::{Failure, from_open, from_open_io};
use crate::storage::{ChecksummedStorage, EngineRegion, SharedFile, UncertainGroups};
use crate::url_path::shown;
use crate::wal::Log;

/// Creates the file if it does not exist and the configuration allows it.
pub(super) fn prepare(config: &Config) -> Result<()> {
    let path = config.path();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(from_open_io(io::ErrorKind::IsADirectory.into(), path))
        }
        // Opening a named pipe could block.
        Ok(metadata) if !metadata.is_file() => Err(not_a_store(path)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && config.create() => create(config)
            .map_err(|error| match error {
                CreateError::Io(error) => creation_error(error, path),
                CreateError::Store(error) => error,
            }),
        Err(error) => Err(from_open_io(error, path)),
    }
}

enum CreateError {
    Io(io::Error),
    Store(Error),
}

impl From<io::Error> for CreateError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Builds the store under a temporary name and gives it the name `path` when it is complete and on
/// disk. So a crash leaves either a store or no file at `path`.
fn create(config: &Config) -> Result<(), CreateError> {
    let path = config.path();
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Not derived from the file's name, which may have the maximum length already.
    let draft = folder.join(format!(".cubbyhole-{}.draft", cubbyhole_core::Version::draw()));
    let result = (|| {
        let file =
            owner_only(OpenOptions::new().read(true).write(true)).create_new(true).open(&draft)?;
        let storage = FileBackend::new(file)
            .map_err(|error| CreateError::Store(from_open(error, path).into_error()))?;
        let shared_file = SharedFile::new(Box::new(storage));
        let engine = ChecksummedStorage::new(
            Box::new(EngineRegion(Arc::clone(&shared_file))),
            UncertainGroups::default(),
        );
        let database = redb::Builder::new()
            .create_with_backend(engine)
            .map_err(|error| CreateError::Store(from_open(error, path).into_error()))?;
        Log::lay_out(shared_file.storage())?;
        initialise(&database).map_err(|error| CreateError::Store(error.into_error()))?;
        database
            .close()
            .map_err(|error| CreateError::Store(from_open(error, path).into_error()))?;
        match publish(&draft, path) {
            // Another process created the store first: use that one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            published => published?,
        }
        sync_folder(folder)?;
        Ok(())
    })();
    // The draft is now a second name of the store, or incomplete. An error of removing it is less
    // useful than the result.
    let _ = fs::remove_file(&draft);
    result
}

/// Creates the tables, so reads can rely on them.
pub(super) fn initialise(database: &Database) -> Result<(), Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(META)?.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(VALUES)?;
    transaction.open_table(EXPIRY)?;
    transaction.commit()?;
    Ok(())
}

/// Restricts access to the owner, because the file contains the values of all tenants.
fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Makes the file's name durable, on systems that can sync a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // The file system does not support it.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Gives `draft` the name `path` unless that name exists.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // File systems without hard links report this with various errors. A rename would
            // replace a store that another process has just created, so check for one first.
            if path.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(draft, path)
        }
        linked => linked,
    }
}

fn creation_error(error: io::Error, path: &Path) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::unavailable(format!(
            "the folder of {} does not exist; create it first",
            shown(path)
        ))
        .permanent()
        .with_source(error);
    }
    from_open_io(error, path)
}
