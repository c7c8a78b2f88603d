//! Values: `get` returns every value that `put` accepted unchanged.

use cubbyhole_core::{Batch, Condition, PutOptions, ScanOptions};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq};
use crate::world::World;

cases! {
    /// Values that codecs and engines are likely to damage are returned unchanged.
    #[case(tenant, core)]
    async fn awkward_values_are_returned_unchanged<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["values"])?;
        for (index, value) in awkward(w)?.into_iter().enumerate() {
            let key = format!("v{index}");
            w.store().put(w.ctx(), &ns, &key, value.clone()).await?;
            let read = w.get(&ns, &key).await?;
            check!(read.as_ref() == Some(&value), "get returns the awkward value {index} changed");
        }
        Ok(())
    }

    /// Every method that reads returns the same value.
    #[case(tenant, entry)]
    async fn every_read_method_returns_the_same_value<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["values"])?;
        for (index, value) in awkward(w)?.into_iter().enumerate() {
            let (options, always) = (PutOptions::new(), Condition::Always);
            w.store().put_entry(w.ctx(), &ns, "k", value.clone(), options, always).await?;
            check!(
                w.live(&ns, "k").await?.value == value,
                "get_entry returns the awkward value {index} changed"
            );
            let many = w.get_many(&ns, &["k"]).await?;
            let many = many.into_iter().next().transpose()?.flatten();
            check!(
                many.map(|entry| entry.value).as_ref() == Some(&value),
                "get_many returns the awkward value {index} changed"
            );
            let page = w.page(&ns, ScanOptions::new()).await?;
            let item = page.items.into_iter().next().and_then(|item| item.value).transpose()?;
            check!(item.as_ref() == Some(&value), "scan returns the awkward value {index} changed");
            let taken = w.store().take(w.ctx(), &ns, "k").await?;
            check!(
                taken.map(|entry| entry.value).as_ref() == Some(&value),
                "take returns the awkward value {index} changed"
            );
        }
        Ok(())
    }

    /// A batch stores values unchanged.
    #[case(tenant, entry)]
    async fn batch_keeps_awkward_values<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["values"])?;
        let values = awkward(w)?;
        let batch = (values.iter().cloned().enumerate())
            .fold(Batch::new(), |batch, (index, value)| batch.put(format!("v{index}"), value));
        w.store().write(w.ctx(), &ns, batch).await?;
        for (index, value) in values.iter().enumerate() {
            let read = w.get(&ns, &format!("v{index}")).await?;
            check!(
                read.as_ref() == Some(value),
                "get returns the awkward value {index} of the batch changed"
            );
        }
        Ok(())
    }

    /// A shorter value replaces a longer one completely.
    #[case(tenant, core)]
    async fn shorter_value_replaces_longer_value<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["values"])?;
        for bytes in [300_000, 1_000, 70_000, 500] {
            let value = w.sized(bytes)?;
            w.store().put(w.ctx(), &ns, "k", value.clone()).await?;
            check!(
                w.get(&ns, "k").await? == Some(value),
                "get returns another value than the last one, of {bytes} bytes"
            );
        }
        w.put(&ns, "k", 1).await?;
        check_eq!(w.number(&ns, "k").await?, Some(1), "the last value");
        Ok(())
    }
}

fn awkward<V: Sample>(w: &World<V>) -> Outcome<Vec<V>> {
    let values = V::awkward();
    match values.is_empty() {
        _ if !w.can().keeps_any_value => {
            Err(Stop::ignored("the store accepts only some values of its type"))
        }
        true => Err(Stop::ignored("the value type has no awkward values: `Sample::awkward`")),
        false => Ok(values),
    }
}
