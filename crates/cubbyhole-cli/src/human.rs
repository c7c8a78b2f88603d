//! Instants as a person at a terminal reads them: by how far they are from now.

use std::time::Duration;

use cubbyhole::Timestamp;

/// How long ago something was.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.saturating_since(at)))
}

/// When something expires, if it does.
pub(crate) fn until(at: Option<Timestamp>, now: Timestamp) -> String {
    match at {
        Some(at) => format!("in {}", rough(at.saturating_since(now))),
        None => "never".to_owned(),
    }
}

/// A duration in its largest unit, rounded: enough to see what is old and what ends soon.
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
    fn durations_are_shown_in_one_unit_rounded() {
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
}
