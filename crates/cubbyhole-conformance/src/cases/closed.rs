//! A closed store refuses every call.

use cubbyhole_core::ErrorKind;

use crate::calls::MethodCall;
use crate::case::cases;
use crate::outcome::{Outcome, check, refused};
use crate::Sample;
use crate::world::World;

cases! {
    /// A closed store returns `InvalidArgument` from every method of `Store`.
    #[case(tenant, core)]
    async fn core_calls_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let closed = w.closed().await?;
        all_refused(closed.core()).await?;
        all_refused(closed.core_refused()).await
    }

    /// A closed store returns `InvalidArgument` from every method of `EntryStore`, even for empty
    /// input.
    #[case(tenant, entry)]
    async fn entry_calls_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let closed = w.closed().await?;
        all_refused(closed.entries()).await?;
        all_refused(vec![closed.tenants()]).await?;
        all_refused(closed.entries_refused()).await
    }
}

async fn all_refused(calls: Vec<MethodCall<'_>>) -> Outcome {
    for call in calls {
        let error = refused(call.make().await, ErrorKind::InvalidArgument, call.name)?;
        check!(!error.may_have_been_applied(), "`{}` may have been applied", call.name);
    }
    Ok(())
}
