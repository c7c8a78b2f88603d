//! `usage`: counts entries and bytes by namespace.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use cubbyhole::{Backend, ExecutionContext, Namespace, ScanOptions, Timestamp};
use futures_util::{TryStreamExt, stream};
use serde::Serialize;

use super::common::PAGE_NAMES;
use crate::args::scope::{Scope, ScopeArguments};
use crate::entries::walk::{self, Namespaces};
use crate::error::Failure;
use crate::output::{
    Align, Output, Table, ago, count, human_bytes, progress, terminal_width, until,
};
use crate::session::Session;

const EXAMPLES: &str = "\
Prints one row per namespace and a total. A row has the number of live entries, the bytes of their
keys and values, the next expiry, the oldest write and the newest write. --depth groups namespaces
by their first N segments below PREFIX (with --all, the tenant is the first segment); 0 prints only
the total.

In a pipe, columns are separated by tabs. With --json, each row is an object, and the total also has
`expired`: expired entries that are not swept yet. The command reads the name of every entry, and
the result is not a snapshot.

Examples:
  cubbyhole usage acme
  cubbyhole usage acme --depth 1 --sort bytes --limit 10
  cubbyhole usage --all --depth 1 --json";

/// How many namespaces are counted concurrently, to overlap their round trips.
const CONCURRENCY: usize = 8;

/// Show entries, bytes, expiry and age by namespace
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Usage {
    #[command(flatten)]
    scope: ScopeArguments,
    /// Group by the first N segments below PREFIX [default: one row per namespace]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Sort by name, or by most entries, most bytes, next expiry or latest write first
    #[arg(long, value_name = "BY", value_enum, default_value_t = Sort::Name)]
    sort: Sort,
    /// Maximum number of rows; the total includes all
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Entries,
    Bytes,
    Expiry,
    Written,
}

/// The usage of one or more namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct NamespaceUsage {
    namespaces: u64,
    pub(super) entries: u64,
    /// `None` if the store does not report it.
    pub(super) bytes: Option<u64>,
    next_expiry: Option<Timestamp>,
    oldest_write: Option<Timestamp>,
    newest_write: Option<Timestamp>,
}

#[derive(Serialize)]
struct UsageLine<'a> {
    /// `None` for the whole store.
    prefix: Option<&'a str>,
    #[serde(flatten)]
    counted: &'a NamespaceUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<u64>,
}

impl NamespaceUsage {
    fn nothing() -> Self {
        Self { bytes: Some(0), ..Self::default() }
    }

    fn add(&mut self, other: &Self) {
        let soonest = |one: Option<Timestamp>, two| one.into_iter().chain(two).min();
        self.namespaces += other.namespaces;
        self.entries += other.entries;
        self.bytes = self.bytes.zip(other.bytes).map(|(one, two)| one + two);
        self.next_expiry = soonest(self.next_expiry, other.next_expiry);
        self.oldest_write = soonest(self.oldest_write, other.oldest_write);
        self.newest_write = self.newest_write.max(other.newest_write);
    }
}

