//! `scan_recursive`: returns the entries of all namespaces under a prefix.

use cubbyhole_core::{
    Batch, ErrorKind, Namespace, NamespacePrefix, Position, RecursiveScanOptions, ScanItem,
    ScanOptions,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

/// Scopes that sort close to `a`. In the order of the text, `a!`, `a-b` and `a/x` are between `a`
/// and `a:b`. A segment `a:b` has the text `a\:b`.
const SCOPES: [&[&str]; 15] = [
    &[],
    &[""],
    &["a"],
    &["a", ""],
    &["a", "b"],
    &["a", "b", "c"],
    &["a", "\u{10ffff}"],
    &["a!"],
    &["a-b"],
    &["a/x"],
    &["a:b"],
    &["a\\"],
    &["ab"],
    &["b"],
    &["\u{10ffff}"],
];
/// The keys in each scope.
const KEYS: [&str; 4] = ["", "a", "k", "\u{10ffff}"];

/// The namespace and the key of an item, in the order of the scan.
type Place = (String, String);

cases! {
    /// A recursive scan of a prefix without entries returns one empty page.
    #[case(tenant, entry)]
    async fn prefix_without_entries_is_one_empty_page<V: Sample>(w: &World<V>) -> Outcome {
        for segments in [&[][..], &["a"]] {
            let page = w.recursive_page(&under(w, segments)?, all()).await?;
            check_eq!((page.items.len(), page.next), (0, None), "the number of items and `next`");
        }
        Ok(())
    }

    /// Pages of every size return each entry once, in the byte order of the namespaces' text and
    /// then of the keys.
    #[case(tenant, entry)]
    async fn entries_are_ordered_by_namespace_text_and_key<V: Sample>(w: &World<V>) -> Outcome {
        let expected = fill(w).await?;
        for limit in [1, 2, 3, 4, 5, 7, 59, 60, 61, 1000] {
            let items = w.recursive_pages(&w.everything(), all().with_limit(limit)).await?;
            check_eq!(places(&items), expected, "the entries on pages of {limit}");
        }
        Ok(())
    }

    /// A prefix matches whole segments, and includes the namespace that it names.
    #[case(tenant, entry)]
    async fn prefix_matches_whole_segments<V: Sample>(w: &World<V>) -> Outcome {
        fill(w).await?;
        let prefixes = [
            &["a"][..],
            &["a", "b"],
            &["a", "b", "c"],
            &["a", ""],
            &[""],
            &["a-b"],
            &["a:b"],
            &["a\\"],
            &["ab"],
            &["\u{10ffff}"],
            &["absent"],
            &["a", "absent"],
        ];
        for segments in prefixes {
            let expected = expected(w, segments)?;
            for limit in [1, 3, 100] {
                let found =
                    w.recursive_pages(&under(w, segments)?, all().with_limit(limit)).await?;
                check_eq!(places(&found), expected, "the entries under {segments:?}");
            }
        }
        Ok(())
    }

    /// A recursive scan returns no entry of another tenant, not even of one whose name starts with
    /// the tenant's name.
    #[case(tenant, entry)]
    async fn other_tenants_are_excluded<V: Sample>(w: &World<V>) -> Outcome {
        for suffix in ["b", "-b", "/b", "0", ";", "%", "_", "\\", ":", ":a", "\u{10ffff}"] {
            let theirs = Namespace::new(w.tenant_with(suffix)?);
            w.put(&theirs, "k", 1).await?;
            w.put(&theirs.with_scope("a")?, "k", 1).await?;
        }
        let page = w.recursive_page(&w.everything(), all()).await?;
        check_eq!((page.items.len(), page.next), (0, None), "the items of an empty tenant");
        w.put(&w.ns(&["a"])?, "k", 1).await?;
        for limit in [1, 100] {
            let items = w.recursive_pages(&w.everything(), all().with_limit(limit)).await?;
            check_eq!(items.len(), 1, "the number of entries of the tenant");
        }
        Ok(())
    }

    /// A recursive scan returns the entries that scans of the namespaces return.
    #[case(tenant, entry)]
    async fn items_are_those_of_scans<V: Sample>(w: &World<V>) -> Outcome {
        fill(w).await?;
        w.put_for(&w.ns(&["a"])?, "k", 50, w.long()).await?;
        let mut expected = Vec::new();
        for ns in w.namespaces(&w.everything()).await? {
            let items = w.pages(&ns, ScanOptions::new()).await?;
            expected.extend(items.into_iter().map(|item| (ns.clone(), item)));
        }
        let found = w.recursive_pages(&w.everything(), all().with_limit(7)).await?;
        check_eq!(found.len(), expected.len(), "the number of items");
        for ((ns, found), (expected_ns, expected)) in found.into_iter().zip(expected) {
            check_eq!(
                (&ns, &found.key),
                (&expected_ns, &expected.key),
                "the namespace and the key"
            );
            let key = &found.key;
            check_eq!(found.meta, expected.meta, "the metadata of {key:?} in {ns}");
            check_eq!(found.value_bytes, expected.value_bytes, "the length of {key:?} in {ns}");
            check_eq!(
                found.value.transpose()?,
                expected.value.transpose()?,
                "the value of {key:?} in {ns}"
            );
        }
        Ok(())
    }

    /// A scan of keys only returns everything except the values.
    #[case(tenant, entry)]
    async fn keys_only_returns_no_values<V: Sample>(w: &World<V>) -> Outcome {
        let expected = fill(w).await?;
        let items = w.recursive_pages(&w.everything(), all().keys_only().with_limit(7)).await?;
        check_eq!(places(&items), expected, "the entries");
        for (ns, item) in items {
            check!(item.value.is_none(), "the item {:?} has a value", item.key);
            check_eq!(item.meta, w.live(&ns, &item.key).await?.meta, "the metadata of the item");
        }
        Ok(())
    }

    /// A scan may start after any position: within a namespace, at its end, and at an entry or a
    /// namespace that does not exist.
    #[case(tenant, entry)]
    async fn after_may_be_any_position<V: Sample>(w: &World<V>) -> Outcome {
        fill(w).await?;
        let absent = [&["a", "a"][..], &["a", "b", "b"], &["a", "z"]];
        for segments in SCOPES.into_iter().filter(|segments| is_under(segments, &["a"])) {
            check_after(w, &["a"], segments).await?;
        }
        for segments in absent {
            check_after(w, &["a"], segments).await?;
        }
        for segments in [&[][..], &["!"], &["a-b"], &["a:b"], &["aa"], &["\u{10ffff}", "z"]] {
            check_after(w, &[], segments).await?;
        }
        Ok(())
    }

    /// A position outside the prefix is rejected. So are an invalid key, and a limit of 0 or more
    /// than 1,000.
    #[case(tenant, entry)]
    async fn invalid_options_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        fill(w).await?;
        let prefix = under(w, &["a"])?;
        let mut outside = vec![Namespace::new(w.tenant_with("b")?)];
        for segments in [&[][..], &["ab"], &["a-b"], &["a:b"], &["b"], &[""]] {
            outside.push(w.ns(segments)?);
        }
        for namespace in outside {
            let after = Position { namespace, key: "k".to_owned() };
            let what = format!("a position in {}", after.namespace);
            let page = w.recursive_page(&prefix, all().with_after(after)).await;
            refused(page, ErrorKind::InvalidArgument, what)?;
        }
        for key in ["a\0".to_owned(), "x".repeat(1025)] {
            let after = Position { namespace: w.ns(&["a"])?, key };
            let page = w.recursive_page(&prefix, all().with_after(after)).await;
            refused(page, ErrorKind::InvalidArgument, "a position with an invalid key")?;
        }
        for limit in [0, 1001, usize::MAX] {
            let page = w.recursive_page(&prefix, all().with_limit(limit)).await;
            refused(page, ErrorKind::InvalidArgument, format_args!("a limit of {limit}"))?;
        }
        Ok(())
    }

    /// Expired entries are skipped, and so are namespaces of expired entries only.
    #[case(tenant, entry)]
    async fn expired_entries_are_skipped<V: Sample>(w: &World<V>) -> Outcome {
        let mut expected = Vec::new();
        for scope in 0..12 {
            let ns = w.ns(&["a", &format!("{scope:02}")])?;
            for number in 0..5 {
                let key = format!("{number}");
                if scope % 3 == 0 && number % 2 == 1 {
                    w.put(&ns, &key, number).await?;
                    expected.push((ns.as_str().to_owned(), key));
                } else {
                    w.put_expired(&ns, &key).await?;
                }
            }
        }
        for limit in [1, 2, 3, 100] {
            let items = w.recursive_pages(&under(w, &["a"])?, all().with_limit(limit)).await?;
            check_eq!(places(&items), expected, "the entries on pages of {limit}");
        }
        Ok(())
    }

    /// A page has up to 1,000 items from any number of namespaces.
    #[case(tenant, entry)]
    async fn page_has_up_to_1000_items<V: Sample>(w: &World<V>) -> Outcome {
        let mut expected = Vec::new();
        for (scope, count) in [("a", 700), ("b", 1), ("c", 500), ("d", 2)] {
            let ns = w.ns(&[scope])?;
            let names: Vec<_> = (0..count).map(|number| format!("{number:04}")).collect();
            let batch = names.iter().fold(Batch::new(), |batch, key| batch.put(key, V::sample(1)));
            w.store().write(w.ctx(), &ns, batch).await?;
            expected.extend(names.into_iter().map(|key| (ns.as_str().to_owned(), key)));
        }
        for limit in [1000, 999, 350] {
            let items = w.recursive_pages(&w.everything(), all().with_limit(limit)).await?;
            check_eq!(places(&items), expected, "the 1,203 entries on pages of {limit}");
        }
        Ok(())
    }

    /// A page collects the entries of many small namespaces.
    #[case(tenant, entry)]
    async fn many_namespaces_are_read_completely<V: Sample>(w: &World<V>) -> Outcome {
        let mut expected = Vec::new();
        for number in 0..150 {
            let ns = w.ns(&["users", &format!("{number:03}")])?;
            w.put(&ns, "profile", number).await?;
            expected.push((ns.as_str().to_owned(), "profile".to_owned()));
        }
        for limit in [1, 7, 100, 1000] {
            let items = w.recursive_pages(&w.everything(), all().with_limit(limit)).await?;
            check_eq!(places(&items), expected, "the entries on pages of {limit}");
        }
        Ok(())
    }

    /// The next page starts where the last one ended, even if that entry or its namespace was
    /// deleted.
    #[case(tenant, entry)]
    async fn deleted_page_end_does_not_stop_the_scan<V: Sample>(w: &World<V>) -> Outcome {
        for is_erased in [false, true] {
            let w = w.with_fresh_tenant()?;
            let mut expected = Vec::new();
            for scope in ["a", "b", "c"] {
                let ns = w.ns(&[scope])?;
                w.put_all(&ns, &["1", "2", "3"]).await?;
                expected
                    .extend(["1", "2", "3"].map(|key| (ns.as_str().to_owned(), key.to_owned())));
            }
            let page = w.recursive_page(&w.everything(), all().with_limit(4)).await?;
            let next = page.next.ok_or_else(|| {
                Stop::failed("the page must have a `next`, because there is another entry")
            })?;
            let end = (next.namespace.as_str().to_owned(), next.key.clone());
            if is_erased {
                w.store().erase(w.ctx(), &next.namespace.clone().into(), 10).await?;
            } else {
                w.delete(&next.namespace, &next.key).await?;
            }
            expected.retain(|place| *place > end && !(is_erased && place.0 == end.0));
            let items = w.recursive_pages(&w.everything(), all().with_after(next)).await?;
            let found = places(&items);
            check_eq!(found, expected, "the entries of the next page, erased: {is_erased}");
        }
        Ok(())
    }

    /// An entry that exists during a whole scan is returned exactly once, even if others change
    /// between the pages.
    #[case(tenant, entry)]
    async fn writes_between_pages_lose_no_entry<V: Sample>(w: &World<V>) -> Outcome {
        let stays = fill(w).await?;
        let mut options = all().keys_only().with_limit(3);
        let mut found = Vec::new();
        for round in 0..1000 {
            let page = w.recursive_page(&w.everything(), options.clone()).await?;
            found.extend(places(&page.items));
            let Some(next) = page.next else {
                break;
            };
            // Writes next to the end of the page, in its namespace, and in new ones around it.
            w.put(&next.namespace, &format!("{}-{round}", next.key), 2).await?;
            w.put(&next.namespace, &next.key, 3).await?;
            for segment in ["!", "a", "zz"] {
                let ns = w.ns(&["a", segment, &round.to_string()])?;
                w.put(&ns, "new", 2).await?;
                if round % 2 == 0 {
                    w.delete(&ns, "new").await?;
                }
            }
            options = options.with_after(next);
        }
        let kept: Vec<_> = found.iter().filter(|place| stays.contains(place)).cloned().collect();
        check_eq!(kept, stays, "the entries that existed during the whole scan");
        check!(
            found.is_sorted_by(|a, b| a < b),
            "the pages must return each entry once and in order: {found:?}"
        );
        Ok(())
    }

    /// A page ends before it exceeds 64 MiB, and the next page has the rest.
    #[case(tenant, entry)]
    async fn page_is_limited_to_64_mib<V: Sample>(w: &World<V>) -> Outcome {
        let size = w.needs_value_limit()?.min(15 << 20);
        let fit = cubbyhole_core::limits::MAX_PAGE_BYTES / (size + 4);
        if fit >= 100 {
            return Err(Stop::ignored("64 MiB need more items than a page can have"));
        }
        let value = w.sized(size)?;
        let mut expected = Vec::new();
        for number in 0..=fit {
            let ns = w.ns(&["a", &format!("{}", number / 2)])?;
            let key = format!("{number:04}");
            w.store().put(w.ctx(), &ns, &key, value.clone()).await?;
            expected.push((ns.as_str().to_owned(), key));
        }
        let mut found = Vec::new();
        let mut options = all();
        loop {
            let page = w.recursive_page(&w.everything(), options.clone()).await?;
            let items = page.items.len();
            check!(
                (1..=fit).contains(&items),
                "a page of values of {size} bytes must have 1 to {fit} items, but has {items}"
            );
            found.extend(places(&page.items));
            let Some(next) = page.next else { break };
            options = options.with_after(next);
        }
        check_eq!(found, expected, "the entries of all pages");
        let items = w.recursive_page(&w.everything(), all().keys_only()).await?.items;
        check_eq!(places(&items), expected, "the entries of a scan without values");
        w.store().erase(w.ctx(), &w.everything(), 1000).await?;
        Ok(())
    }
}

