//! `scan` in descending order.

use cubbyhole_core::limits::{MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use cubbyhole_core::{Batch, ErrorKind, ScanItem, ScanOptions};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

/// Keys in byte order, which differs from the order of UTF-16 for the last two.
const KEYS: [&str; 12] =
    ["", "a", "a%", "aa", "ab", "abc", "b", "ba", "c", "\u{e9}", "\u{ffff}", "\u{10ffff}"];

cases! {
    /// A reverse scan of an empty namespace returns one empty page.
    #[case(tenant, entry)]
    async fn empty_namespace_is_one_empty_page<V: Sample>(w: &World<V>) -> Outcome {
        let page = w.page(&w.ns(&["a"])?, reversed()).await?;
        check_eq!((page.items.len(), page.next), (0, None), "the number of items and `next`");
        Ok(())
    }

    /// Pages of every size return each entry once, in descending byte order.
    #[case(tenant, entry)]
    async fn keys_are_in_descending_byte_order<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for limit in 1..=KEYS.len() + 2 {
            let items = w.pages(&ns, reversed().with_limit(limit)).await?;
            check_eq!(keys(&items), descending(|_| true), "the keys on pages of {limit}");
        }
        Ok(())
    }

    /// The last page has no `next`.
    #[case(tenant, entry)]
    async fn last_page_has_no_next<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        let page = w.page(&ns, reversed().with_limit(2)).await?;
        check_eq!(keys(&page.items), ["c", "b"], "the keys of the first page");
        check!(page.next.is_some(), "the page must have a `next`, because there is another entry");
        let page = w.page(&ns, reversed().with_after("a")).await?;
        check_eq!(
            (page.items.len(), page.next),
            (0, None),
            "the number of items and `next` after the lowest key"
        );
        let page = w.page(&ns, reversed().with_limit(1000)).await?;
        check_eq!(
            (page.items.len(), page.next),
            (3, None),
            "the number of items and `next` of a page with room for all"
        );
        Ok(())
    }

    /// Both directions return the same items.
    #[case(tenant, entry)]
    async fn both_directions_return_the_same_items<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        w.put_for(&ns, "ab", 20, w.long()).await?;
        let mut items = w.pages(&ns, reversed().with_limit(5)).await?;
        items.reverse();
        for (back, forth) in items.into_iter().zip(w.pages(&ns, ScanOptions::new()).await?) {
            check_eq!(back.key, forth.key, "the key");
            check_eq!(back.meta, forth.meta, "the metadata of {:?}", forth.key);
            check_eq!(back.value_bytes, forth.value_bytes, "the length of {:?}", forth.key);
            check_eq!(
                back.value.transpose()?,
                forth.value.transpose()?,
                "the value of {:?}",
                forth.key
            );
        }
        Ok(())
    }

    /// A reverse scan of keys only returns everything except the values.
    #[case(tenant, entry)]
    async fn keys_only_returns_no_values<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        let items = w.pages(&ns, reversed().keys_only().with_limit(4)).await?;
        check_eq!(keys(&items), descending(|_| true), "the keys");
        for item in items {
            check!(item.value.is_none(), "the item {:?} has a value", item.key);
            check_eq!(item.meta, w.live(&ns, &item.key).await?.meta, "the metadata of the item");
        }
        Ok(())
    }

    /// `after` excludes the key that it names and all greater keys. It need not exist.
    #[case(tenant, entry)]
    async fn after_excludes_greater_keys<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for after in ["", "!", "a", "a$", "a%", "aaa", "b", "bzzz", "c", "z", "\u{10ffff}z"] {
            for limit in [1, 2, 100] {
                let options = reversed().with_after(after).with_limit(limit);
                let items = w.pages(&ns, options).await?;
                let expected = descending(|key| key < after);
                check_eq!(keys(&items), expected, "the keys after {after:?}, pages of {limit}");
            }
        }
        Ok(())
    }

    /// A prefix selects keys, on every page.
    #[case(tenant, entry)]
    async fn prefix_selects_keys_on_every_page<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        let prefixes = ["", "a", "a%", "ab", "b", "ba", "x", "\u{e9}", "\u{ffff}", "\u{10ffff}"];
        for prefix in prefixes {
            let expected = descending(|key| key.starts_with(prefix));
            for limit in [1, 2, 100] {
                let options = reversed().with_prefix(prefix).with_limit(limit);
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

    /// With `after` and a prefix, the scan returns the keys that satisfy both, even if `after` does
    /// not have the prefix.
    #[case(tenant, entry)]
    async fn after_and_prefix_combine<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &KEYS).await?;
        for prefix in ["", "a", "ab", "b", "x", "\u{10ffff}"] {
            for after in ["", "a", "a$", "aa", "abb", "b", "bb", "c", "\u{10ffff}", "\u{10ffff}a"] {
                let expected = descending(|key| key.starts_with(prefix) && key < after);
                let options = reversed().with_prefix(prefix).with_after(after);
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

    /// Keys with special characters are returned in descending byte order.
    #[case(tenant, entry)]
    async fn hostile_keys_are_in_descending_byte_order<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mut expected = super::names::HOSTILE;
        w.put_all(&ns, &expected).await?;
        expected.sort_unstable_by(|a, b| b.cmp(a));
        for limit in [1, 7, 1000] {
            let items = w.pages(&ns, reversed().with_limit(limit)).await?;
            check_eq!(keys(&items), expected, "the keys on pages of {limit}");
        }
        Ok(())
    }

    /// A limit of 0 or more than 1,000 is rejected. So are NUL and too many bytes in a prefix or in
    /// `after`.
    #[case(tenant, entry)]
    async fn invalid_options_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let long = "x".repeat(1025);
        let bad = [
            ("a limit of 0", reversed().with_limit(0)),
            ("a limit of 1001", reversed().with_limit(MAX_PAGE_ITEMS + 1)),
            ("NUL in the prefix", reversed().with_prefix("a\0")),
            ("NUL in after", reversed().with_after("a\0")),
            ("a long prefix", reversed().with_prefix(long.clone())),
            ("a long after", reversed().with_after(long)),
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
            let batch = numbers.fold(Batch::new(), |batch, number| {
                batch.put(format!("{number:04}"), V::sample(1))
            });
            w.store().write(w.ctx(), &ns, batch).await?;
        }
        let items = w.pages(&ns, reversed().with_limit(MAX_PAGE_ITEMS)).await?;
        let expected: Vec<_> = (0..1200).rev().map(|number| format!("{number:04}")).collect();
        check_eq!(keys(&items), expected, "the 1,200 keys of two pages");
        let items = w.page(&ns, reversed().with_limit(1)).await?.items;
        check_eq!(keys(&items), ["1199"], "the key of a page of 1");
        Ok(())
    }

    /// A reverse scan skips expired entries, on every page.
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
        let expected: Vec<_> = (0..10).rev().map(|number| format!("{:02}", number * 3)).collect();
        for limit in [1, 2, 3, 100] {
            let items = w.pages(&ns, reversed().with_limit(limit)).await?;
            check_eq!(keys(&items), expected, "the keys on pages of {limit}");
        }
        let items = w.pages(&ns, reversed().with_prefix("29").with_limit(1)).await?;
        check_eq!(items.len(), 0, "the number of items under a prefix of an expired entry");
        Ok(())
    }

    /// A reverse scan reads only its own namespace.
    #[case(tenant, entry)]
    async fn scan_reads_no_other_namespace<V: Sample>(w: &World<V>) -> Outcome {
        for segments in [&[][..], &[""], &["ab"], &["a", "b"], &["a", ""], &["a-"], &["a:"], &["A"]]
        {
            w.put_all(&w.ns(segments)?, &KEYS).await?;
        }
        let ns = w.ns(&["a"])?;
        let items = w.pages(&ns, reversed()).await?;
        check_eq!(items.len(), 0, "the number of items of an empty namespace");
        w.put(&ns, "k", 7).await?;
        let items = w.pages(&ns, reversed().with_limit(1)).await?;
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
        let expected: Vec<_> = (0..=fit).rev().map(|number| format!("{number:04}")).collect();
        for key in &expected {
            w.store().put(w.ctx(), &ns, key, value.clone()).await?;
        }
        let page = w.page(&ns, reversed()).await?;
        check_eq!(keys(&page.items), expected[..fit], "the keys of a full page");
        let next = next(page.next)?;
        drop(page.items);
        let rest = w.page(&ns, reversed().with_after(next)).await?;
        check_eq!(keys(&rest.items), expected[fit..], "the keys of the next page");
        drop(rest);
        let items = w.page(&ns, reversed().keys_only()).await?.items;
        check_eq!(keys(&items), expected, "the keys of a scan without values");
        w.store().erase(w.ctx(), &w.everything(), 1000).await?;
        Ok(())
    }

    /// An entry that exists during a whole scan is returned exactly once, even if others change
    /// between the pages.
    #[case(tenant, entry)]
    async fn writes_between_pages_lose_no_key<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let stays: Vec<_> = (0..40).rev().map(|number| format!("k{number:02}")).collect();
        for key in &stays {
            w.put(&ns, key, 1).await?;
        }
        let mut options = reversed().keys_only().with_limit(3);
        let mut found = Vec::new();
        for round in 0..1000 {
            let page = w.page(&ns, options.clone()).await?;
            found.extend(page.items.into_iter().map(|item| item.key));
            let Some(next) = page.next else {
                break;
            };
            // Writes before, at and after the end of the page, and deletes an entry before it.
            for key in [format!("{next}-{round}"), format!("z{round}"), format!("k{round:02}-")] {
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
            found.is_sorted_by(|a, b| a > b),
            "the pages must return each key once and in order: {found:?}"
        );
        Ok(())
    }

    /// The next page starts where the last one ended, even if that entry was deleted.
    #[case(tenant, entry)]
    async fn deleted_page_end_does_not_stop_the_scan<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c", "d"]).await?;
        let page = w.page(&ns, reversed().with_limit(2)).await?;
        let next = next(page.next)?;
        w.delete(&ns, "c").await?;
        w.delete(&ns, &next).await?;
        let items = w.pages(&ns, reversed().with_after(next)).await?;
        check_eq!(keys(&items), ["b", "a"], "the keys of the next page");
        Ok(())
    }
}

fn reversed() -> ScanOptions {
    ScanOptions::new().reversed()
}

fn keys<V>(items: &[ScanItem<V>]) -> Vec<&str> {
    items.iter().map(|item| item.key.as_str()).collect()
}

/// Returns the selected keys in descending order.
fn descending(is_expected: impl Fn(&str) -> bool) -> Vec<&'static str> {
    KEYS.into_iter().rev().filter(|key| is_expected(key)).collect()
}

fn next(next: Option<String>) -> Outcome<String> {
    next.ok_or_else(|| Stop::failed("the page must have a `next`, because there is another entry"))
}
