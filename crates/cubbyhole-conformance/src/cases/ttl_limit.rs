//! A TTL that overflows is rejected, whether the key exists or not. Only the store's clock can tell
//! that it ends after the year 9999.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, ErrorKind, Expiry, GetOptions, PutOptions, Timestamp, Version,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check_eq, refused};
use crate::world::World;

cases! {
    /// A put is rejected if its TTL overflows, whether the key exists or not.
    #[case(tenant, core)]
    async fn put_with_overflowing_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        for key in ["k", "absent"] {
            let put = w.put_for(&ns, key, 2, too_long()?).await;
            refused(put, ErrorKind::InvalidArgument, key)?;
        }
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected calls");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }

    /// A put whose TTL overflows is `InvalidArgument` even if its condition does not hold.
    #[case(tenant, entry)]
    async fn put_checks_ttl_before_condition<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let before = w.live(&ns, "k").await?;
        let options = PutOptions::new().with_ttl(too_long()?);
        let other = Condition::IfVersion(Version::draw());
        for (key, condition) in
            [("k", Condition::IfAbsent), ("k", other), ("absent", other), ("k", Condition::Always)]
        {
            let put = w.put_entry(&ns, key, 2, options, condition).await;
            refused(put, ErrorKind::InvalidArgument, "put_entry")?;
        }
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the rejected calls");
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected calls");
        Ok(())
    }

    /// A batch with a TTL that overflows is `InvalidArgument` even if a condition of any operation
    /// does not hold.
    #[case(tenant, entry)]
    async fn batch_checks_ttls_before_conditions<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["j", "k"]).await?;
        let options = PutOptions::new().with_ttl(too_long()?);
        let lost = || Batch::new().delete_if("j", Condition::IfVersion(Version::draw()));
        let late =
            |batch: Batch<V>, condition| batch.put_with("k", V::sample(2), options, condition);
        let batches = [
            late(Batch::new(), Condition::Always),
            late(Batch::new(), Condition::IfAbsent),
            late(lost(), Condition::Always),
            late(Batch::new().put("new", V::sample(2)), Condition::Always),
            late(Batch::new(), Condition::Always)
                .delete_if("j", Condition::IfVersion(Version::draw())),
        ];
        for batch in batches {
            let written = w.store().write(w.ctx(), &ns, batch).await;
            refused(written, ErrorKind::InvalidArgument, "write")?;
        }
        check_eq!(w.list(&ns, None).await?, ["j", "k"], "the keys after the rejected calls");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the rejected calls");
        Ok(())
    }

    /// `touch` is rejected if the TTL overflows, whether the key exists or not.
    #[case(tenant, entry)]
    async fn touch_with_overflowing_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        for key in ["k", "absent"] {
            let touched = w.touch(&ns, key, Expiry::After(too_long()?)).await;
            refused(touched, ErrorKind::InvalidArgument, key)?;
        }
        check_eq!(
            w.live(&ns, "k").await?.meta.expires_at,
            None,
            "the entry after the rejected calls"
        );
        Ok(())
    }

    /// A sliding read is rejected if the TTL overflows, even if the key is absent or has no TTL.
    #[case(tenant, entry)]
    async fn sliding_read_with_overflowing_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        w.put_for(&ns, "expiring", 1, w.long()).await?;
        let before = w.live(&ns, "expiring").await?;
        let options = GetOptions::new().with_extended_ttl(too_long()?);
        for key in ["k", "expiring", "absent"] {
            let read = w.store().get_entry(w.ctx(), &ns, key, options).await;
            refused(read, ErrorKind::InvalidArgument, key)?;
        }
        check_eq!(w.live(&ns, "expiring").await?, before, "the entry after the rejected calls");
        Ok(())
    }
}

/// Returns the longest TTL that only the store's clock can reject. It overflows at any time after
/// the first millisecond of 1970.
fn too_long() -> Outcome<Duration> {
    let ttl = Timestamp::MAX.saturating_since(Timestamp::EPOCH);
    Expiry::After(ttl)
        .check()
        .map_err(|error| Stop::unexpected(error, "the TTL must be valid without a clock"))?;
    Ok(ttl)
}
