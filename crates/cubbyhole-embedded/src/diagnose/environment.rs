//! Where the file is: who may read and write it, and how much room there is.

use std::fs::Metadata;
use std::path::Path;

use cubbyhole_core::{Diagnosis, Verdict};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// With less than this a busy store meets the end of its disk within minutes.
const MIN_FREE_BYTES: u64 = 64 * MIB;

/// Who beside its owner may read or write the file, or put another in its place.
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
    // In a folder that is sticky nobody may rename another's file. What a group may do to a folder
    // is left alone: under many systems' defaults it is a group of one.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")));
    if folder.is_ok_and(|folder| folder.mode() & 0o1002 == 0o0002) {
        found.push("everybody may put another in its place".to_owned());
    }
    if found.is_empty() {
        diagnosis.ok("permissions", "for its owner alone");
        return;
    }
    diagnosis.found(
        Verdict::Warning,
        "permissions",
        found.join(", "),
        "what all tenants keep is in it: take these rights away (`chmod go-rwx` on the file, \
         `chmod o-w` on its folder), unless they are meant",
    );
}

/// Other systems' rights are not looked at.
#[cfg(not(unix))]
pub(super) fn check_permissions(_: &mut Diagnosis, _: &Path, _: &Metadata) {}

/// How much room the file has to grow.
pub(super) fn check_disk(diagnosis: &mut Diagnosis, path: &Path, metadata: &Metadata) {
    let stats = match fs4::statvfs(path) {
        Ok(stats) => stats,
        Err(error) => {
            diagnosis.found(
                Verdict::Warning,
                "disk",
                format!("the system does not tell how much room is left: {error}"),
                "see yourself, with `df`",
            );
            return;
        }
    };
    let (free, total) = (stats.available_space(), stats.total_space());
    let finding = format!("{} of {} left", size(free), size(total));
    match judge_free_space(free, total, metadata.len()) {
        Verdict::Ok => diagnosis.ok("disk", finding),
        Verdict::Warning => diagnosis.found(
            Verdict::Warning,
            "disk",
            finding,
            "make room: an export of the file, or a copy of it, takes as much as it has",
        ),
        Verdict::Problem => diagnosis.found(
            Verdict::Problem,
            "disk",
            finding,
            "make room: writes are refused when the disk is full",
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
    fn room_is_judged_by_the_disk_and_by_the_file() {
        for (free, total, file, verdict) in [
            (100 * GIB, 1000 * GIB, GIB, Verdict::Ok),
            // A large disk need not keep a tenth free, a small one no GiB.
            (GIB, 1000 * GIB, 0, Verdict::Ok),
            (GIB - 1, 1000 * GIB, 0, Verdict::Warning),
            (200 * MIB, 2000 * MIB, 200 * MIB, Verdict::Ok),
            (199 * MIB, 2000 * MIB, 0, Verdict::Warning),
            // It could not be copied.
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
    fn sizes_are_told_in_words() {
        assert_eq!([size(0), size(3 * MIB / 2), size(GIB)], ["0.0 MiB", "1.5 MiB", "1.0 GiB"]);
    }
}
