//! What the servers answer, as the contract's types.

use cubbyhole_core::{Error, Result, Timestamp};
use redis::Value;

use crate::keys::lex_bound;

/// What a server answers that this build does not understand.
pub(crate) fn unexpected() -> Error {
    Error::internal("Redis answered what this build does not understand; run `cubbyhole doctor`")
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

/// What `TIME` answers: seconds and microseconds.
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

/// Members of a sorted set from a bound on stand in order while all have one score. Those that
/// another program gave another one would have whoever goes from page to page go round in circles.
pub(crate) fn check_order<'a>(
    from: &[u8],
    members: impl IntoIterator<Item = &'a Value>,
) -> Result<()> {
    let mut last: Option<&[u8]> = None;
    for member in members {
        let Value::BulkString(member) = member else { continue };
        if !lex_bound::admits(from, member) || last.is_some_and(|last| last >= member.as_slice()) {
            return Err(Error::corrupt("the keys are not in order: another program wrote one"));
        }
        last = Some(member);
    }
    Ok(())
}

/// Where a range goes on lies past where it began.
pub(crate) fn check_progress(from: &[u8], next: Option<&[u8]>) -> Result<()> {
    match next {
        Some(next)
            if next == from || !lex_bound::admits(from, next.get(1..).unwrap_or_default()) =>
        {
            Err(Error::corrupt("the keys are not in order: another program wrote one"))
        }
        _ => Ok(()),
    }
}

/// A string that may be missing.
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

/// Members of a set as they are: names, unless another program wrote them.
pub(crate) fn members(value: Value) -> Result<Vec<Vec<u8>>> {
    let member = |value| bytes(value)?.ok_or_else(unexpected);
    array(value)?.into_iter().map(member).collect()
}
