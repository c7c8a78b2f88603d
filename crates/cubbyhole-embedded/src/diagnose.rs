//! Checks the health of a file.

mod environment;

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use cubbyhole_core::{
    Clock, Diagnosis, Error, ErrorKind, ExecutionContext, Result, Timestamp, Verdict,
};

use crate::call::begin;
use crate::config::{Config, Durability, RELAXED_FLUSH_INTERVAL};
use crate::file::WriteDenied;
use crate::layout::Origin;
use crate::repair::{CLOCK_TOLERANCE, revived};
use crate::store::EmbeddedStore;
use crate::url_path::shown;

/// Returns whether a file is an embedded store or another redb database. Damaged stores count too.
///
/// Reads only a few bytes, so the file may be open elsewhere. Use this before overwriting a file
/// that a user has named. Anything but a regular file is not a store.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("notes.txt");
/// std::fs::write(&path, "a line")?;
/// assert!(!cubbyhole_embedded::is_store_file(&path)?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The I/O errors of opening and reading the file; `NotFound` if it does not exist.
pub fn is_store_file(path: &Path) -> io::Result<bool> {
    // Opening a named pipe could block.
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Ok(false);
    }
    let file = fs::File::open(path)?;
    let origin = Origin::of(about.len(), |from, out| {
        let mut file = &file;
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(out)
    })?;
    Ok(!matches!(origin, Origin::Empty | Origin::Unknown))
}

/// Checks the health of a store's file and returns the findings with advice.
///
/// Checks whether the file exists and opens, its permissions, the free disk space, the durability
/// setting, the clock, the consistency of the tables, and the share of expired entries. Reads and
/// verifies the whole file. Opens it read-only and never creates it. All problems are reported in
/// the [`Diagnosis`].
///
/// ```
/// # use cubbyhole_core::{ExecutionContext, Verdict};
/// # use cubbyhole_embedded::{Config, diagnose};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let ctx = ExecutionContext::new();
/// let missing = Config::new(folder.path().join("missing.redb"));
/// assert_eq!(diagnose(&ctx, &missing).await?.verdict(), Verdict::Problem);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Cancelled` or `DeadlineExceeded` if the context ends; `InvalidArgument` outside a tokio
/// runtime.
pub async fn diagnose(ctx: &ExecutionContext, config: &Config) -> Result<Diagnosis> {
    begin(ctx, "diagnose").await?;
    let mut diagnosis = Diagnosis::default();
    let path = config.path();
    match fs::metadata(path) {
        Ok(metadata) => {
            diagnosis.ok("file", format!("{}, {} bytes", shown(path), metadata.len()));
            environment::check_permissions(&mut diagnosis, path, &metadata);
            // Opening a pipe or a device could block; opening the store refuses them. A store that
            // is only read needs no disk space.
            if metadata.is_file() && check_writing(&mut diagnosis, config) {
                environment::check_disk(&mut diagnosis, path, &metadata);
            }
        }
        Err(error) => {
            let finding = format!("{}: {error}", shown(path));
            let advice = "check the path; `put` and `import` create a missing file";
            diagnosis.found(Verdict::Problem, "file", finding, advice);
            return Ok(diagnosis);
        }
    }
    check_durability(&mut diagnosis, config);
    let verified = config.clone().with_read_only(true).with_integrity_check(true);
    let opened = async {
        let store = EmbeddedStore::open(ctx, verified).await?;
        let format = store.format(ctx).await?;
        Ok((store, format))
    };
    let (store, format) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            ctx.check()?;
            let advice = advice_on_opening(&error);
            diagnosis.found(Verdict::Problem, "open", error.message().to_owned(), advice);
            return Ok(diagnosis);
        }
    };
    diagnosis.ok("open", format!("opens, format {format}, all checksums are valid"));
    check_clock(ctx, &mut diagnosis, &store, config.clock().now()).await?;
    if let Err(error) = store.verify(ctx).await {
        ctx.check()?;
        let advice = "export the readable entries and import them into a new store";
        diagnosis.found(Verdict::Problem, "tables", error.message().to_owned(), advice);
    }
    check_entries(ctx, &mut diagnosis, &store).await?;
    Ok(diagnosis)
}

