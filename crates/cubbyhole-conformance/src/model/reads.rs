//! Operations that read entries, and may extend their expiry.

use std::time::Duration;

use cubbyhole_core::{
    ErrorKind, GetOptions, NamespacePrefix, Position, RecursiveScanOptions, ScanItem, ScanOptions,
};

use super::operation::{DeepScan, KEYS, Lifetime, Location, PageScan, ReadMode};
use super::play::{DAY, Player, key};
use super::state::{ModelEntry, ModelMillis, is_under, rendered};
use crate::Sample;
use crate::outcome::{Outcome, check_eq, refused};

impl<V: Sample> Player<'_, V> {
    pub(super) async fn get(&mut self, at: Location) -> Outcome {
        let expected = self.model.live(at).map(|live| V::sample(live.number));
        check_eq!(self.w.get(self.ns(at), key(at)).await?, expected, "get of {at:?}");
        let entry = self.w.entry(self.ns(at), key(at)).await?;
        self.compare(at, entry, "get_entry")
    }

    pub(super) async fn get_entry(&mut self, at: Location, mode: ReadMode) -> Outcome {
        let options = self.read(&[at], mode);
        let (w, ns) = (self.w, self.ns(at));
        let entry = w.store().get_entry(w.ctx(), ns, key(at), options).await?;
        self.compare(at, entry, "get_entry with options")
    }

    pub(super) async fn get_many(&mut self, ns: usize, keys: &[usize], mode: ReadMode) -> Outcome {
        let places = places(ns, keys);
        let names: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
        let options = self.read(&places, mode);
        let w = self.w;
        let replies = w.store().get_many(w.ctx(), &self.namespaces[ns], &names, options).await?;
        check_eq!(replies.len(), keys.len(), "the number of replies of get_many");
        for (at, reply) in places.into_iter().zip(replies) {
            self.compare(at, reply?, "get_many")?;
        }
        Ok(())
    }

    pub(super) async fn stat(&mut self, ns: usize, keys: &[usize]) -> Outcome {
        let names: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
        let w = self.w;
        let stats = w.store().stat(w.ctx(), &self.namespaces[ns], &names).await?;
        check_eq!(stats.len(), keys.len(), "the number of replies of stat");
        for (at, stat) in places(ns, keys).into_iter().zip(stats) {
            let live = self.model.live(at);
            check_eq!(stat.is_some(), live.is_some(), "whether stat finds an entry at {at:?}");
            if let (Some(stat), Some(live)) = (stat, live) {
                self.compare_meta(&live, stat.meta, "stat")?;
            }
        }
        Ok(())
    }

    /// Applies a read of these locations to the model, and returns its options.
    fn read(&mut self, places: &[Location], mode: ReadMode) -> GetOptions {
        match mode {
            ReadMode::Plain => GetOptions::new(),
            ReadMode::Refresh => {
                places.iter().for_each(|at| self.model.refresh(*at));
                GetOptions::new().refreshing()
            }
            ReadMode::Extend(lifetime) => {
                let millis = match self.playable(lifetime) {
                    Lifetime::Millis(millis) | Lifetime::Idle(millis) => millis,
                    _ => DAY,
                };
                places.iter().for_each(|at| self.model.extend(*at, millis as ModelMillis));
                GetOptions::new().with_extended_ttl(Duration::from_millis(millis))
            }
        }
    }

    pub(super) async fn list(&mut self, ns: usize, prefix: Option<&str>) -> Outcome {
        let expected: Vec<_> = self.model.keys(ns).into_iter().map(|(key, _)| key).collect();
        let expected: Vec<_> =
            expected.into_iter().filter(|key| key.starts_with(prefix.unwrap_or(""))).collect();
        let w = self.w;
        let found = w.store().list(w.ctx(), &self.namespaces[ns], prefix).await?;
        check_eq!(found, expected, "list of namespace {ns}, prefix {prefix:?}");
        Ok(())
    }

    pub(super) async fn scan(&mut self, scan: &PageScan) -> Outcome {
        let (ns, options) = (scan.namespace, scan_options(scan));
        let prefix = options.prefix().unwrap_or("");
        let is_after = |key: &str| match options.after() {
            None => true,
            Some(after) if scan.reversed => key < after,
            Some(after) => key > after,
        };
        let is_expected = |key: &str| key.starts_with(prefix) && is_after(key);
        if scan.refresh {
            for key in (0..KEYS.len()).filter(|key| is_expected(KEYS[*key])) {
                self.model.refresh(Location { namespace: ns, key });
            }
        }
        let mut expected: Vec<_> =
            self.model.keys(ns).into_iter().filter(|(key, _)| is_expected(key)).collect();
        if scan.reversed {
            expected.reverse();
        }
        let items = self.w.pages(&self.namespaces[ns], options.clone()).await?;
        let found: Vec<_> = items.iter().map(|item| item.key.as_str()).collect();
        let keys: Vec<_> = expected.iter().map(|(key, _)| *key).collect();
        check_eq!(found, keys, "scan of namespace {ns} with {options:?}");
        for (item, (_, live)) in items.into_iter().zip(expected) {
            self.compare_item(&live, item, options.values())?;
        }
        Ok(())
    }

    pub(super) async fn scan_recursive(&mut self, scan: &DeepScan) -> Outcome {
        let place = |ns: usize, key: &str| (rendered(ns, &self.tenants), key.to_owned());
        let after = scan.after.map(|at| place(at.namespace, key(at)));
        let mut expected = Vec::new();
        for ns in self.model.namespaces(scan.prefix, &self.tenants) {
            expected.extend(self.model.keys(ns).into_iter().map(|(key, live)| (ns, key, live)));
        }
        expected.retain(|(ns, key, _)| after.as_ref().is_none_or(|after| place(*ns, key) > *after));

        let mut options = RecursiveScanOptions::new().with_limit(scan.limit);
        if !scan.values {
            options = options.keys_only();
        }
        if let Some(at) = scan.after {
            let namespace = self.ns(at).clone();
            options = options.with_after(Position { namespace, key: key(at).to_owned() });
        }
        let under = NamespacePrefix::from(&self.namespaces[scan.prefix]);
        if scan.after.is_some_and(|at| !is_under(at.namespace, scan.prefix)) {
            let page = self.w.store().scan_recursive(self.w.ctx(), &under, options).await;
            refused(page, ErrorKind::InvalidArgument, "scan_recursive after another prefix")?;
            return Ok(());
        }
        let items = self.w.recursive_pages(&under, options.clone()).await?;
        let found: Vec<_> =
            items.iter().map(|(ns, item)| (ns.as_str().to_owned(), item.key.clone())).collect();
        let places: Vec<_> = expected.iter().map(|(ns, key, _)| place(*ns, key)).collect();
        check_eq!(found, places, "scan_recursive under {under} with {options:?}");
        for ((_, item), (_, _, live)) in items.into_iter().zip(expected) {
            self.compare_item(&live, item, scan.values)?;
        }
        Ok(())
    }

    fn compare_item(&self, live: &ModelEntry, item: ScanItem<V>, with_value: bool) -> Outcome {
        check_eq!(item.value.is_some(), with_value, "whether the scan returns values");
        if let Some(value) = item.value {
            check_eq!(value?, V::sample(live.number), "the value of {:?} in a scan", item.key);
        }
        self.compare_meta(live, item.meta, "scan")
    }
}

/// Returns the locations of these keys.
fn places(namespace: usize, keys: &[usize]) -> Vec<Location> {
    keys.iter().map(|key| Location { namespace, key: *key }).collect()
}

/// Returns the options of a scan.
fn scan_options(scan: &PageScan) -> ScanOptions {
    let mut options = ScanOptions::new().with_limit(scan.limit);
    if let Some(prefix) = scan.prefix {
        options = options.with_prefix(KEYS[prefix]);
    }
    if let Some(after) = scan.after {
        options = options.with_after(KEYS[after]);
    }
    if !scan.values {
        options = options.keys_only();
    }
    if scan.reversed {
        options = options.reversed();
    }
    if scan.refresh {
        options = options.refreshing();
    }
    options
}
