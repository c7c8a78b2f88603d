//! Converts rows that the SQL functions return into the contract's types.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use cubbyhole_core::{
    Entry, EntryMeta, EntryStat, Erased, Error, Namespace, Page, Position, Result, ScanItem,
    TenantId, Timestamp, Usage, Version, Written,
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
    let idle_ttl: Option<i64> = column(row, "idle_ttl")?;
    Ok(EntryMeta {
        version: version(row, "version")?
            .ok_or_else(|| Error::corrupt("an entry in the table has no version"))?,
        created_at: instant(column(row, "created_at")?)?,
        updated_at: instant(column(row, "updated_at")?)?,
        expires_at: expires_at.map(instant).transpose()?,
        idle_ttl: idle_ttl.map(positive_millis).transpose()?,
    })
}

fn positive_millis(millis: i64) -> Result<Duration> {
    match u64::try_from(millis) {
        Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(Error::corrupt("an idle TTL in the table is not more than zero")),
    }
}

/// The length of the value in bytes.
fn value_bytes(row: &Row) -> Result<u64> {
    u64::try_from(column::<i32>(row, "value_bytes")?)
        .map_err(|_| Error::corrupt("a value in the table has a negative length"))
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

/// The metadata and sizes in the order of `keys`.
pub(crate) fn stats_by_key(rows: &[Row], keys: &[&str]) -> Result<Vec<Option<EntryStat>>> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let stat = EntryStat { meta: meta(row)?, value_bytes: Some(value_bytes(row)?) };
        found.insert(column::<&str>(row, "key")?, stat);
    }
    Ok(keys.iter().map(|key| found.get(key).copied()).collect())
}

pub(crate) fn keys(rows: &[Row]) -> Result<Vec<String>> {
    rows.iter().map(|row| row.try_get(0).map_err(unexpected_row)).collect()
}

fn scan_item(row: &Row, has_value: bool) -> Result<ScanItem<Bytes>> {
    Ok(ScanItem {
        key: column(row, "key")?,
        meta: meta(row)?,
        value_bytes: Some(value_bytes(row)?),
        value: has_value.then(|| required_value(row)),
    })
}

/// Whether the row is not part of its page, and only shows that there is a next page. It is the last
/// row.
fn is_extra(row: &Row) -> Result<bool> {
    column(row, "is_extra")
}

/// Builds a page of one namespace.
pub(crate) fn page(rows: &[Row], has_values: bool) -> Result<Page<ScanItem<Bytes>, String>> {
    let mut items: Vec<ScanItem<Bytes>> = Vec::with_capacity(rows.len());
    for row in rows {
        if is_extra(row)? {
            let next = items.last().map(|item| item.key.clone());
            return Ok(Page { items, next });
        }
        items.push(scan_item(row, has_values)?);
    }
    Ok(Page { items, next: None })
}

/// Builds a page across namespaces.
pub(crate) fn recursive_page(
    rows: &[Row],
    has_values: bool,
) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>> {
    let mut items: Vec<(Namespace, ScanItem<Bytes>)> = Vec::with_capacity(rows.len());
    for row in rows {
        if is_extra(row)? {
            let position = |(namespace, item): &(Namespace, ScanItem<Bytes>)| Position {
                namespace: namespace.clone(),
                key: item.key.clone(),
            };
            let next = items.last().map(position);
            return Ok(Page { items, next });
        }
        let rendered: &str = column(row, "namespace")?;
        // Entries of one namespace follow each other.
        let namespace = match items.last() {
            Some((last, _)) if last.as_str() == rendered => last.clone(),
            _ => parse_namespace(rendered)?,
        };
        items.push((namespace, scan_item(row, has_values)?));
    }
    Ok(Page { items, next: None })
}

fn parse_namespace(rendered: &str) -> Result<Namespace> {
    Namespace::parse(rendered)
        .map_err(|error| Error::corrupt("a namespace in the table is malformed").with_source(error))
}

pub(crate) fn namespaces(rows: &[Row]) -> Result<Vec<Namespace>> {
    rows.iter().map(|row| parse_namespace(row.try_get(0).map_err(unexpected_row)?)).collect()
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

/// Marks the deletes that removed a live entry. `Conflict` with the index of the first operation whose
/// condition failed, if the batch was not applied.
pub(crate) fn batch_outcome(rows: &[Row], mut written: Vec<Written>) -> Result<Vec<Written>> {
    let row = first(rows)?;
    if let Some(failed) = column::<Option<i32>>(row, "failed")? {
        let conflict = Error::conflict(version(row, "current")?);
        return Err(conflict.at_batch_index(usize::try_from(failed).unwrap_or(0)));
    }
    for index in column::<Option<Vec<i32>>>(row, "deleted")?.unwrap_or_default() {
        let deleted = usize::try_from(index).ok().and_then(|index| written.get_mut(index));
        if let Some(deleted) = deleted {
            *deleted = Written::Deleted(true);
        }
    }
    Ok(written)
}
