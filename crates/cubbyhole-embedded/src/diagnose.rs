//! Looking a file over.

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

/// Whether a file is an embedded store, whole or damaged, or another database of the same engine.
/// It is only read, a few of its bytes: it may be open elsewhere, and need not be sound.
///
/// For programs that are about to write to a file that a user named. What is no regular file is no
/// store.
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
/// Those of opening and reading the file, among them that it is not there.
pub fn is_store_file(path: &Path) -> io::Result<bool> {
    // A pipe would keep its opener waiting.
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

/// Looks the file over: whether it is there and opens, who else may read it, the room that it has, the
/// clock, and what should be looked after. Opens it read-only, and never creates it. What goes wrong is
/// in the [`Diagnosis`].
///
/// # Errors
/// The context's end; `InvalidArgument` without a tokio runtime.
pub async fn diagnose(ctx: &ExecutionContext, config: &Config) -> Result<Diagnosis> {
    begin(ctx, "diagnose").await?;
    let mut diagnosis = Diagnosis::default();
    let path = config.path();
    match fs::metadata(path) {
        Ok(metadata) => {
            diagnosis.ok("file", format!("{}, {} bytes", shown(path), metadata.len()));
            environment::check_permissions(&mut diagnosis, path, &metadata);
            // What is only read needs no room.
            // A pipe or a device is not opened: its opener may wait. Opening the store refuses it.
            if metadata.is_file() && check_writing(&mut diagnosis, config) {
                environment::check_disk(&mut diagnosis, path, &metadata);
            }
        }
        Err(error) => {
            let finding = format!("{}: {error}", shown(path));
            let advice = "check the path; `put` and `import` create a file that is not there";
            diagnosis.found(Verdict::Problem, "file", finding, advice);
            return Ok(diagnosis);
        }
    }
    check_durability(&mut diagnosis, config);
    let verified = config.clone().with_read_only(true).with_integrity_check(true);
    let store = match EmbeddedStore::open(ctx, verified).await {
        Ok(store) => store,
        Err(error) => {
            ctx.check()?;
            let advice = advice_on_opening(&error);
            diagnosis.found(Verdict::Problem, "open", error.message().to_owned(), advice);
            return Ok(diagnosis);
        }
    };
    let format = crate::engine::format::FORMAT;
    diagnosis.ok("open", format!("opens, format {format}, and every page has its checksum"));
    check_clock(ctx, &mut diagnosis, &store, config.clock().now()).await?;
    if let Err(error) = store.verify(ctx).await {
        ctx.check()?;
        let advice = "export what can be read, and import it into a new store";
        diagnosis.found(Verdict::Problem, "tables", error.message().to_owned(), advice);
    }
    check_entries(ctx, &mut diagnosis, &store).await?;
    Ok(diagnosis)
}

fn advice_on_opening(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unavailable => {
            "look it over once that process has closed it; a copy that is made before is not sound"
        }
        ErrorKind::PermissionDenied => {
            "give this user the right to read the file and to enter its folder"
        }
        ErrorKind::Unsupported => "use the build of this tool that it is of",
        _ => "restore it from a backup or an export",
    }
}

/// Whether the store can be written to.
fn check_writing(diagnosis: &mut Diagnosis, config: &Config) -> bool {
    if config.is_read_only() {
        diagnosis.ok("writes", "the store is opened read-only, as configured: none is taken");
        return false;
    }
    let Some(denied) = WriteDenied::look(config.path()) else { return true };
    diagnosis.found(
        Verdict::Warning,
        "writes",
        format!("the file is read-only: {}; it can be read, and no write is taken", denied.cause()),
        "make the file writable, or open it with `read_only=true` in its URL",
    );
    false
}

fn check_durability(diagnosis: &mut Diagnosis, config: &Config) {
    match config.durability() {
        Durability::Immediate => {
            diagnosis.ok("durability", "a write is answered once it is on disk");
        }
        Durability::Relaxed => diagnosis.found(
            Verdict::Warning,
            "durability",
            format!(
                "relaxed: a crash loses what was acknowledged in the last {RELAXED_FLUSH_INTERVAL:?}"
            ),
            "leave `durability=relaxed` out of the URL, unless the last writes can be made anew",
        ),
    }
}

/// Whether the store's time is ahead of the clock, which now shows `wall`.
async fn check_clock(
    ctx: &ExecutionContext,
    diagnosis: &mut Diagnosis,
    store: &EmbeddedStore,
    wall: Timestamp,
) -> Result<()> {
    let lead = store.clock_lead();
    if lead <= CLOCK_TOLERANCE {
        diagnosis.ok("clock", "this machine's, not behind what the store has seen");
        return Ok(());
    }
    let revives = match store.ahead_of(ctx, wall).await {
        Ok(ahead) => revived(&ahead),
        Err(error) => {
            ctx.check()?;
            format!("what that revives cannot be counted ({})", error.message())
        }
    };
    diagnosis.found(
        Verdict::Warning,
        "clock",
        format!(
            "this machine's is {} s behind the store's time, which is never set back automatically",
            lead.as_secs()
        ),
        format!(
            "if this machine's clock is behind, set it; if it was ahead once, `cubbyhole doctor \
             --repair` sets the store's time back to it; {revives}"
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
            "run `cubbyhole evict`, and then regularly",
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
    async fn a_newer_format_is_refused() {
        let (ctx, folder) = (ExecutionContext::new(), tempfile::tempdir().unwrap());
        let config = Config::new(folder.path().join("s.redb"));
        drop(EmbeddedStore::open(&ctx, config.clone()).await.unwrap());
        let (file, _) = StoreFile::open(config.clone()).unwrap_or_else(|_| panic!("it opens"));
        let transaction = file.read().database().unwrap().begin_write().unwrap();
        let newer = (FORMAT + 1).to_le_bytes();
        transaction.open_table(META).unwrap().insert(META_FORMAT, newer.as_slice()).unwrap();
        transaction.commit().unwrap();
        file.close().unwrap();

        let error = EmbeddedStore::open(&ctx, config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("format 2"), "{error}");
        let diagnosis = diagnose(&ctx, &config).await.unwrap();
        assert_eq!(diagnosis.verdict(), Verdict::Problem);
    }
}
