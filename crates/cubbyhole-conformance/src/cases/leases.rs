//! Conditions of `touch`: a holder extends a lease only while it still holds it.

use std::time::Duration;

use cubbyhole_core::{
    Condition, Error, ErrorKind, Expiry, Namespace, PutOptions, Result, Timestamp, Version,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// A touch at the version of a held lease extends it, repeatedly.
    #[case(tenant, entry)]
    async fn held_lease_is_extended<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let version = acquire(w, &ns, w.long()).await?;
        for times in 2..4 {
            let before = w.live(&ns, "lease").await?.meta;
            let expiry = Expiry::After(w.long() * times);
            check!(touch(w, &ns, expiry, version).await?, "touch must return true");
            let after = w.live(&ns, "lease").await?.meta;
            check!(after.expires_at > before.expires_at, "the lease is not extended: {after:?}");
            check_eq!(after.version, version, "the version after the touch");
        }
        check!(touch(w, &ns, Expiry::Never, version).await?, "touch must return true");
        check_eq!(w.live(&ns, "lease").await?.meta.expires_at, None, "expires_at");
        Ok(())
    }

    /// A touch at the version of a lease that another holder has taken over is a conflict with the
    /// current version. It changes nothing.
    #[case(tenant, entry)]
    async fn lost_lease_is_a_conflict<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let lost = acquire(w, &ns, w.long()).await?;
        let current = w.put_entry(&ns, "lease", 2, PutOptions::new(), Condition::Always).await?;
        let before = w.live(&ns, "lease").await?;
        for version in [lost, Version::draw()] {
            for expiry in [Expiry::After(w.long()), Expiry::Never, Expiry::At(Timestamp::EPOCH)] {
                let touched = touch(w, &ns, expiry, version).await;
                let error = refused(touched, ErrorKind::Conflict, "a touch of a lost lease")?;
                check_eq!(error.current_version(), Some(current), "the version in the conflict");
                check_eq!(error.operation(), Some("touch"), "the operation in the error");
                check!(
                    !error.may_have_been_applied() && !error.is_retryable(),
                    "a conflict must have no effect and must not be retryable: {error:?}"
                );
            }
        }
        check_eq!(w.live(&ns, "lease").await?, before, "the entry after the conflicts");
        Ok(())
    }

    /// A touch at the version of an absent or expired lease is a conflict without a version. It
    /// revives nothing.
    #[case(tenant, entry)]
    async fn ended_lease_is_a_conflict<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let deleted = acquire(w, &ns, w.long()).await?;
        w.delete(&ns, "lease").await?;
        let ended = |touched| -> Outcome {
            let error = refused(touched, ErrorKind::Conflict, "a touch of an ended lease")?;
            check_eq!(error.current_version(), None, "the version in the conflict");
            Ok(())
        };
        ended(touch(w, &ns, Expiry::Never, deleted).await)?;
        let expired = w.put_expired(&ns, "lease").await?;
        ended(touch(w, &ns, Expiry::Never, expired).await)?;
        ended(touch(w, &ns, Expiry::After(w.long()), expired).await)?;
        check_eq!(w.get(&ns, "lease").await?, None, "get after the conflicts");
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the conflicts");
        Ok(())
    }

    /// A lease is extended until one millisecond before its expiry, and not at its expiry.
    #[case(time, entry)]
    async fn lease_ends_exactly_at_its_expiry<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_exact_clock()?;
        let ns = w.ns(&["a"])?;
        let ttl = Duration::from_millis(100);
        let version = acquire(w, &ns, ttl).await?;
        for _ in 0..3 {
            w.advance_millis(99).await;
            check!(touch(w, &ns, Expiry::After(ttl), version).await?, "before the expiry");
        }
        w.advance_millis(100).await;
        let touched = touch(w, &ns, Expiry::After(ttl), version).await;
        refused(touched, ErrorKind::Conflict, "a touch at the expiry")?;
        check_eq!(w.get(&ns, "lease").await?, None, "get after the conflict");
        Ok(())
    }

    /// A touch if absent returns `false` for an absent or expired entry, and is a conflict for a
    /// live one.
    #[case(tenant, entry)]
    async fn touch_if_absent_never_extends<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let (absent, day) = (Condition::IfAbsent, Expiry::After(w.long()));
        check!(!w.store().touch(w.ctx(), &ns, "lease", day, absent).await?, "an absent entry");
        w.put_expired(&ns, "lease").await?;
        check!(!w.store().touch(w.ctx(), &ns, "lease", day, absent).await?, "an expired entry");
        check_eq!(w.get(&ns, "lease").await?, None, "get after the touches");
        let version = acquire(w, &ns, w.long()).await?;
        let before = w.live(&ns, "lease").await?;
        let touched = w.store().touch(w.ctx(), &ns, "lease", Expiry::Never, absent).await;
        let error = refused(touched, ErrorKind::Conflict, "a touch if absent of a live entry")?;
        check_eq!(error.current_version(), Some(version), "the version in the conflict");
        check_eq!(w.live(&ns, "lease").await?, before, "the entry after the conflict");
        Ok(())
    }

    /// An invalid TTL or key is reported before a condition that does not hold.
    #[case(tenant, entry)]
    async fn arguments_are_checked_before_the_condition<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        acquire(w, &ns, w.long()).await?;
        let before = w.live(&ns, "lease").await?;
        let (stale, invalid) = (Version::draw(), ErrorKind::InvalidArgument);
        let too_long = Timestamp::MAX.saturating_since(Timestamp::EPOCH);
        for ttl in [Duration::ZERO, Duration::MAX, too_long] {
            let touched = touch(w, &ns, Expiry::After(ttl), stale).await;
            refused(touched, invalid, format_args!("a TTL of {ttl:?}"))?;
        }
        let stale = Condition::IfVersion(stale);
        let touched = w.store().touch(w.ctx(), &ns, "\0", Expiry::Never, stale).await;
        refused(touched, invalid, "an invalid key")?;
        check_eq!(w.live(&ns, "lease").await?, before, "the entry after the rejected calls");
        Ok(())
    }

    /// While a lease changes hands, a holder that no longer holds it never extends it.
    #[case(tenant, entry)]
    async fn concurrent_holders_extend_only_their_own_lease<V: Sample>(w: &World<V>) -> Outcome {
        let results = w
            .at_once(4, |task, w| async move {
                let ns = w.ns(&["a"])?;
                let mut mine = None;
                for round in 0..20 {
                    let number = (task * 100 + round) as u64;
                    if round % 4 == 0 {
                        let put = PutOptions::new().with_ttl(w.long());
                        let version =
                            w.put_entry(&ns, "lease", number, put, Condition::Always).await?;
                        mine = Some(version);
                    }
                    let Some(version) = mine else { continue };
                    match touch(&w, &ns, Expiry::Idle(w.long()), version).await {
                        Ok(found) => check!(found, "touch at a version must not return false"),
                        Err(error) => {
                            let current = conflict(error)?;
                            check!(
                                current.is_some_and(|current| current != version),
                                "a conflict has the version {current:?}, but ours is {version}"
                            );
                            mine = None;
                        }
                    }
                }
                Ok(())
            })
            .await?;
        results.into_iter().collect()
    }
}

async fn acquire<V: Sample>(w: &World<V>, ns: &Namespace, ttl: Duration) -> Result<Version> {
    let options = PutOptions::new().with_ttl(ttl);
    w.put_entry(ns, "lease", 1, options, Condition::IfAbsent).await
}

async fn touch<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    expiry: Expiry,
    version: Version,
) -> Result<bool> {
    w.store().touch(w.ctx(), ns, "lease", expiry, Condition::IfVersion(version)).await
}

/// Returns the version in a conflict.
fn conflict(error: Error) -> Outcome<Option<Version>> {
    let error = refused::<()>(Err(error), ErrorKind::Conflict, "a touch of a lost lease")?;
    Ok(error.current_version())
}
