//! Mutants that break reverse scans.

use cubbyhole_core::{
    Bytes, EntryStore, Namespace, Page, Result, ScanItem, ScanOptions, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// A reverse scan is a forward scan.
    #[caught_by(
        "reverse::keys_are_in_descending_byte_order",
        "sequences::last_returns_the_newest_in_ascending_order",
        "model::random_operations"
    )]
    ReverseIsForward {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            self.inner.scan(c, ns, forward(&o)).await
        }
    }

    /// A reverse scan reverses the items of the forward page.
    #[caught_by(
        "reverse::keys_are_in_descending_byte_order",
        "reverse::both_directions_return_the_same_items"
    )]
    ReversesForwardPage {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let mut page = self.inner.scan(c, ns, forward(&o)).await?;
            if o.is_reversed() {
                page.items.reverse();
            }
            Ok(page)
        }
    }

    /// A reverse scan ignores `after`.
    #[caught_by("reverse::after_excludes_greater_keys", "model::random_operations")]
    ReverseIgnoresAfter {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            o.check()?;
            let o = if o.is_reversed() { build(&o, o.prefix(), None).reversed() } else { o };
            self.inner.scan(c, ns, o).await
        }
    }

    /// The key that `after` names is on the page of a reverse scan.
    #[caught_by("reverse::after_excludes_greater_keys")]
    ReverseIncludesAfter {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let o = match o.after().map(str::to_owned) {
                Some(after) if o.is_reversed() => o.with_after(format!("{after}\u{1}")),
                _ => o,
            };
            self.inner.scan(c, ns, o).await
        }
    }

    /// A reverse scan treats `after` as a lower bound, like a forward scan.
    #[caught_by("reverse::after_excludes_greater_keys", "reverse::after_and_prefix_combine")]
    ReverseReadsAboveAfter {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let Some(after) = o.after().filter(|_| o.is_reversed()) else {
                return self.inner.scan(c, ns, o).await;
            };
            let above = build(&o, o.prefix(), Some(after));
            let mut page = self.inner.scan(c, ns, above.with_limit(1000)).await?;
            page.items.reverse();
            page.items.truncate(o.limit());
            page.next = None;
            Ok(page)
        }
    }

    /// A reverse scan ignores the prefix.
    #[caught_by("reverse::prefix_selects_keys_on_every_page", "model::random_operations")]
    ReverseIgnoresPrefix {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            o.check()?;
            let o = if o.is_reversed() { build(&o, None, o.after()).reversed() } else { o };
            self.inner.scan(c, ns, o).await
        }
    }

    /// A reverse scan sorts keys by their UTF-16 code units.
    #[caught_by("reverse::keys_are_in_descending_byte_order")]
    ReverseSortsUtf16 {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            if !o.is_reversed() {
                return self.inner.scan(c, ns, o).await;
            }
            let mut page = self.inner.scan(c, ns, o).await?;
            page.items.sort_by_key(|item| item.key.encode_utf16().collect::<Vec<_>>());
            page.items.reverse();
            Ok(page)
        }
    }
}

/// Returns the options without the direction.
fn forward(o: &ScanOptions) -> ScanOptions {
    build(o, o.prefix(), o.after())
}

/// Returns forward options with this prefix and this `after`.
fn build(o: &ScanOptions, prefix: Option<&str>, after: Option<&str>) -> ScanOptions {
    let mut built = ScanOptions::new().with_limit(o.limit());
    if let Some(prefix) = prefix {
        built = built.with_prefix(prefix);
    }
    if let Some(after) = after {
        built = built.with_after(after);
    }
    if !o.values() {
        built = built.keys_only();
    }
    if o.is_refreshing() { built.refreshing() } else { built }
}
