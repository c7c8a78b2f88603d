//! How a file comes to be: whole or not at all.

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

/// Creates the file if it is not there and may be created.
pub(super) fn prepare(config: &Config) -> Result<()> {
    let path = config.path();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(from_open_io(io::ErrorKind::IsADirectory.into(), path))
        }
        // A pipe would keep a reader waiting.
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

/// Builds the file under another name and gives it its own once it is whole and on disk, so that
/// a crash leaves a store or nothing, and never a file that does not open.
fn create(config: &Config) -> Result<(), CreateError> {
    let path = config.path();
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Not made of the file's own name, which may be as long as names can be.
    let draft = folder.join(format!(".cubbyhole-{}.draft", cubbyhole_core::Version::draw()));
    let result = (|| {
        let file = for_its_owner(OpenOptions::new().read(true).write(true))
            .create_new(true)
            .open(&draft)?;
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
            // Another process was faster: its store is the one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            published => published?,
        }
        sync_folder(folder)?;
        Ok(())
    })();
    // What is left of the draft is only a second name of the file, or a file that failed; if it
    // cannot be removed either, the first error tells more.
    let _ = fs::remove_file(&draft);
    result
}

/// Makes the tables, so that readers always find them.
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

/// The file holds the values of all tenants: only its owner may read it, who may give others the right.
fn for_its_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Makes the file's name durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // A file system that has no such thing.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Gives `draft` the name `path` unless that is taken.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // A file system without hard links, which says so in one of several ways. Renaming would replace a file that another
            // process put there in the meantime, so that is looked for right before.
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
