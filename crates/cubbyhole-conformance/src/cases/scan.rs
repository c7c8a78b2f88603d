//! `scan`: returns entries page by page.

use cubbyhole_core::limits::{MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use cubbyhole_core::{ErrorKind, Namespace, ScanItem, ScanOptions};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;
use crate::world::number_of;

const KEYS: [&str; 9] = ["", "a", "a%", "aa", "ab", "b", "ba", "c", "\u{10ffff}"];

cases! {
    /// A scan of an empty namespace returns one empty page.
    #[case(tenant, entry)]
    async fn empty_namespace_is_one_empty_page<V: Sample>(w: &World<V>) -> Outcome {
        let page = w.page(&w.ns(&["a"])?, ScanOptions::new()).await?;
        check_eq!((page.items.len(), page.next), (0, None), "the number of items and `next`");
        Ok(())
    }

    /// Pages of every size return each entry once, in byte order.
    #[case(tenant, entry)]
    async fn pages_of_every_size_return_each_key_once<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for limit in 1..=KEYS.len() + 2 {
            let items = w.pages(&ns, ScanOptions::new().with_limit(limit)).await?;
            check_eq!(keys(&items), KEYS, "the keys on pages of {limit}");
        }
        Ok(())
    }

    /// The last page has no `next`.
    #[case(tenant, entry)]
    async fn last_page_has_no_next<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        let page = w.page(&ns, ScanOptions::new().with_limit(2)).await?;
        check!(page.next.is_some(), "the page must have a `next`, because there is another entry");
        let page = w.page(&ns, ScanOptions::new().with_after("c")).await?;
        check_eq!(
            (page.items.len(), page.next),
            (0, None),
            "the number of items and `next` after the last key"
        );
        let page = w.page(&ns, ScanOptions::new().with_limit(1000)).await?;
        check_eq!(
            (page.items.len(), page.next),
            (3, None),
            "the number of items and `next` of a page with room for all"
        );
        Ok(())
    }

    /// An item has the key and the complete entry.
    #[case(tenant, entry)]
    async fn item_is_the_whole_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "a", 1).await?;
        w.put_for(&ns, "b", 2, w.long()).await?;
        for item in w.pages(&ns, ScanOptions::new()).await? {
            let key = item.key.clone();
            let Some(entry) = item.into_entry() else {
                return Err(Stop::failed("an item has no value"));
            };
            check_eq!(
                entry?,
                w.live(&ns, &key).await?,
                "the entry of {key}, compared with get_entry"
            );
        }
        Ok(())
    }

    /// A scan of keys only returns everything except the values.
    #[case(tenant, entry)]
    async fn keys_only_returns_no_values<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        let items = w.pages(&ns, ScanOptions::new().keys_only().with_limit(4)).await?;
        check_eq!(keys(&items), KEYS, "the keys");
        for item in items {
            check!(
                item.value.is_none(),
                "the item {:?} of a scan of keys only has a value",
                item.key
            );
            check_eq!(item.meta, w.live(&ns, &item.key).await?.meta, "the metadata of the item");
        }
        Ok(())
    }

    /// If the store knows the size of values, items have it, with or without values.
    #[case(tenant, entry)]
    async fn items_have_the_length_of_values<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_value_sizes()?;
        let ns = w.ns(&["a"])?;
        for (key, bytes) in [("a", 500), ("b", 5_000)] {
            w.store().put(w.ctx(), &ns, key, w.sized(bytes)?).await?;
        }
        for options in [ScanOptions::new(), ScanOptions::new().keys_only()] {
            let items = w.pages(&ns, options).await?;
            let lengths: Vec<_> = items.iter().map(|item| item.value_bytes).collect();
            check_eq!(lengths, [Some(500), Some(5_000)], "the lengths of the values");
        }
        Ok(())
    }

    /// A prefix selects keys, on every page.
    #[case(tenant, entry)]
    async fn prefix_selects_keys_on_every_page<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for prefix in ["", "a", "a%", "b", "ba", "x", "\u{10ffff}", "a\u{10ffff}"] {
            let expected: Vec<_> = KEYS.into_iter().filter(|key| key.starts_with(prefix)).collect();
            for limit in [1, 2, 100] {
                let options = ScanOptions::new().with_prefix(prefix).with_limit(limit);
                let items = w.pages(&ns, options).await?;
                check_eq!(
                    keys(&items),
                    expected,
                    "the keys with the prefix {prefix:?}, on pages of {limit}"
                );
            }
        }
        Ok(())
    }

    /// `after` excludes the key that it names. That key need not exist.
    #[case(tenant, entry)]
    async fn after_may_name_absent_key<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for after in ["", "!", "a", "a$", "a%", "aaa", "b", "bzzz", "c", "\u{10ffff}", "d%_"] {
            let expected: Vec<_> = KEYS.into_iter().filter(|key| *key > after).collect();
            let items = w.pages(&ns, ScanOptions::new().with_after(after).with_limit(2)).await?;
            check_eq!(keys(&items), expected, "the keys after {after:?}");
        }
        Ok(())
    }

    /// With `after` and a prefix, the scan returns the keys that satisfy both, for any `after`.
    #[case(tenant, entry)]
    async fn after_and_prefix_combine<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for prefix in ["", "a", "b", "x"] {
            for after in ["", "a", "aa", "b", "c", "\u{10ffff}"] {
                let expected: Vec<_> = KEYS
                    .into_iter()
                    .filter(|key| key.starts_with(prefix) && *key > after)
                    .collect();
                let options = ScanOptions::new().with_prefix(prefix).with_after(after);
                let items = w.pages(&ns, options.with_limit(1)).await?;
                check_eq!(
                    keys(&items),
                    expected,
                    "the keys with the prefix {prefix:?} after {after:?}"
                );
            }
        }
        Ok(())
    }

    /// A limit of 0 or more than 1,000 is rejected. So are NUL and too many bytes in a prefix or in
    /// `after`.
    #[case(tenant, entry)]
    async fn invalid_options_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let long = "x".repeat(1025);
        let options = ScanOptions::new;
        let bad = [
            ("a limit of 0", options().with_limit(0)),
            ("a limit of 1001", options().with_limit(MAX_PAGE_ITEMS + 1)),
            ("a huge limit", options().with_limit(usize::MAX)),
            ("NUL in the prefix", options().with_prefix("a\0")),
            ("NUL in after", options().with_after("a\0")),
            ("a long prefix", options().with_prefix(long.clone())),
            ("a long after", options().with_after(long)),
        ];
        for (what, options) in bad {
            refused(w.page(&ns, options).await, ErrorKind::InvalidArgument, what)?;
        }
        Ok(())
    }

    /// A page has up to 1,000 items, and the next page has the rest.
    #[case(tenant, entry)]
    async fn page_has_up_to_1000_items<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for batch in 0..3 {
            let numbers = batch * 400..(batch + 1) * 400;
            let batch = numbers.fold(cubbyhole_core::Batch::new(), |batch, number| {
                batch.put(format!("{number:04}"), V::sample(1))
            });
            w.store().write(w.ctx(), &ns, batch).await?;
        }
        let items = w.pages(&ns, ScanOptions::new().with_limit(MAX_PAGE_ITEMS)).await?;
        let expected: Vec<_> = (0..1200).map(|number| format!("{number:04}")).collect();
        check_eq!(keys(&items), expected, "the 1,200 keys of two pages");
        Ok(())
    }

    /// A scan skips expired entries, on every page.
    #[case(tenant, entry)]
    async fn expired_entries_are_skipped<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..30 {
            let key = format!("{number:02}");
            match number % 3 {
                0 => w.put(&ns, &key, number).await?,
                _ => drop(w.put_expired(&ns, &key).await?),
            }
        }
        let expected: Vec<_> = (0..10).map(|number| format!("{:02}", number * 3)).collect();
        for limit in [1, 2, 3, 100] {
            let items = w.pages(&ns, ScanOptions::new().with_limit(limit)).await?;
            check_eq!(keys(&items), expected, "the keys on pages of {limit}");
        }
        Ok(())
    }

    /// A scan reads only its own namespace.
    #[case(tenant, entry)]
    async fn scan_reads_no_other_namespace<V: Sample>(w: &World<V>) -> Outcome {
        for ns in neighbours(w)? {
            w.put_all(&ns, &KEYS).await?;
        }
        let ns = w.ns(&["a"])?;
        check_eq!(
            w.pages(&ns, ScanOptions::new()).await?.len(),
            0,
            "the number of items of an empty namespace"
        );
        w.put(&ns, "k", 7).await?;
        let items = w.pages(&ns, ScanOptions::new().with_limit(1)).await?;
        check_eq!(keys(&items), ["k"], "the keys of the namespace");
        Ok(())
    }

    /// A page ends before it exceeds 64 MiB, and the next page has the rest.
    #[case(tenant, entry)]
    async fn page_is_limited_to_64_mib<V: Sample>(w: &World<V>) -> Outcome {
        let size = w.needs_value_limit()?.min(15 << 20);
        let fit = MAX_PAGE_BYTES / (size + 4);
        if fit >= 100 {
            return Err(Stop::ignored("64 MiB need more items than a page can have"));
        }
        let ns = w.ns(&["a"])?;
        let value = w.sized(size)?;
        let expected: Vec<_> = (0..=fit).map(|number| format!("{number:04}")).collect();
        for key in &expected {
            w.store().put(w.ctx(), &ns, key, value.clone()).await?;
        }
        let page = w.page(&ns, ScanOptions::new()).await?;
        check_eq!(page.items.len(), fit, "the number of items of a full page");
        let next = page.next.ok_or_else(|| {
            Stop::failed("the page must have a `next`, because there is another entry")
        })?;
        drop(page.items);
        let rest = w.page(&ns, ScanOptions::new().with_after(next)).await?;
        check_eq!(keys(&rest.items), expected[fit..], "the keys of the next page");
        drop(rest);
        let items = w.page(&ns, ScanOptions::new().keys_only()).await?.items;
        check_eq!(keys(&items), expected, "the keys of a scan without values");
        w.store().erase(w.ctx(), &w.everything(), 1000).await?;
        Ok(())
    }

    /// An entry that exists during a whole scan is returned exactly once, even if others change
    /// between the pages.
    #[case(tenant, entry)]
    async fn writes_between_pages_lose_no_key<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let stays: Vec<_> = (0..40).map(|number| format!("k{number:02}")).collect();
        for key in &stays {
            w.put(&ns, key, 1).await?;
        }
        let mut options = ScanOptions::new().keys_only().with_limit(3);
        let mut found = Vec::new();
        for round in 0..1000 {
            let page = w.page(&ns, options.clone()).await?;
            found.extend(page.items.into_iter().map(|item| item.key));
            let Some(next) = page.next else {
                break;
            };
            // Writes before, at and after the end of the page, and deletes an entry after it.
            for key in [format!("{next}-{round}"), format!("a{round}"), format!("k{round:02}-")] {
                w.put(&ns, &key, 2).await?;
            }
            w.delete(&ns, &format!("{next}-{}", round - round % 2)).await?;
            w.put(&ns, &next, 3).await?;
            options = options.with_after(next);
        }
        let kept: Vec<_> = found.iter().filter(|key| stays.contains(key)).collect();
        check_eq!(
            kept,
            stays.iter().collect::<Vec<_>>(),
            "the keys that existed during the whole scan"
        );
        check!(
            found.is_sorted_by(|a, b| a < b),
            "the pages must return each key once and in order: {found:?}"
        );
        Ok(())
    }

    /// The next page starts where the last one ended, even if that entry was deleted.
    #[case(tenant, entry)]
    async fn deleted_page_end_does_not_stop_the_scan<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c", "d"]).await?;
        let page = w.page(&ns, ScanOptions::new().with_limit(2)).await?;
        let next = page.next.ok_or_else(|| {
            Stop::failed("the page must have a `next`, because there is another entry")
        })?;
        w.delete(&ns, "b").await?;
        w.delete(&ns, &next).await?;
        let items = w.pages(&ns, ScanOptions::new().with_after(next)).await?;
        check_eq!(keys(&items), ["c", "d"], "the keys of the next page");
        Ok(())
    }

    /// Each item has the value of its key.
    #[case(tenant, entry)]
    async fn values_belong_to_their_keys<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..50 {
            w.put(&ns, &format!("{:02}", 49 - number), number).await?;
        }
        for item in w.pages(&ns, ScanOptions::new().with_limit(7)).await? {
            let value =
                item.value.transpose()?.ok_or_else(|| Stop::failed("an item has no value"))?;
            let key = format!("{:02}", 49 - number_of(&value)?);
            check_eq!(item.key, key, "the key of the item, compared with the key of its value");
        }
        Ok(())
    }
}

fn keys<V>(items: &[ScanItem<V>]) -> Vec<&str> {
    items.iter().map(|item| item.key.as_str()).collect()
}

/// Returns namespaces that sort close to `a` in some order.
fn neighbours<V: Sample>(w: &World<V>) -> cubbyhole_core::Result<Vec<Namespace>> {
    [&[][..], &[""], &["ab"], &["a", "b"], &["a", ""], &["a-"], &["a:"], &["A"], &["%"], &["_"]]
        .into_iter()
        .map(|segments| w.ns(segments))
        .collect()
}
