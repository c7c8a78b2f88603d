//! Checks around the file: permissions and free disk space.

use std::fs::Metadata;
use std::path::Path;

use cubbyhole_core::{Diagnosis, Verdict};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// With less free space, a busy store can fill the disk within minutes.
const MIN_FREE_BYTES: u64 = 64 * MIB;

/// Checks whether users other than the owner may read, write or replace the file.
#[cfg(unix)]
pub(super) fn check_permissions(diagnosis: &mut Diagnosis, path: &Path, metadata: &Metadata) {
    use std::os::unix::fs::MetadataExt;

    let mode = metadata.mode();
    let rights = |bits: u32| match (bits & 4 != 0, bits & 2 != 0) {
        (true, true) => Some("read and write"),
        (true, false) => Some("read"),
        (false, true) => Some("write"),
        (false, false) => None,
    };
    let mut found = Vec::new();
    for (who, bits) in [("its group", mode >> 3), ("everybody", mode)] {
        found.extend(rights(bits).map(|what| format!("{who} may {what} it")));
    }
    // In a sticky folder, users can only rename their own files. A writable folder of a group is
    // accepted, because by default on many systems the group has one member.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")));
    if folder.is_ok_and(|folder| folder.mode() & 0o1002 == 0o0002) {
        found.push("everybody may replace it".to_owned());
    }
    if found.is_empty() {
        diagnosis.ok("permissions", "only its owner has access");
        return;
    }
    diagnosis.found(
        Verdict::Warning,
        "permissions",
        found.join(", "),
        "the file contains the data of all tenants: remove these permissions (`chmod go-rwx` on \
         the file, `chmod o-w` on its folder) unless they are intended",
    );
}

/// Permissions are only checked on Unix.
#[cfg(not(unix))]
pub(super) fn check_permissions(_: &mut Diagnosis, _: &Path, _: &Metadata) {}

/// Checks the free space for the file to grow.
pub(super) fn check_disk(diagnosis: &mut Diagnosis, path: &Path, metadata: &Metadata) {
    let stats = match fs4::statvfs(path) {
        Ok(stats) => stats,
        Err(error) => {
            diagnosis.found(
                Verdict::Warning,
                "disk",
                format!("cannot determine the free space: {error}"),
                "check the free space with `df`",
            );
            return;
        }
    };
    let (free, total) = (stats.available_space(), stats.total_space());
    let finding = format!("{} of {} free", size(free), size(total));
    match judge_free_space(free, total, metadata.len()) {
        Verdict::Ok => diagnosis.ok("disk", finding),
        Verdict::Warning => diagnosis.found(
            Verdict::Warning,
            "disk",
            finding,
            "free some space: a copy or an export needs about as much space as the file",
        ),
        Verdict::Problem => diagnosis.found(
            Verdict::Problem,
            "disk",
            finding,
            "free some space: writes fail when the disk is full",
        ),
    }
}

fn judge_free_space(free: u64, total: u64, file: u64) -> Verdict {
    if free < MIN_FREE_BYTES {
        Verdict::Problem
    } else if free < file || free < GIB.min(total / 10) {
        Verdict::Warning
    } else {
        Verdict::Ok
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        GIB.. => format!("{:.1} GiB", bytes as f64 / GIB as f64),
        _ => format!("{:.1} MiB", bytes as f64 / MIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_verdict_depends_on_disk_and_file_size() {
        for (free, total, file, verdict) in [
            (100 * GIB, 1000 * GIB, GIB, Verdict::Ok),
            // The lesser of 1 GiB and a tenth of the disk must be free.
            (GIB, 1000 * GIB, 0, Verdict::Ok),
            (GIB - 1, 1000 * GIB, 0, Verdict::Warning),
            (200 * MIB, 2000 * MIB, 200 * MIB, Verdict::Ok),
            (199 * MIB, 2000 * MIB, 0, Verdict::Warning),
            // There is no space for a copy of the file.
            (100 * GIB, 1000 * GIB, 100 * GIB + 1, Verdict::Warning),
            (MIN_FREE_BYTES, 10 * MIN_FREE_BYTES, 0, Verdict::Ok),
            (MIN_FREE_BYTES - 1, 0, 0, Verdict::Problem),
            (0, GIB, GIB, Verdict::Problem),
        ] {
            assert_eq!(
                judge_free_space(free, total, file),
                verdict,
                "{free} of {total} for {file}"
            );
        }
    }

    #[test]
    fn sizes_are_shown_in_mib_or_gib() {
        assert_eq!([size(0), size(3 * MIB / 2), size(GIB)], ["0.0 MiB", "1.5 MiB", "1.0 GiB"]);
    }
}