fn all() -> RecursiveScanOptions {
    RecursiveScanOptions::new()
}

/// Writes every key to every scope, and returns the places in the order of the scan.
async fn fill<V: Sample>(w: &World<V>) -> Outcome<Vec<Place>> {
    for segments in SCOPES {
        w.put_all(&w.ns(segments)?, &KEYS).await?;
    }
    expected(w, &[])
}

fn under<V: Sample>(w: &World<V>, segments: &[&str]) -> cubbyhole_core::Result<NamespacePrefix> {
    w.ns(segments).map(NamespacePrefix::from)
}

fn is_under(segments: &[&str], prefix: &[&str]) -> bool {
    segments.starts_with(prefix)
}

/// Returns the places under a prefix that [`fill`] writes, in the order of the scan.
fn expected<V: Sample>(w: &World<V>, prefix: &[&str]) -> Outcome<Vec<Place>> {
    let mut expected = Vec::new();
    for segments in SCOPES.into_iter().filter(|segments| is_under(segments, prefix)) {
        let ns = w.ns(segments)?;
        expected.extend(KEYS.map(|key| (ns.as_str().to_owned(), key.to_owned())));
    }
    expected.sort_unstable();
    Ok(expected)
}

/// Checks the scan after each of several keys in a namespace, whether they exist or not.
async fn check_after<V: Sample>(w: &World<V>, prefix: &[&str], segments: &[&str]) -> Outcome {
    let namespace = w.ns(segments)?;
    for key in ["", "a", "b", "k", "zz", "\u{10ffff}", "\u{10ffff}a"] {
        let place = (namespace.as_str().to_owned(), key.to_owned());
        let mut expected = expected(w, prefix)?;
        expected.retain(|other| *other > place);
        let after = Position { namespace: namespace.clone(), key: key.to_owned() };
        for limit in [2, 100] {
            let options = all().with_after(after.clone()).with_limit(limit);
            let items = w.recursive_pages(&under(w, prefix)?, options).await?;
            check_eq!(places(&items), expected, "the entries under {prefix:?} after {after:?}");
        }
    }
    Ok(())
}

fn places<V>(items: &[(Namespace, ScanItem<V>)]) -> Vec<Place> {
    items.iter().map(|(ns, item)| (ns.as_str().to_owned(), item.key.clone())).collect()
}
