//! The first step of every call.

use cubbyhole_core::runtime::{cooperate, require_runtime, require_timers};
use cubbyhole_core::{ExecutionContext, Result, ResultExt};

/// Yields to the runtime if its budget is used up, and checks the runtime and the context. Fails if
/// the context has ended, there is no runtime, or the context has a deadline and the runtime no
/// timers.
pub(crate) async fn begin(ctx: &ExecutionContext, operation: &'static str) -> Result<()> {
    cooperate().await;
    let needed = if ctx.deadline().is_some() { require_timers() } else { require_runtime() };
    needed.and_then(|()| ctx.check()).in_operation(operation)
}
