//! Polling for a condition of another process. The standard library can neither wait for processes
//! that are not its children nor receive signals.

use std::thread;
use std::time::{Duration, Instant};

/// Short compared with the start of a server.
const INTERVAL: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds, for at most `limit`. Returns whether it held.
#[expect(
    clippy::disallowed_methods,
    reason = "tests wait on their own threads and have no `ExecutionContext`"
)]
pub(crate) fn until(
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<bool, String> {
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(true);
        }
        if start.elapsed() >= limit {
            return Ok(false);
        }
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_condition_an_error_or_the_limit() {
        let mut asked = 0;
        let third = until(Duration::from_secs(60), || {
            asked += 1;
            Ok(asked == 3)
        });
        assert_eq!((third, asked), (Ok(true), 3));
        assert_eq!(until(Duration::from_secs(60), || Err("no".into())), Err("no".into()));
        assert_eq!(until(Duration::from_millis(30), || Ok(false)), Ok(false));
    }
}
