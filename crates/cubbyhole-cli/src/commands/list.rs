//! `list`: lists the entries of one namespace, page by page.

use clap::Args;
use cubbyhole::{Bytes, Namespace, ScanItem, ScanOptions, Timestamp};

use crate::args::parse::{parse_key, parse_namespace};
use crate::entries::record::EntryLine;
use crate::error::Failure;
use crate::output::{
    Align, Output, Table, ago, escape, escape_bytes, exact_duration, human_bytes, terminal_width,
    until,
};
use crate::session::Session;

const EXAMPLES: &str = "\
Control characters are escaped. With -0 and --json, keys and values are exact.

Examples:
  cubbyhole list acme:agent-7 --prefix turn- --values
  cubbyhole list acme:agent-7 --after turn-0100 --limit 100
  cubbyhole list acme:agent-7 -0 > keys && xargs -0 -n1 cubbyhole get acme:agent-7 -- < keys";

/// The page size with values, smaller than without to limit memory.
const PAGE_VALUES: usize = 200;

/// The bytes of a value that a table shows at most.
const SHOWN_BYTES: usize = 4096;

/// List the keys of a namespace in byte order
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Namespace: a tenant and its segments, as in acme:agent-7
    #[arg(value_parser = parse_namespace)]
    namespace: Namespace,
    /// Only keys that begin with this text; no character is special
    #[arg(long, value_name = "TEXT", value_parser = parse_key, allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Only keys after this one
    #[arg(long, value_name = "KEY", value_parser = parse_key, allow_hyphen_values = true)]
    after: Option<String>,
    /// Maximum number of keys [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show updated_at, expires_at, idle TTL, size and version before each key; as a table on a
    /// terminal
    #[arg(long)]
    long: bool,
    /// Show the value after each key, separated by a tab
    #[arg(long)]
    values: bool,
    /// Write raw keys, each followed by NUL
    #[arg(short = '0', long = "null", conflicts_with_all = ["long", "values", "json"])]
    null: bool,
}

impl List {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open_read_only().await?;
        let most = if self.values { PAGE_VALUES } else { super::common::PAGE_NAMES };
        let mut left = self.limit;
        let mut after = self.after.clone();
        let mut unreadable = 0_u64;
        // The table, and the time that its rows are relative to.
        let mut table = self.table(&session.out).map(|table| (table, Timestamp::EPOCH));
        loop {
            let limit = left.map_or(most, |left| usize::try_from(left).unwrap_or(most).min(most));
            let page = store.scan(&session.ctx, &self.namespace, self.page(after, limit)).await?;
            if let Some((_, now)) = &mut table {
                *now = store.current_time(&session.ctx, &self.namespace).await?;
            }
            for item in &page.items {
                unreadable += u64::from(!self.show(item, &mut table, &mut session.out)?);
            }
            if let Some((table, _)) = &mut table {
                for line in table.render(terminal_width()) {
                    session.out.line(&line)?;
                }
            }
            left = left.map(|left| left.saturating_sub(page.items.len() as u64));
            if page.next.is_none() || left == Some(0) {
                break;
            }
            after = page.next;
        }
        if unreadable > 0 {
            return Err(Failure::Incomplete(format!("{unreadable} values could not be read")));
        }
        Ok(())
    }

    fn page(&self, after: Option<String>, limit: usize) -> ScanOptions {
        let mut options = ScanOptions::new().with_limit(limit);
        if let Some(prefix) = &self.prefix {
            options = options.with_prefix(prefix);
        }
        if let Some(after) = after {
            options = options.with_after(after);
        }
        if self.values { options } else { options.keys_only() }
    }

    /// Writes one item. Returns whether its value could be read, if it was requested.
    fn show(
        &self,
        item: &ScanItem<Bytes>,
        table: &mut Option<(Table, Timestamp)>,
        out: &mut Output,
    ) -> Result<bool, Failure> {
        let value = match &item.value {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(error)) => {
                let key = escape(&item.key);
                out.report_error(error.kind().as_str(), &format!("the value of `{key}`: {error}"));
                None
            }
        };
        if out.json() {
            let mut line = EntryLine::new(&self.namespace, &item.key).with_meta(&item.meta);
            if let Some(value) = value {
                line = line.with_value(value);
            }
            if self.long {
                line = line.with_bytes(item.value_bytes);
            }
            out.object(&line)?;
        } else if self.null {
            out.raw(item.key.as_bytes())?;
            out.raw(b"\0")?;
        } else if let Some((table, now)) = table {
            table.push(self.row(item, value, *now));
        } else {
            out.raw(self.text_line(item, value).as_bytes())?;
        }
        Ok(value.is_some() || !self.values)
    }

    fn text_line(&self, item: &ScanItem<Bytes>, value: Option<&Bytes>) -> String {
        let mut line = String::new();
        if self.long {
            let meta = &item.meta;
            let expires = meta.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            let bytes = item.value_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
            let updated = meta.updated_at.to_string();
            let idle = meta.idle_ttl.map_or_else(|| "-".to_owned(), exact_duration);
            line =
                format!("{updated:<24}  {expires:<24}  {idle:>6}  {bytes:>8}  {}  ", meta.version);
        }
        line.push_str(&escape(&item.key));
        if let Some(value) = value {
            line.push('\t');
            line.push_str(&escape_bytes(value));
        }
        line.push('\n');
        line
    }

    /// Returns a table for a terminal. Pipes get lines for programs.
    fn table(&self, out: &Output) -> Option<Table> {
        let mut headers = vec![
            ("UPDATED", Align::Right),
            ("EXPIRES", Align::Right),
            ("SIZE", Align::Right),
            ("VERSION", Align::Left),
            ("KEY", Align::Left),
        ];
        if self.values {
            headers.push(("VALUE", Align::Left));
        }
        (self.long && out.data_on_terminal() && !out.json()).then(|| Table::new(&headers))
    }

    fn row(&self, item: &ScanItem<Bytes>, value: Option<&Bytes>, now: Timestamp) -> Vec<String> {
        let meta = &item.meta;
        let mut row = vec![
            ago(meta.updated_at, now),
            match meta.idle_ttl {
                Some(ttl) => {
                    format!("{}, idle {}", until(meta.expires_at, now), exact_duration(ttl))
                }
                None => until(meta.expires_at, now),
            },
            item.value_bytes.map_or_else(|| "-".to_owned(), human_bytes),
            meta.version.to_string(),
            item.key.clone(),
        ];
        if self.values {
            row.push(value.map_or_else(String::new, |value| match value.get(..SHOWN_BYTES) {
                Some(start) => escape_bytes(start) + "…",
                None => escape_bytes(value),
            }));
        }
        row
    }
}
