//! A closed store rejects every call.

use cubbyhole_core::ErrorKind;

use crate::Sample;
use crate::calls::MethodCall;
use crate::case::cases;
use crate::outcome::{Outcome, check, refused};
use crate::world::World;

cases! {
    /// A closed store returns `InvalidArgument` from every method of `Store`.
    #[case(tenant, core)]
    async fn core_calls_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let closed = w.closed().await?;
        all_rejected(closed.core()).await?;
        all_rejected(closed.core_rejected()).await
    }

    /// A closed store returns `InvalidArgument` from every method of `EntryStore`, even for empty
    /// input.
    #[case(tenant, entry)]
    async fn entry_calls_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let closed = w.closed().await?;
        let mut calls = closed.entries();
        calls.push(closed.tenants());
        calls.extend(closed.entries_rejected());
        // A store that never lists tenants need not find out whether it is closed.
        calls.retain(|call| w.can().sees_tenants || !call.name.starts_with("scan_tenants"));
        all_rejected(calls).await
    }
}

async fn all_rejected(calls: Vec<MethodCall<'_>>) -> Outcome {
    for call in calls {
        let error = refused(call.make().await, ErrorKind::InvalidArgument, call.name)?;
        check!(
            !error.may_have_been_applied(),
            "`{}` on a closed store must have no effect, but says that it may have been applied",
            call.name
        );
    }
    Ok(())
}