fn advice_on_opening(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unavailable => {
            "check again when that process has closed the file; an earlier copy may be damaged"
        }
        ErrorKind::PermissionDenied => {
            "give this user the right to read the file and to enter its folder"
        }
        ErrorKind::Unsupported => "use the version of this tool that wrote the file",
        _ => "restore it from a backup or an export",
    }
}

/// Checks and returns whether the store can be written.
fn check_writing(diagnosis: &mut Diagnosis, config: &Config) -> bool {
    if config.is_read_only() {
        diagnosis.ok("writes", "the store is configured as read-only and refuses writes");
        return false;
    }
    let Some(denied) = WriteDenied::check(config.path()) else { return true };
    diagnosis.found(
        Verdict::Warning,
        "writes",
        format!("the file is read-only: {}; reads work, writes fail", denied.cause()),
        "make the file writable, or open it with `read_only=true` in its URL",
    );
    false
}

fn check_durability(diagnosis: &mut Diagnosis, config: &Config) {
    match config.durability() {
        Durability::Immediate => {
            diagnosis.ok("durability", "a write returns when it is on disk");
        }
        Durability::Relaxed => diagnosis.found(
            Verdict::Warning,
            "durability",
            format!("relaxed: a crash loses the writes of the last {RELAXED_FLUSH_INTERVAL:?}"),
            "remove `durability=relaxed` from the URL, unless the last writes can be repeated",
        ),
    }
}

/// Checks whether the store's time is ahead of the clock, whose current value is `wall`.
async fn check_clock(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    store: &EmbeddedStore,
    wall: Timestamp,
) -> Result<()> {
    let lead = store.clock_lead();
    if lead <= CLOCK_TOLERANCE {
        diagnosis.ok("clock", "this machine's, not behind the store's time");
        return Ok(());
    }
    let revives = match store.ahead_of(ctx, wall).await {
        Ok(ahead) => revived(&ahead),
        Err(error) => {
            ctx.check()?;
            format!("cannot count the entries that this revives ({})", error.message())
        }
    };
    diagnosis.found(
        Verdict::Warning,
        "clock",
        format!(
            "this machine's is {} s behind the store's time, which is not set back automatically",
            lead.as_secs()
        ),
        format!(
            "if this machine's clock is wrong, correct it; if it was ahead earlier, `cubbyhole \
             doctor --repair` sets the store's time back to it; {revives}"
        ),
    );
    Ok(())
}

async fn check_entries(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    store: &EmbeddedStore,
) -> Result<()> {
    match store.counts(ctx).await {
        Ok((entries, 0)) => diagnosis.ok("entries", format!("{entries}, none of them expired")),
        Ok((entries, expired)) if expired * 4 > entries => diagnosis.found(
            Verdict::Warning,
            "entries",
            format!("{entries}, {expired} of them expired and not swept"),
            "run `cubbyhole evict` now and regularly",
        ),
        Ok((entries, expired)) => {
            diagnosis.ok("entries", format!("{entries}, {expired} of them expired and not swept"));
        }
        Err(error) => {
            ctx.check()?;
            let advice = "restore the file from a backup or an export";
            diagnosis.found(Verdict::Problem, "entries", error.message().to_owned(), advice);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::format::{FORMAT, META, META_FORMAT};
    use crate::file::StoreFile;

    #[tokio::test]
    async fn newer_format_is_unsupported() {
        let (ctx, folder) = (ExecutionContext::new(), tempfile::tempdir().unwrap());
        let config = Config::new(folder.path().join("s.redb"));
        drop(EmbeddedStore::open(&ctx, config.clone()).await.unwrap());
        let (file, _) = StoreFile::open(config.clone()).unwrap_or_else(|_| panic!("cannot open"));
        let transaction = file.read().database().unwrap().begin_write().unwrap();
        let newer = (FORMAT + 1).to_le_bytes();
        transaction.open_table(META).unwrap().insert(META_FORMAT, newer.as_slice()).unwrap();
        transaction.commit().unwrap();
        file.close().unwrap();

        let error = EmbeddedStore::open(&ctx, config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("format 3"), "{error}");
        let diagnosis = diagnose(&ctx, &config).await.unwrap();
        assert_eq!(diagnosis.verdict(), Verdict::Problem);
    }
}
