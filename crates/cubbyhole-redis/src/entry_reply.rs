//! Entries in the replies of scripts.

use bytes::Bytes;
use cubbyhole_core::{Entry, Result};
use redis::Value;

use crate::replies::{array, bytes, unexpected};
use crate::stored_meta::StoredMeta;

/// An entry in the reply of a script: metadata and value, or neither if there is no entry. The
/// value alone is missing if it exceeded the byte limit of the script.
#[derive(Debug)]
pub(crate) struct EntryReply {
    pub(crate) meta: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

impl EntryReply {
    pub(crate) const fn is_value_omitted(&self) -> bool {
        self.meta.is_some() && self.value.is_none()
    }

    pub(crate) fn into_entry(self) -> Result<Option<Entry<Bytes>>> {
        let (Some(meta), Some(value)) = (self.meta, self.value) else {
            return Ok(None);
        };
        Ok(Some(Entry { value: Bytes::from(value), meta: StoredMeta::decode(&meta)?.meta }))
    }

    /// Decodes a reply that contains this many entries: metadata and value of each.
    pub(crate) fn decode_all(answer: Value, count: usize) -> Result<Vec<Self>> {
        let answer = array(answer)?;
        if answer.len() != 2 * count {
            return Err(unexpected());
        }
        let mut answer = answer.into_iter();
        let mut entries = Vec::with_capacity(count);
        while let (Some(meta), Some(value)) = (answer.next(), answer.next()) {
            entries.push(Self { meta: bytes(meta)?, value: bytes(value)? });
        }
        Ok(entries)
    }

    /// Decodes a reply that contains one entry.
    pub(crate) fn decode_one(answer: Value) -> Result<Option<Entry<Bytes>>> {
        let [meta, value] = array(answer)?.try_into().map_err(|_| unexpected())?;
        Self { meta: bytes(meta)?, value: bytes(value)? }.into_entry()
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;
    use crate::replies::{integer, integers, text};
    use crate::stored_meta::META_BYTES;

    /// Prints a shrunk failure, and writes no regression file.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Replies of every kind in the protocol, nested.
    fn any_value() -> impl Strategy<Value = Value> {
        let bulk = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec(0..3_u8, META_BYTES..=META_BYTES),
            prop::collection::vec(0..3_u8, META_BYTES + 6..=META_BYTES + 6),
        ];
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Double),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,8}".prop_map(Value::SimpleString),
            bulk.prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let two = prop::collection::vec((inner.clone(), inner.clone()), 0..3);
            prop_oneof![
                2 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                1 => prop::collection::vec(inner, 0..3).prop_map(Value::Set),
                1 => two.prop_map(Value::Map),
            ]
        })
    }

    /// A malformed reply is a defect or was written by another program. It is never the caller's
    /// mistake.
    fn assert_refused<T: std::fmt::Debug>(result: Result<T>) {
        if let Err(error) = result {
            assert!([ErrorKind::Corrupt, ErrorKind::Internal].contains(&error.kind()), "{error:?}");
            assert!(error.message().is_ascii() && error.message().len() < 120, "{error:?}");
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_reply_decodes_or_is_an_error(value in any_value()) {
            assert_refused(integer(&value));
            assert_refused(integers::<2>(value.clone()));
            assert_refused(bytes(value.clone()));
            assert_refused(text(value.clone()));
            assert_refused(EntryReply::decode_one(value.clone()));
            assert_refused(EntryReply::decode_all(value.clone(), 2));
            if let Ok(items) = array(value.clone()) {
                prop_assert_eq!(Value::Array(items), value);
            }
        }
    }
}
