//! Looking a file over.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use cubbyhole_core::{Diagnosis, ExecutionContext, Result, Verdict};

use crate::config::EmbeddedConfig;
use crate::origin::Origin;
use crate::store::EmbeddedStore;

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

/// Looks the file over: whether it is there and opens, its size, and what should be looked after.
/// Never creates it. What goes wrong is in the [`Diagnosis`].
///
/// # Errors
/// The context's end.
pub async fn diagnose(ctx: &ExecutionContext, config: &EmbeddedConfig) -> Result<Diagnosis> {
    ctx.check()?;
    let mut diagnosis = Diagnosis::default();
    let path = config.path();
    match fs::metadata(path) {
        Ok(metadata) => {
            diagnosis.ok("file", format!("{}, {} bytes", path.display(), metadata.len()));
        }
        Err(error) => {
            let finding = format!("{}: {error}", path.display());
            let advice = "check the path; `put` and `import` create a file that is not there";
            diagnosis.found(Verdict::Problem, "file", finding, advice);
            return Ok(diagnosis);
        }
    }
    let verified = config.clone().with_create(false).with_integrity_check(true);
    let store = match EmbeddedStore::open(ctx, verified).await {
        Ok(store) => store,
        Err(error) => {
            ctx.check()?;
            let advice = match error.kind() {
                cubbyhole_core::ErrorKind::Unavailable => "try again once that process has ended",
                cubbyhole_core::ErrorKind::PermissionDenied => {
                    "give this user the right to read and write the file and its folder"
                }
                cubbyhole_core::ErrorKind::Unsupported => {
                    "use the build of this tool that it is of"
                }
                _ => "restore it from a backup or an export",
            };
            diagnosis.found(Verdict::Problem, "open", error.message().to_owned(), advice);
            return Ok(diagnosis);
        }
    };
    let format = crate::format::FORMAT;
    diagnosis.ok("open", format!("opens, format {format}, and every page has its checksum"));
    let lead = store.clock_lead(&*config.clock());
    if lead > Duration::from_secs(60) {
        diagnosis.found(
            Verdict::Warning,
            "clock",
            format!("it is {} s behind the latest instant that the store has seen", lead.as_secs()),
            "set the clock; until it has caught up, entries expire as if no time passed",
        );
    }
    if let Err(error) = store.verify(ctx).await {
        ctx.check()?;
        let advice = "export what can be read, and import it into a new store";
        diagnosis.found(Verdict::Problem, "tables", error.message().to_owned(), advice);
    }
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
    Ok(diagnosis)
}
