//! Mutants that break the pages of a scan.

use cubbyhole_core::{
    Bytes, EntryStore, Namespace, Page, Result, ScanItem, ScanOptions, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// A page starts with the last item of the previous page.
    #[caught_by("scan::pages_of_every_size_return_each_key_once")]
    PageRepeatsItem {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let after = o.after().map(str::to_owned);
            let limit = o.limit();
            let mut page = self.inner.scan(c, ns, o).await?;
            let last = match after {
                Some(after) if limit > 1 => self.inner.scan(c, ns, ScanOptions::new()).await?
                    .items.into_iter().find(|item| item.key == after),
                _ => None,
            };
            if let Some(last) = last {
                page.items.insert(0, last);
                page.items.truncate(limit);
            }
            Ok(page)
        }
    }

    /// A page lacks its last item if there is a next page.
    #[caught_by("scan::pages_of_every_size_return_each_key_once", "model::random_operations")]
    PageDropsItem {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let mut page = self.inner.scan(c, ns, o).await?;
            if page.next.is_some() {
                page.items.pop();
            }
            Ok(page)
        }
    }

    /// Pages start at an offset, so writes before it shift the items.
    #[caught_by("scan::writes_between_pages_lose_no_key")]
    PagesByOffset {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            let first = match o.after() {
                None => 0,
                Some(after) => after.rsplit('~').next().and_then(|n| n.parse().ok()).unwrap_or(0),
            };
            let mut page = self.inner.scan(c, ns, ScanOptions::new().with_limit(1000)).await?;
            let more = page.items.len() > first + o.limit();
            page.items = page.items.into_iter().skip(first).take(o.limit()).collect();
            page.next = more.then(|| format!("~{}", first + o.limit()));
            Ok(page)
        }
    }
}
