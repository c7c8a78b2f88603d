//! Counts, sizes and times in human-readable form.

use std::time::Duration;

use cubbyhole::Timestamp;

/// Formats a count: `1 entry`, `2 entries`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Formats a size, such as `1.5 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes;
    let mut unit = 0;
    while scaled >= 1024 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    let tenths = u128::from(scaled) * 10 / 1024;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Formats how long ago an instant was.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.saturating_since(at)))
}

/// Formats the time until an expiry, or `never`.
pub(crate) fn until(at: Option<Timestamp>, now: Timestamp) -> String {
    match at {
        Some(at) => format!("in {}", rough(at.saturating_since(now))),
        None => "never".to_owned(),
    }
}

/// Formats a duration of whole milliseconds exactly, in the longest unit that divides it, such as
/// `30m` or `1500ms`. It is the form of an idle TTL in the JSON of entry metadata.
pub(crate) fn exact_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = duration.as_millis();
    match UNITS.iter().find(|(unit, _)| millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// Formats a duration in its largest unit, rounded.
fn rough(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "m")];
    let seconds = duration.as_secs();
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{}{name}", (seconds + unit / 2) / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_one_unit() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7199, "2h"),
            (5399, "1h"),
            (86_400, "1d"),
            (364 * 86_400, "364d"),
            (800 * 86_400, "2y"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn sizes_are_scaled() {
        for (bytes, shown) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB")]
        {
            assert_eq!(human_bytes(bytes), shown);
        }
        assert!(human_bytes(u64::MAX).ends_with(" TiB"));
    }
}
