//! Names, slots, and waiting.

use std::time::Duration;

use crc::{CRC_16_XMODEM, Crc};
use cubbyhole_core::{Bytes, Error, ErrorKind, ExecutionContext, Namespace, Result};

/// Ends a test that hangs; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// By how much a busy machine may be late.
pub(crate) const SLACK: Duration = Duration::from_secs(3);

/// A context that does not end, but for a test that hangs.
pub(crate) fn ctx() -> ExecutionContext {
    ExecutionContext::new().with_timeout(PATIENCE)
}

pub(crate) fn within(millis: u64) -> ExecutionContext {
    ExecutionContext::new().with_timeout(Duration::from_millis(millis))
}

pub(crate) fn ns(rendered: &str) -> Namespace {
    Namespace::parse(rendered).unwrap()
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let ctx = ctx();
    while !condition().await {
        assert!(ctx.sleep(Duration::from_millis(5)).await.is_ok(), "it never came: {what}");
    }
}

/// Gives others their turn; what follows does not rely on its length.
pub(crate) async fn pause(millis: u64) {
    ExecutionContext::new().sleep(Duration::from_millis(millis)).await.unwrap();
}

/// What a call answers, and how long it took.
pub(crate) async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let day = Duration::from_secs(24 * 60 * 60);
    let watch = ExecutionContext::new().with_timeout(day);
    let answer = tokio::time::timeout(PATIENCE, call).await.expect("a call hangs");
    (answer, day - watch.remaining().unwrap())
}

/// An outage is called one, and tells whether the call may be repeated.
pub(crate) fn check_unavailable(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_ne!(error.is_retryable(), error.may_have_been_applied(), "{error:?}");
}

/// The answer, once it is no outage any more.
pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> T {
    let ctx = ctx();
    let mut last = None;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?} after {last:?}");
                last = Some(error);
            }
        }
        ctx.sleep(Duration::from_millis(10)).await.unwrap();
    }
}

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of what stands in braces.
pub(crate) fn slot(tag: &str) -> u16 {
    CRC.checksum(tag.as_bytes()) % 16384
}

/// The first names `STEM0`, `STEM1`, … that `fits`.
pub(crate) fn names(stem: &str, count: usize, fits: impl Fn(&str) -> bool) -> Vec<Namespace> {
    let names = (0_u32..).map(|number| format!("{stem}{number}"));
    names.filter(|name| fits(name)).take(count).map(|name| ns(&name)).collect()
}
