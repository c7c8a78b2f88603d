//! Converts rows that the SQL functions return into the contract's types.

use std::collections::HashMap;

use bytes::Bytes;
use cubbyhole_core::limits::MAX_PAGE_BYTES;
use cubbyhole_core::{
    Entry, EntryMeta, Erased, Error, Namespace, Page, Result, ScanItem, ScanOptions, TenantId,
    Timestamp, Usage, Version,
};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

/// Reads a column by name. A missing column or another type means that the schema was changed
/// manually, or is a bug.
pub(crate) fn column<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T> {
    row.try_get(name).map_err(unexpected_row)
}

/// Reads the first column of the first row.
pub(crate) fn scalar<'r, T: FromSql<'r>>(rows: &'r [Row]) -> Result<T> {
    first(rows)?.try_get(0).map_err(unexpected_row)
}

/// The row of a function that always returns one.
pub(crate) fn first(rows: &[Row]) -> Result<&Row> {
    rows.first().ok_or_else(|| Error::internal("the database returned no row"))
}

fn unexpected_row(error: tokio_postgres::Error) -> Error {
    Error::internal("the database returned unexpected columns; run `cubbyhole doctor`")
        .with_source(error)
}

pub(crate) fn version(row: &Row, name: &str) -> Result<Option<Version>> {
    let version: Option<Uuid> = column(row, name)?;
    Ok(version.map(|version| Version::from_bytes(version.into_bytes())))
}

pub(crate) fn instant(millis: i64) -> Result<Timestamp> {
    u64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millis(millis).ok())
        .ok_or_else(|| Error::corrupt("a timestamp in the table is outside the years 1970 to 9999"))
}

fn meta(row: &Row) -> Result<EntryMeta> {
    let expires_at: Option<i64> = column(row, "expires_at")?;
    Ok(EntryMeta {
        version: version(row, "version")?
            .ok_or_else(|| Error::corrupt("an entry in the table has no version"))?,
        created_at: instant(column(row, "created_at")?)?,
        updated_at: instant(column(row, "updated_at")?)?,
        expires_at: expires_at.map(instant).transpose()?,
    })
}

fn required_value(row: &Row) -> Result<Bytes> {
    let value: Option<&[u8]> = column(row, "value")?;
    let value = value.ok_or_else(|| Error::corrupt("an entry in the table has no value"))?;
    Ok(Bytes::copy_from_slice(value))
}

fn entry(row: &Row) -> Result<Entry<Bytes>> {
    Ok(Entry { value: required_value(row)?, meta: meta(row)? })
}

/// The entry of a function that returns at most one row.
pub(crate) fn optional_entry(rows: &[Row]) -> Result<Option<Entry<Bytes>>> {
    rows.first().map(entry).transpose()
}

/// The entries in the order of `keys`.
pub(crate) fn entries_by_key(
    rows: &[Row],
    keys: &[&str],
) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        found.insert(column::<&str>(row, "key")?, entry(row));
    }
    let answer = |key: &&str| match found.get(key) {
        None => Ok(None),
        Some(Ok(entry)) => Ok(Some(entry.clone())),
        Some(Err(error)) => Err(error.clone().in_operation("get_many")),
    };
    Ok(keys.iter().map(answer).collect())
}

pub(crate) fn keys(rows: &[Row]) -> Result<Vec<String>> {
    rows.iter().map(|row| row.try_get(0).map_err(unexpected_row)).collect()
}

/// Builds a page. An extra row shows that there is a next page.
pub(crate) fn page(rows: &[Row], options: &ScanOptions) -> Result<Page<ScanItem<Bytes>, String>> {
    let mut page: Page<ScanItem<Bytes>, String> = Page { items: Vec::new(), next: None };
    let mut page_bytes = 0;
    for row in rows {
        let key: &str = column(row, "key")?;
        let value_bytes = u64::try_from(column::<i32>(row, "value_bytes")?)
            .map_err(|_| Error::corrupt("a value in the table has a negative length"))?;
        let size = key.len() as u64 + if options.values() { value_bytes } else { 0 };
        let full = page.items.len() == options.limit()
            || (!page.items.is_empty() && page_bytes + size > MAX_PAGE_BYTES as u64);
        if full {
            page.next = page.items.last().map(|item| item.key.clone());
            break;
        }
        page_bytes += size;
        let value = match options.values() {
            false => None,
            true => Some(required_value(row)),
        };
        let item = ScanItem {
            key: key.to_owned(),
            meta: meta(row)?,
            value_bytes: Some(value_bytes),
            value,
        };
        page.items.push(item);
    }
    Ok(page)
}

pub(crate) fn namespaces(rows: &[Row]) -> Result<Vec<Namespace>> {
    let parse = |row: &Row| {
        let rendered: &str = row.try_get(0).map_err(unexpected_row)?;
        Namespace::parse(rendered).map_err(|error| {
            Error::corrupt("a namespace in the table is malformed").with_source(error)
        })
    };
    rows.iter().map(parse).collect()
}

pub(crate) fn tenants(rows: &[Row]) -> Result<Vec<TenantId>> {
    Ok(namespaces(rows)?.iter().map(Namespace::tenant).collect())
}

pub(crate) fn usage(rows: &[Row]) -> Result<Usage> {
    let row = first(rows)?;
    Ok(Usage {
        namespaces: count(row, "namespaces")?,
        entries: count(row, "entries")?,
        bytes: Some(count(row, "bytes")?),
        expired: count(row, "expired")?,
    })
}

pub(crate) fn erased(rows: &[Row]) -> Result<Erased> {
    let row = first(rows)?;
    Ok(Erased { removed: count(row, "removed")?, done: column(row, "done")? })
}

fn count(row: &Row, name: &str) -> Result<u64> {
    u64::try_from(column::<i64>(row, name)?)
        .map_err(|_| Error::internal("the database returned a negative count"))
}

/// `Conflict` with the index of the first operation whose condition failed, if the batch was not
/// applied.
pub(crate) fn batch_outcome(rows: &[Row]) -> Result<()> {
    let row = first(rows)?;
    let Some(failed) = column::<Option<i32>>(row, "failed")? else { return Ok(()) };
    let conflict = Error::conflict(version(row, "current")?);
    Err(conflict.at_batch_index(usize::try_from(failed).unwrap_or(0)))
}