impl Usage {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let Self { scope, depth, sort, limit } = self;
        let scope = session.store.narrow(scope.into_scope())?;
        let store = session.open_read_only().await?;
        let ctx = session.ctx.clone();
        let bar = progress::bar(None, &session.out, true);
        let mut rows: BTreeMap<Namespace, NamespaceUsage> = BTreeMap::new();
        let mut total = NamespaceUsage::nothing();
        let mut first: Option<Namespace> = None;
        let counted = count_all(&store, &ctx, &scope, |namespace, counted| {
            total.add(&counted);
            first.get_or_insert_with(|| namespace.clone());
            if depth != Some(0) {
                let name = rolled_up(namespace, &scope, depth);
                rows.entry(name).or_insert_with(NamespaceUsage::nothing).add(&counted);
            }
            progress::advance(&bar, total.entries);
        });
        counted.await?;
        // The usage that the store reports includes expired entries.
        let expired = walk::usage(&scope, &store, &ctx).await?.expired;
        bar.finish_and_clear();
        let mut rows: Vec<_> = rows.into_iter().collect();
        sort.apply(&mut rows);
        let left_out = limit.map_or(0, |limit| rows.len().saturating_sub(limit));
        rows.truncate(rows.len() - left_out);
        let prefix = scope.prefix().map(|prefix| prefix.as_str());
        let out = &mut session.out;
        if out.json() {
            for (name, counted) in &rows {
                out.object(&UsageLine { prefix: Some(name.as_str()), counted, expired: None })?;
            }
            return out.object(&UsageLine { prefix, counted: &total, expired: Some(expired) });
        }
        if out.data_on_terminal() {
            let now = match first {
                Some(namespace) => store.current_time(&ctx, &namespace).await?,
                // The table is empty.
                None => Timestamp::EPOCH,
            };
            show_table(&rows, &total, now, out)?;
        } else {
            for (name, row) in &rows {
                out.fields(&fields(name.as_str(), row))?;
            }
            out.fields(&fields("total", &total))?;
        }
        if left_out > 0 {
            out.note(&format!("{} not shown", count(left_out as u64, "row", "rows")));
        }
        if expired > 0 {
            let expired = count(expired, "expired entry is", "expired entries are");
            out.note(&format!("{expired} not swept yet; run `cubbyhole evict`"));
        }
        Ok(())
    }
}

/// Counts each namespace of the scope, and passes the results on in the order of the walk.
async fn count_all(
    store: &Arc<dyn Backend>,
    ctx: &ExecutionContext,
    scope: &Scope,
    mut each: impl FnMut(Namespace, NamespaceUsage),
) -> cubbyhole::Result<()> {
    let names = Namespaces::new(Arc::clone(store), ctx.clone(), scope);
    let names = stream::unfold(names, |mut names| async move {
        names.next().await.transpose().map(|name| (name, names))
    });
    let count = |namespace: Namespace| async move {
        let counted = count_one(&**store, ctx, &namespace, None).await?;
        Ok((namespace, counted))
    };
    let mut counted = std::pin::pin!(names.map_ok(count).try_buffered(CONCURRENCY));
    while let Some((namespace, counted)) = counted.try_next().await? {
        // All entries may have expired since the namespace was listed.
        if counted.entries > 0 {
            each(namespace, counted);
        }
    }
    Ok(())
}

/// Counts one namespace, or its keys that begin with `prefix`, by reading the name of each entry.
pub(super) async fn count_one(
    store: &dyn Backend,
    ctx: &ExecutionContext,
    namespace: &Namespace,
    prefix: Option<&str>,
) -> cubbyhole::Result<NamespaceUsage> {
    let mut counted = NamespaceUsage { namespaces: 1, ..NamespaceUsage::nothing() };
    let mut options = ScanOptions::new().keys_only().with_limit(PAGE_NAMES);
    if let Some(prefix) = prefix {
        options = options.with_prefix(prefix);
    }
    loop {
        let page = store.scan(ctx, namespace, options.clone()).await?;
        for item in &page.items {
            let written = Some(item.meta.updated_at);
            counted.add(&NamespaceUsage {
                namespaces: 0,
                entries: 1,
                bytes: item.value_bytes.map(|bytes| bytes + item.key.len() as u64),
                next_expiry: item.meta.expires_at,
                oldest_write: written,
                newest_write: written,
            });
        }
        match page.next {
            Some(next) => options = options.with_after(next),
            None => return Ok(counted),
        }
    }
}

/// Returns the namespace whose row includes this one.
fn rolled_up(namespace: Namespace, scope: &Scope, depth: Option<usize>) -> Namespace {
    let Some(depth) = depth else { return namespace };
    let segments = match scope.prefix() {
        Some(prefix) => prefix.as_namespace().segments().count() + depth,
        None => depth.saturating_sub(1),
    };
    let segments = namespace.segments().take(segments);
    // The first segments of a valid namespace are a valid namespace.
    Namespace::from_parts(namespace.tenant().as_str(), segments).unwrap_or(namespace.clone())
}

