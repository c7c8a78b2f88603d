//! Mutants that break recursive scans.

use cubbyhole_core::{
    Bytes, EntryStore, Namespace, NamespacePrefix, Page, Position, RecursiveScanOptions, Result,
    ScanItem, ScanOptions, Store, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

type Item = (Namespace, ScanItem<Bytes>);

mutants! {
    /// Namespaces are sorted by their segments, so `a:b` comes before `a-b`.
    #[caught_by("recursive::entries_are_ordered_by_namespace_text_and_key")]
    RecursiveSortsBySegments {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            o.check(p)?;
            let segments = |ns: &Namespace| -> Vec<String> {
                ns.segments().map(|segment| segment.into_owned()).collect()
            };
            let mut items = all_items(&self.inner, c, p).await?;
            items.sort_by_key(|(ns, item)| (segments(ns), item.key.clone()));
            if let Some(after) = o.after() {
                let after = (segments(&after.namespace), after.key.clone());
                items.retain(|(ns, item)| (segments(ns), item.key.clone()) > after);
            }
            Ok(page_of(items, &o))
        }
    }

    /// The scan returns namespaces whose text starts with the prefix.
    #[caught_by(
        "recursive::prefix_matches_whole_segments",
        "recursive::other_tenants_are_excluded"
    )]
    RecursiveMatchesTextPrefix {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            o.check(p)?;
            let mut items = Vec::new();
            for tenant in self.inner.scan_tenants(c, None, 1000).await?.items {
                items.extend(all_items(&self.inner, c, &tenant.into()).await?);
            }
            items.retain(|(ns, _)| ns.as_str().starts_with(p.as_str()));
            items.sort_by_key(place);
            if let Some(after) = o.after() {
                let after = (after.namespace.as_str().to_owned(), after.key.clone());
                items.retain(|item| place(item) > after);
            }
            Ok(page_of(items, &o))
        }
    }

    /// The scan omits the namespace that the prefix names.
    #[caught_by("recursive::prefix_matches_whole_segments", "model::random_operations")]
    RecursiveOmitsPrefixItself {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            let mut page = self.inner.scan_recursive(c, p, o).await?;
            page.items.retain(|(ns, _)| ns != p.as_namespace());
            Ok(page)
        }
    }

    /// The next page starts with the next namespace.
    #[caught_by("recursive::after_may_be_any_position", "model::random_operations")]
    RecursiveLosesRestOfNamespace {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            let skipped = o.after().map(|after| after.namespace.clone());
            let mut page = self.inner.scan_recursive(c, p, o).await?;
            page.items.retain(|(ns, _)| Some(ns) != skipped.as_ref());
            Ok(page)
        }
    }

    /// The cursor has no key, so the next page repeats the namespace.
    #[caught_by("recursive::entries_are_ordered_by_namespace_text_and_key")]
    RecursiveRepeatsNamespace {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            let mut page = self.inner.scan_recursive(c, p, o).await?;
            if let Some(next) = &mut page.next {
                next.key = String::new();
            }
            Ok(page)
        }
    }

    /// A page has the items of one namespace only, and the others are lost.
    #[caught_by("recursive::many_namespaces_are_read_completely")]
    RecursiveReadsOneNamespace {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            let mut page = self.inner.scan_recursive(c, p, o).await?;
            let first = page.items.first().map(|(ns, _)| ns.clone());
            page.items.retain(|(ns, _)| Some(ns) == first.as_ref());
            Ok(page)
        }
    }

    /// The scan starts anywhere, also after a position outside the prefix.
    #[caught_by("recursive::invalid_options_are_rejected", "model::random_operations")]
    RecursiveAcceptsAnyPosition {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            if o.after().is_some_and(|after| !p.matches(&after.namespace)) {
                return Ok(Page { items: Vec::new(), next: None });
            }
            self.inner.scan_recursive(c, p, o).await
        }
    }

    /// The scan always returns values.
    #[caught_by("recursive::keys_only_returns_no_values")]
    RecursiveAlwaysReadsValues {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            let mut with_values = RecursiveScanOptions::new().with_limit(o.limit());
            if let Some(after) = o.after() {
                with_values = with_values.with_after(after.clone());
            }
            self.inner.scan_recursive(c, p, with_values).await
        }
    }

    /// A page ignores the limit of 64 MiB.
    #[caught_by("recursive::page_is_limited_to_64_mib")]
    RecursiveIgnoresPageBytes {
        async fn scan_recursive(&self, c: Context<'_>, p: &NamespacePrefix, o: RecursiveScanOptions)
            -> Result<Page<Item, Position>> {
            let limit = o.limit();
            let mut page = self.inner.scan_recursive(c, p, o.clone()).await?;
            while let Some(next) = page.next.take().filter(|_| page.items.len() < limit) {
                let o = o.clone().with_after(next).with_limit(limit - page.items.len());
                let more = self.inner.scan_recursive(c, p, o).await?;
                page.items.extend(more.items);
                page.next = more.next;
            }
            Ok(page)
        }
    }
}

/// Returns the entries of all namespaces under a prefix.
async fn all_items(inner: &Inner, c: Context<'_>, p: &NamespacePrefix) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for ns in inner.list_namespaces(c, p).await? {
        let page = inner.scan(c, &ns, ScanOptions::new().with_limit(1000)).await?;
        items.extend(page.items.into_iter().map(|item| (ns.clone(), item)));
    }
    Ok(items)
}

fn place((ns, item): &Item) -> (String, String) {
    (ns.as_str().to_owned(), item.key.clone())
}

fn page_of(mut items: Vec<Item>, o: &RecursiveScanOptions) -> Page<Item, Position> {
    let has_more = items.len() > o.limit();
    items.truncate(o.limit());
    let last = items.last().filter(|_| has_more);
    let next = last.map(|(ns, item)| Position { namespace: ns.clone(), key: item.key.clone() });
    Page { items, next }
}
