//! Requirements of a call on the tokio runtime that runs it.
//!
//! For authors of stores and layers. [`ExecutionContext::begin`](crate::ExecutionContext::begin)
//! is the usual first line of a method.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Handle, Id};

use crate::{Error, Result};

/// Consumes one unit of the task's cooperative budget, and yields to the runtime if the budget is
/// exhausted.
///
/// Every method of every store awaits this first. Otherwise a loop over calls without I/O never yields,
/// and other tasks and timers of the thread never run. Outside a tokio runtime it does nothing. See
/// [`tokio::task::coop`].
#[inline]
pub async fn cooperate() {
    tokio::task::coop::consume_budget().await;
}

/// Checks that the caller runs in a tokio runtime.
///
/// # Errors
/// `InvalidArgument` outside a tokio runtime.
pub fn require_runtime() -> Result<()> {
    current().map(drop)
}

/// Checks that the caller runs in a tokio runtime with timers.
///
/// # Errors
/// `InvalidArgument` outside a tokio runtime, or in one without timers.
pub fn require_timers() -> Result<()> {
    thread_local! {
        /// The last runtime that this thread checked, and whether it has timers.
        static LAST: Cell<Option<(Id, bool)>> = const { Cell::new(None) };
    }
    let runtime = current()?.id();
    let known = LAST.get().filter(|(asked, _)| *asked == runtime);
    let (_, has_timers) = known.unwrap_or_else(|| {
        let answer = (runtime, can_create_timer());
        LAST.set(Some(answer));
        answer
    });
    if has_timers {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "the tokio runtime has no timers: call `enable_all` or `enable_time` on its builder",
    ))
}

/// Runs a future that needs I/O, and turns tokio's panic into an error if the runtime has none.
///
/// # Errors
/// `InvalidArgument` if tokio's I/O is not enabled.
pub async fn requiring_io<F: Future>(future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Tokio has no API to check this.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(answer) => answer.map(Ok),
            Err(panic) if reports_missing_io(&*panic) => Poll::Ready(Err(Error::invalid_argument(
                "the tokio runtime has no I/O: call `enable_all` or `enable_io` on its builder",
            ))),
            Err(panic) => resume_unwind(panic),
        }
    })
    .await
}

fn reports_missing_io(panic: &(dyn Any + Send)) -> bool {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let message = owned.or_else(|| panic.downcast_ref::<&str>().copied());
    message.is_some_and(|message| message.contains("enable_io"))
}

fn current() -> Result<Handle> {
    Handle::try_current().map_err(|_| {
        Error::invalid_argument(
            "there is no tokio runtime here: make the call within one, in a task or in `block_on`",
        )
    })
}

/// Creates a timer to find out whether the runtime has timers. Tokio has no API to check this, and
/// panics if it has none. The panic is caught, at most once per thread and runtime. Its message appears
/// on standard error unless the program has another panic hook.
fn can_create_timer() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the timer is never awaited")]
    let make = || drop(tokio::time::sleep(Duration::ZERO));
    catch_unwind(make).is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn runtime_and_timers_are_detected_on_one_thread() {
        let bare = Builder::new_current_thread().build().unwrap();
        let timed = Builder::new_current_thread().enable_time().build().unwrap();
        for _ in 0..2 {
            let error = require_timers().unwrap_err();
            assert!(error.message().contains("tokio runtime"), "{error}");
            let error = bare.block_on(async { require_timers() }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains("enable_time"), "{error}");
            bare.block_on(async { require_runtime() }).unwrap();
            timed.block_on(async { require_timers() }).unwrap();
        }
        assert_eq!(require_runtime().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
