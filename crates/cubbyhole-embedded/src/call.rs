//! How every call begins.

use cubbyhole_core::runtime::{cooperate, require_runtime, require_timers};
use cubbyhole_core::{ExecutionContext, Result, ResultExt};

/// Cooperates with the runtime, which must be there, and refuses a context that has ended. Timers
/// are needed for a deadline alone.
pub(crate) async fn begin(ctx: &ExecutionContext, operation: &'static str) -> Result<()> {
    cooperate().await;
    let needed = if ctx.deadline().is_some() { require_timers() } else { require_runtime() };
    needed.and_then(|()| ctx.check()).in_operation(operation)
}
