//! Limits, each at its last legal value and one past it, with names that do not compress.

use cubbyhole_core::limits::{MAX_KEY_BYTES, MAX_NAMESPACE_BYTES};
use cubbyhole_core::{Condition, ErrorKind, Namespace, PutOptions, ScanOptions};

use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::Sample;
use crate::world::World;

cases! {
    /// A key of 1,024 bytes is accepted. A key of 1,025 bytes is rejected, and nothing is written.
    #[case(tenant, core)]
    async fn key_of_1025_bytes_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for wide in [false, true] {
            let key = incompressible(MAX_KEY_BYTES, wide);
            w.put(&ns, &key, 1).await?;
            check_eq!(w.number(&ns, &key).await?, Some(1), "a key at the limit");
            check!(w.list(&ns, Some(&key)).await? == [key.clone()], "its own prefix");
            w.delete(&ns, &key).await?;
            let invalid = ErrorKind::InvalidArgument;
            let key = format!("{key}x");
            refused(w.put(&ns, &key, 1).await, invalid, "put past the limit")?;
            refused(w.get(&ns, &key).await, invalid, "get past the limit")?;
            refused(w.delete(&ns, &key).await, invalid, "delete past the limit")?;
            refused(w.list(&ns, Some(&key)).await, invalid, "a prefix past the limit")?;
        }
        check_eq!(w.list(&ns, None).await?, [""; 0], "nothing is written");
        Ok(())
    }

    /// A namespace of 1,024 bytes is accepted, and a longer one cannot be created.
    #[case(tenant, core)]
    async fn namespace_of_1025_bytes_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        for wide in [false, true] {
            let ns = longest(w, wide)?;
            check_eq!(ns.as_str().len(), MAX_NAMESPACE_BYTES, "as long as can be");
            w.put(&ns, "k", 1).await?;
            check_eq!(w.number(&ns, "k").await?, Some(1), "an entry in it");
            check_eq!(w.list(&ns, None).await?, ["k"], "its keys");
            refused(ns.with_scope(""), ErrorKind::InvalidArgument, "one byte more")?;
        }
        Ok(())
    }

    /// The longest key in the longest namespace works like any other.
    #[case(tenant, core)]
    async fn longest_key_in_longest_namespace_works<V: Sample>(w: &World<V>) -> Outcome {
        for wide in [false, true] {
            let (ns, key) = (longest(w, wide)?, incompressible(MAX_KEY_BYTES, wide));
            w.put_for(&ns, &key, 1, w.long()).await?;
            w.put(&ns, &key, 2).await?;
            check_eq!(w.number(&ns, &key).await?, Some(2), "overwritten");
            check!(w.list(&ns, None).await? == [key.clone()], "listed");
            if w.can().lists_namespaces {
                check!(w.namespaces(&ns.clone().into()).await? == [ns.clone()], "enumerated");
            }
            w.delete(&ns, &key).await?;
            check_eq!(w.get(&ns, &key).await?, None, "deleted");
        }
        Ok(())
    }

    /// Escapes count towards the length of a namespace.
    #[case(tenant, core)]
    async fn escapes_count_towards_namespace_length<V: Sample>(w: &World<V>) -> Outcome {
        let room = MAX_NAMESPACE_BYTES - w.ns(&[""])?.as_str().len();
        let segment = ":".repeat(room / 2);
        let ns = w.ns(&[&segment])?;
        w.put(&ns, "k", 1).await?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "colons, each of them escaped");
        let longer = w.ns(&[&format!("{segment}:")]);
        refused(longer, ErrorKind::InvalidArgument, "one colon more")?;
        Ok(())
    }

    /// `EntryStore` has the same limit for keys, and writes nothing over it.
    #[case(tenant, entry)]
    async fn entry_calls_have_the_same_key_limit<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let key = incompressible(MAX_KEY_BYTES, false);
        let (none, always) = (PutOptions::new(), Condition::Always);
        let version = w.put_entry(&ns, &key, 1, none, always).await?;
        check_eq!(w.live(&ns, &key).await?.meta.version, version, "at the limit");
        let items = w.pages(&ns, ScanOptions::new().with_prefix(&*key)).await?;
        check_eq!(items.len(), 1, "a prefix at the limit");
        let items = w.pages(&ns, ScanOptions::new().with_after(&*key)).await?;
        check_eq!(items.len(), 0, "an `after` at the limit");
        check!(w.store().take(w.ctx(), &ns, &key).await?.is_some(), "take at the limit");
        let put = w.put_entry(&ns, &format!("{key}x"), 1, none, always).await;
        refused(put, ErrorKind::InvalidArgument, "one past it")?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "nothing is written");
        Ok(())
    }

    /// A value of the maximum size is accepted. One more byte is rejected, and nothing is written.
    #[case(tenant, core)]
    async fn value_over_the_limit_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let limit = w.needs_value_limit()?;
        let ns = w.ns(&["a"])?;
        let largest = w.sized(limit)?;
        w.store().put(w.ctx(), &ns, "k", largest.clone()).await?;
        check!(w.get(&ns, "k").await?.as_ref() == Some(&largest), "it comes back different");
        let put = w.store().put(w.ctx(), &ns, "k", w.sized(limit + 1)?).await;
        let error = refused(put, ErrorKind::InvalidArgument, "one byte more, over an entry")?;
        check!(error.message().contains(&limit.to_string()), "the limit is not named: {error}");
        check!(w.get(&ns, "k").await? == Some(largest), "the entry is not as it was");
        let put = w.store().put(w.ctx(), &ns, "new", w.sized(limit + 1)?).await;
        refused(put, ErrorKind::InvalidArgument, "one byte more")?;
        check_eq!(w.list(&ns, None).await?, ["k"], "nothing is written");
        w.delete(&ns, "k").await?;
        Ok(())
    }

    /// `put_entry` and batches have the same limit for values.
    #[case(tenant, entry)]
    async fn entry_calls_reject_value_over_the_limit<V: Sample>(w: &World<V>) -> Outcome {
        let past = w.needs_value_limit()? + 1;
        let ns = w.ns(&["a"])?;
        let (none, always) = (PutOptions::new(), Condition::Always);
        let put = w.store().put_entry(w.ctx(), &ns, "k", w.sized(past)?, none, always).await;
        refused(put, ErrorKind::InvalidArgument, "put_entry")?;
        let batch = cubbyhole_core::Batch::new().put("j", V::sample(1)).put("k", w.sized(past)?);
        refused(w.store().write(w.ctx(), &ns, batch).await, ErrorKind::InvalidArgument, "write")?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "nothing is written");
        Ok(())
    }
}

/// Text of exactly that many bytes that looks random: printable ASCII, or characters of up to four
/// bytes.
fn incompressible(bytes: usize, wide: bool) -> String {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        let room = bytes - text.len();
        let c = if wide && room >= 4 {
            char::from_u32(random.u32(0x80..0x11_0000)).unwrap_or('x')
        } else {
            char::from(random.u8(b'!'..=b'~'))
        };
        text.push(c);
    }
    text
}

/// A namespace of the case's tenant that is as long as can be.
fn longest<V: Sample>(w: &World<V>, wide: bool) -> cubbyhole_core::Result<Namespace> {
    let room = MAX_NAMESPACE_BYTES - w.ns(&[""])?.as_str().len();
    // Escapes would make it longer.
    let segment = incompressible(room, wide).replace([':', '\\'], ".");
    w.ns(&[&segment])
}
