//! Names, slots, and repeated calls.

use std::time::Duration;

use crc::{CRC_16_XMODEM, Crc};
use cubbyhole_core::{ErrorKind, Namespace, Result};
use cubbyhole_testkit::helpers::{ctx, ns};

/// The delay that is allowed on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(3);

/// Repeats a call while it is unavailable, and returns its answer.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> T {
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

/// Returns the slot of a hash tag.
pub(crate) fn slot(tag: &str) -> u16 {
    CRC.checksum(tag.as_bytes()) % 16384
}

/// Returns the first `count` of the names `STEM0`, `STEM1`, … that `fits` accepts.
pub(crate) fn names(stem: &str, count: usize, fits: impl Fn(&str) -> bool) -> Vec<Namespace> {
    let names = (0_u32..).map(|number| format!("{stem}{number}"));
    names.filter(|name| fits(name)).take(count).map(|name| ns(&name)).collect()
}
