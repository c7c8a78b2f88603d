//! Scans of the entries of all namespaces under a prefix.
//!
//! The tenant's index lists the namespaces in the order of the result. Their pages are in other slots,
//! so each namespace is asked for its own page. A scan reads keys and metadata first, and then the
//! values of exactly the entries that it returns:
//!
//! - If the page continues within a namespace, that namespace alone is asked for the whole page.
//! - Otherwise up to [`CONCURRENT_NAMESPACES`] namespaces are asked at the same time, each for an
//!   equal share of the page. A namespace that fills its share is asked for the rest, so a page of one
//!   large namespace takes two requests, and a page of small ones takes one for each.
//!
//! The requests in flight ask for one page in total, so a scan never reads more than twice the keys
//! and metadata that it returns, and no value in vain. This also bounds its memory.

use std::pin::pin;

use bytes::Bytes;
use cubbyhole_core::{
    Error, ExecutionContext, Namespace, NamespacePrefix, Page, Position, RecursiveScanOptions,
    Result, ScanItem,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::cluster::Caller;
use crate::key_range::KeyRange;
use crate::listing::{Listing, fitting, without_value};
use crate::registry::{ListedName, Registry};
use crate::stored_meta::StoredMeta;

/// The number of namespaces that are asked at the same time.
const CONCURRENT_NAMESPACES: usize = 8;
/// The maximum number of names that are read from the index per request.
const NAMES_PER_REQUEST: usize = 256;

/// One page of a scan of all namespaces under a prefix.
pub(crate) struct RecursiveScan<'a> {
    ctx: &'a ExecutionContext,
    listing: Listing<'a>,
    registry: Registry<'a>,
    prefix: &'a NamespacePrefix,
    options: &'a RecursiveScanOptions,
}

/// The entries of one namespace on a page.
struct Group {
    ns: Namespace,
    found: Vec<(String, StoredMeta)>,
}

impl<'a> RecursiveScan<'a> {
    pub(crate) const fn new(
        ctx: &'a ExecutionContext,
        caller: &'a Caller,
        prefix: &'a NamespacePrefix,
        options: &'a RecursiveScanOptions,
    ) -> Self {
        let (listing, registry) = (Listing::new(caller), Registry::new(caller));
        Self { ctx, listing, registry, prefix, options }
    }

    /// Returns the page.
    pub(crate) async fn run(self) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
        // One entry more than the page has shows whether another page follows.
        let wanted = self.options.limit() + 1;
        let mut groups = self.find(wanted).await?;
        let total: usize = groups.iter().map(|group| group.found.len()).sum();
        let mut count = total.min(self.options.limit());
        if self.options.values() {
            count = fitting(groups.iter().flat_map(|group| &group.found).take(count));
        }
        truncate(&mut groups, count);
        let last = groups.last().and_then(|group| Some((&group.ns, &group.found.last()?.0)));
        let position =
            |(ns, key): (&Namespace, &String)| Position { namespace: ns.clone(), key: key.clone() };
        let next = last.filter(|_| count < total).map(position);
        Ok(Page { items: self.items(groups).await?, next })
    }

    /// Finds the first `wanted` entries, or all if there are fewer.
    async fn find(&self, wanted: usize) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        let mut left = wanted;
        let mut after = None;
        if let Some(Position { namespace, key }) = self.options.after() {
            let found = self.entries_of(namespace, Some(key), left).await?;
            left -= found.len();
            groups.push(Group { ns: namespace.clone(), found });
            after = Some(namespace.as_str().to_owned());
        }
        while left > 0 {
            // Most listed namespaces have an entry.
            let count = left.clamp(CONCURRENT_NAMESPACES, NAMES_PER_REQUEST);
            let names =
                self.registry.listed_namespaces(self.ctx, self.prefix, after.as_deref(), count);
            let names = names.await?;
            left -= self.find_in(&names, left, &mut groups).await?;
            if names.len() < count {
                break;
            }
            after = names.into_iter().last().map(|listed| listed.name);
        }
        Ok(groups)
    }

    /// Finds up to `wanted` entries of these namespaces, and returns their number.
    async fn find_in(
        &self,
        names: &[ListedName],
        wanted: usize,
        groups: &mut Vec<Group>,
    ) -> Result<usize> {
        let mut left = wanted;
        let share = wanted.div_ceil(names.len().clamp(1, CONCURRENT_NAMESPACES));
        let ask = |listed: &ListedName| {
            let ns = listed.namespace();
            async move {
                let ns = ns?;
                let found = self.entries_of(&ns, None, share).await?;
                Ok::<_, Error>(Group { ns, found })
            }
        };
        let asked: Vec<_> = names.iter().map(ask).collect();
        let mut answers = pin!(stream::iter(asked).buffered(CONCURRENT_NAMESPACES));
        while left > 0 {
            let Some(mut group) = answers.try_next().await? else { break };
            let found = &mut group.found;
            if found.len() == share && share < left {
                let last = found.last().map(|(key, _)| key.clone());
                found.extend(self.entries_of(&group.ns, last.as_ref(), left - share).await?);
            }
            found.truncate(left);
            left -= found.len();
            if !found.is_empty() {
                groups.push(group);
            }
        }
        Ok(wanted - left)
    }

    async fn entries_of(
        &self,
        ns: &Namespace,
        after: Option<&String>,
        wanted: usize,
    ) -> Result<Vec<(String, StoredMeta)>> {
        let range = KeyRange::new("", after.map(String::as_str));
        Ok(self.listing.keys_and_metas(self.ctx, ns, range, wanted).await?.found)
    }

    /// Returns the items of the page, with their values if requested.
    async fn items(&self, groups: Vec<Group>) -> Result<Vec<(Namespace, ScanItem<Bytes>)>> {
        let with_values = self.options.values();
        let read = |group: Group| async move {
            let Group { ns, found } = group;
            let items: Vec<ScanItem<Bytes>> = if with_values {
                self.listing.with_values(self.ctx, &ns, found, false).await?
            } else {
                found.into_iter().map(without_value).collect()
            };
            let items = items.into_iter().map(move |item| (ns.clone(), item));
            Ok::<_, Error>(items.collect::<Vec<_>>())
        };
        let reads: Vec<_> = groups.into_iter().map(read).collect();
        stream::iter(reads).buffered(CONCURRENT_NAMESPACES).try_concat().await
    }
}

/// Keeps the first `count` entries.
fn truncate(groups: &mut Vec<Group>, count: usize) {
    let mut left = count;
    groups.retain_mut(|group| {
        group.found.truncate(left);
        left -= group.found.len();
        !group.found.is_empty()
    });
}
