//! Limits, tested at the last valid value and one above it, with names that do not compress.

use cubbyhole_core::limits::{MAX_KEY_BYTES, MAX_NAMESPACE_BYTES};
use cubbyhole_core::{Condition, ErrorKind, Namespace, PutOptions, ScanOptions};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// A key of 1,024 bytes is accepted. A key of 1,025 bytes is rejected, and nothing is written.
    #[case(tenant, core)]
    async fn key_of_1025_bytes_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for wide in [false, true] {
            let key = incompressible(MAX_KEY_BYTES, wide);
            w.put(&ns, &key, 1).await?;
            check_eq!(w.number(&ns, &key).await?, Some(1), "the value of a key of 1,024 bytes");
            check!(
                w.list(&ns, Some(&key)).await? == [key.clone()],
                "list with a prefix of 1,024 bytes must return its key"
            );
            w.delete(&ns, &key).await?;
            let invalid = ErrorKind::InvalidArgument;
            let key = format!("{key}x");
            refused(w.put(&ns, &key, 1).await, invalid, "put with a key of 1,025 bytes")?;
            refused(w.get(&ns, &key).await, invalid, "get with a key of 1,025 bytes")?;
            refused(w.delete(&ns, &key).await, invalid, "delete with a key of 1,025 bytes")?;
            refused(w.list(&ns, Some(&key)).await, invalid, "list with a prefix of 1,025 bytes")?;
        }
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected call");
        Ok(())
    }

    /// A namespace of 1,024 bytes is accepted, and a longer one cannot be created.
    #[case(tenant, core)]
    async fn namespace_of_1025_bytes_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        for wide in [false, true] {
            let ns = longest(w, wide)?;
            let limit = w.can().max_namespace_bytes;
            check_eq!(ns.as_str().len(), limit, "the length of the namespace");
            w.put(&ns, "k", 1).await?;
            check_eq!(w.number(&ns, "k").await?, Some(1), "the value in the longest namespace");
            check_eq!(w.list(&ns, None).await?, ["k"], "the keys of the longest namespace");
            refuse_longer(w, ns.with_scope("")).await?;
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
            check_eq!(w.number(&ns, &key).await?, Some(2), "the value after it was overwritten");
            check!(w.list(&ns, None).await? == [key.clone()], "list must return the longest key");
            if w.can().lists_namespaces {
                check!(
                    w.namespaces(&ns.clone().into()).await? == [ns.clone()],
                    "list_namespaces must return the longest namespace"
                );
            }
            w.delete(&ns, &key).await?;
            check_eq!(w.get(&ns, &key).await?, None, "get after the delete");
        }
        Ok(())
    }

    /// Escapes count towards the length of a namespace.
    #[case(tenant, core)]
    async fn escapes_count_towards_namespace_length<V: Sample>(w: &World<V>) -> Outcome {
        let room = w.can().max_namespace_bytes - w.ns(&[""])?.as_str().len();
        let segment = ":".repeat(room / 2);
        let ns = w.ns(&[&segment])?;
        w.put(&ns, "k", 1).await?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value in a namespace of escaped colons");
        let longer = w.ns(&[&format!("{segment}:")]);
        refuse_longer(w, longer).await
    }

    /// `EntryStore` has the same limit for keys, and writes nothing over it.
    #[case(tenant, entry)]
    async fn entry_calls_have_the_same_key_limit<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let key = incompressible(MAX_KEY_BYTES, false);
        let (none, always) = (PutOptions::new(), Condition::Always);
        let version = w.put_entry(&ns, &key, 1, none, always).await?;
        check_eq!(
            w.live(&ns, &key).await?.meta.version,
            version,
            "the version of a key of 1,024 bytes"
        );
        let items = w.pages(&ns, ScanOptions::new().with_prefix(&*key)).await?;
        check_eq!(items.len(), 1, "the number of items with a prefix of 1,024 bytes");
        let items = w.pages(&ns, ScanOptions::new().with_after(&*key)).await?;
        check_eq!(items.len(), 0, "the number of items with an `after` of 1,024 bytes");
        check!(
            w.store().take(w.ctx(), &ns, &key).await?.is_some(),
            "take with a key of 1,024 bytes must return the entry"
        );
        let put = w.put_entry(&ns, &format!("{key}x"), 1, none, always).await;
        refused(put, ErrorKind::InvalidArgument, "put_entry with a key of 1,025 bytes")?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected call");
        Ok(())
    }

    /// A value of the maximum size is accepted. One more byte is rejected, and nothing is written.
    #[case(tenant, core)]
    async fn value_over_the_limit_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let limit = w.needs_value_limit()?;
        let ns = w.ns(&["a"])?;
        let largest = w.sized(limit)?;
        w.store().put(w.ctx(), &ns, "k", largest.clone()).await?;
        check!(
            w.get(&ns, "k").await?.as_ref() == Some(&largest),
            "a value of the maximum size is returned changed"
        );
        let put = w.store().put(w.ctx(), &ns, "k", w.sized(limit + 1)?).await;
        let error = refused(
            put,
            ErrorKind::InvalidArgument,
            "put of a value over the limit to an existing key",
        )?;
        check!(
            error.message().contains(&limit.to_string()),
            "the error must name the limit: {error}"
        );
        check!(w.get(&ns, "k").await? == Some(largest), "the rejected put changed the entry");
        let put = w.store().put(w.ctx(), &ns, "new", w.sized(limit + 1)?).await;
        refused(
            put,
            ErrorKind::InvalidArgument,
            "a name or value that is one byte over the limit",
        )?;
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected call");
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
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected call");
        Ok(())
    }
}

/// Returns random text of exactly this number of bytes: printable ASCII, or characters of up to
/// four bytes.
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

/// Checks that a namespace past the limit is rejected: when it is created, or by a store with a lower
/// limit.
async fn refuse_longer<V: Sample>(
    w: &World<V>,
    longer: cubbyhole_core::Result<Namespace>,
) -> Outcome {
    let what = "a namespace past the limit";
    if w.can().max_namespace_bytes == MAX_NAMESPACE_BYTES {
        refused(longer, ErrorKind::InvalidArgument, what)?;
        return Ok(());
    }
    let longer = longer?;
    refused(w.put(&longer, "k", 1).await, ErrorKind::InvalidArgument, what)?;
    refused(w.list(&longer, None).await, ErrorKind::InvalidArgument, what)?;
    Ok(())
}

/// Returns a namespace of the case's tenant with the maximum length.
fn longest<V: Sample>(w: &World<V>, wide: bool) -> cubbyhole_core::Result<Namespace> {
    let room = w.can().max_namespace_bytes - w.ns(&[""])?.as_str().len();
    // Characters that need an escape would make it longer.
    let segment = incompressible(room, wide).replace([':', '\\'], ".");
    w.ns(&[&segment])
}
