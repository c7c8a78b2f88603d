//! Decoding of replies.

use std::cmp::Ordering;

use cubbyhole_core::{Error, Result, Timestamp};
use redis::Value;

use crate::keys::lex_bound;

/// The error for a reply of an unexpected form.
pub(crate) fn unexpected() -> Error {
    Error::internal("Redis sent an unexpected reply; run `cubbyhole doctor`")
}

/// The error for members of a sorted set that are not in order.
pub(crate) fn out_of_order() -> Error {
    Error::corrupt("the keys are not in order: another program added one")
}

pub(crate) fn integer(value: &Value) -> Result<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

pub(crate) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(unexpected()),
    }
}

pub(crate) fn integers<const N: usize>(value: Value) -> Result<[u64; N]> {
    let numbers: Vec<u64> = array(value)?.iter().map(integer).collect::<Result<_>>()?;
    numbers.try_into().map_err(|_| unexpected())
}

/// Decodes milliseconds since 1970.
pub(crate) fn instant(value: &Value) -> Result<Timestamp> {
    Timestamp::from_millis(integer(value)?).map_err(|_| unexpected())
}

/// Decodes the reply to `TIME`: seconds and microseconds.
pub(crate) fn time(value: Value) -> Result<Timestamp> {
    let mut numbers = array(value)?.into_iter().map(text);
    let mut number = || -> Result<u64> {
        let number = numbers.next().ok_or_else(unexpected)??;
        number.parse().map_err(|_| unexpected())
    };
    let (seconds, micros) = (number()?, number()?);
    let millis = seconds.checked_mul(1000).and_then(|millis| millis.checked_add(micros / 1000));
    Timestamp::from_millis(millis.unwrap_or(u64::MAX)).map_err(|_| unexpected())
}

/// Checks that members are in order and at or after the first bound. `onward` is the order of a
/// member that comes later. Another program may have added members with other scores, and reading
/// page by page would then never end.
pub(crate) fn check_order<'a>(
    from: &[u8],
    onward: Ordering,
    members: impl IntoIterator<Item = &'a Value>,
) -> Result<()> {
    let mut last: Option<&[u8]> = None;
    for member in members {
        let Value::BulkString(member) = member else { continue };
        let follows = last.is_none_or(|last| member.as_slice().cmp(last) == onward);
        if !follows || !lex_bound::admits(from, member, onward) {
            return Err(out_of_order());
        }
        last = Some(member);
    }
    Ok(())
}

/// Checks that the bound of the next page is after the bound of this page.
pub(crate) fn check_progress(from: &[u8], onward: Ordering, next: Option<&[u8]>) -> Result<()> {
    let Some(next) = next else { return Ok(()) };
    if next == from || !lex_bound::admits(from, next.get(1..).unwrap_or_default(), onward) {
        return Err(out_of_order());
    }
    Ok(())
}

/// Decodes a string that may be missing.
pub(crate) fn bytes(value: Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        _ => Err(unexpected()),
    }
}

pub(crate) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|error| {
            Error::corrupt("a name in the store is not UTF-8: another program wrote it")
                .with_source(error)
        }),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(unexpected()),
    }
}

/// Decodes members of a set as bytes, because another program may have added members that are not
/// UTF-8.
pub(crate) fn members(value: Value) -> Result<Vec<Vec<u8>>> {
    let member = |value| bytes(value)?.ok_or_else(unexpected);
    array(value)?.into_iter().map(member).collect()
}