impl Sort {
    fn apply(self, rows: &mut [(Namespace, NamespaceUsage)]) {
        match self {
            // By tenant, then in byte order.
            Self::Name => rows.sort_by(|(one, _), (other, _)| walk::order(one, other)),
            Self::Entries => rows.sort_by_key(|(_, row)| Reverse(row.entries)),
            Self::Bytes => rows.sort_by_key(|(_, row)| Reverse(row.bytes)),
            Self::Expiry => {
                rows.sort_by_key(|(_, row)| row.next_expiry.map_or((1, None), |at| (0, Some(at))));
            }
            Self::Written => rows.sort_by_key(|(_, row)| Reverse(row.newest_write)),
        }
    }
}

fn show_table(
    rows: &[(Namespace, NamespaceUsage)],
    total: &NamespaceUsage,
    now: Timestamp,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("ENTRIES", Align::Right),
        ("SIZE", Align::Right),
        ("EXPIRES", Align::Right),
        ("OLDEST", Align::Right),
        ("NEWEST", Align::Right),
        ("NAMESPACE", Align::Left),
    ]);
    for (name, row) in rows {
        table.push(cells(name.as_str(), row, now));
    }
    let namespaces = count(total.namespaces, "namespace", "namespaces");
    table.push(cells(&format!("total, {namespaces}"), total, now));
    for line in table.render(terminal_width()) {
        out.line(&line)?;
    }
    Ok(())
}

/// Returns the cells of a table row.
fn cells(name: &str, row: &NamespaceUsage, now: Timestamp) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        row.entries.to_string(),
        row.bytes.map_or_else(none, human_bytes),
        until(row.next_expiry, now),
        row.oldest_write.map_or_else(none, |at| ago(at, now)),
        row.newest_write.map_or_else(none, |at| ago(at, now)),
        name.to_owned(),
    ]
}

/// Returns the fields of a row for programs.
fn fields(name: &str, row: &NamespaceUsage) -> Vec<String> {
    let instant = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    vec![
        row.entries.to_string(),
        row.bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
        instant(row.next_expiry),
        instant(row.oldest_write),
        instant(row.newest_write),
        name.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use cubbyhole::NamespacePrefix;

    use super::*;

    #[test]
    fn namespaces_are_grouped_below_the_prefix() {
        let below = Scope(Some(NamespacePrefix::parse("a:b").unwrap()));
        for (name, scope, depth, expected) in [
            ("a:b:c:d", &below, None, "a:b:c:d"),
            ("a:b:c:d", &below, Some(1), "a:b:c"),
            ("a:b", &below, Some(1), "a:b"),
            (r"a:b:c\:x:d", &below, Some(1), r"a:b:c\:x"),
            ("a:b:c", &Scope(None), Some(1), "a"),
            ("a:b:c", &Scope(None), Some(2), "a:b"),
            ("a:b:c", &Scope(None), Some(9), "a:b:c"),
        ] {
            let rolled = rolled_up(Namespace::parse(name).unwrap(), scope, depth);
            assert_eq!(rolled.as_str(), expected);
        }
    }

    #[test]
    fn rows_are_sorted_by_each_order() {
        let row = |name: &str, entries, bytes, expiry: Option<u64>, written| {
            let at = |millis| Timestamp::from_millis(millis).unwrap();
            let counted = NamespaceUsage {
                namespaces: 1,
                entries,
                bytes: Some(bytes),
                next_expiry: expiry.map(at),
                oldest_write: None,
                newest_write: Some(at(written)),
            };
            (Namespace::parse(name).unwrap(), counted)
        };
        let rows = [
            row("a", 3, 10, None, 5),
            row("a-b", 1, 30, Some(9), 7),
            row("a:x", 2, 20, Some(4), 6),
        ];
        for (sort, expected) in [
            (Sort::Name, ["a", "a:x", "a-b"]),
            (Sort::Entries, ["a", "a:x", "a-b"]),
            (Sort::Bytes, ["a-b", "a:x", "a"]),
            (Sort::Expiry, ["a:x", "a-b", "a"]),
            (Sort::Written, ["a-b", "a:x", "a"]),
        ] {
            let mut sorted = rows.clone();
            sort.apply(&mut sorted);
            let names: Vec<&str> = sorted.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, expected, "{sort:?}");
        }
    }
}
