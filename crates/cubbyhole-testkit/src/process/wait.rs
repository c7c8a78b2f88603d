//! Waiting for what another process does. There is nothing to be woken by: std has neither
//! signals nor a wait for processes that are not its children.

use std::thread;
use std::time::{Duration, Instant};

/// Short beside the time that a server takes to start.
const INTERVAL: Duration = Duration::from_millis(10);

/// Asks `condition` until it holds, for `limit` at most; whether it held.
#[expect(
    clippy::disallowed_methods,
    reason = "tests wait here on their own threads, and no `ExecutionContext` is theirs"
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
    fn it_ends_with_the_condition_an_error_or_the_limit() {
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
