//! An entry as a script returns it.

use bytes::Bytes;
use cubbyhole_core::{Entry, Result};
use redis::Value;

use crate::replies::{array, bytes, unexpected};
use crate::stored_meta::StoredMeta;

/// What a script found of an entry: meta data and value, nothing, or meta data alone of a value
/// that was too much to be read with others.
#[derive(Debug)]
pub(crate) struct EntryReply {
    pub(crate) meta: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

impl EntryReply {
    pub(crate) const fn is_left_out(&self) -> bool {
        self.meta.is_some() && self.value.is_none()
    }

    pub(crate) fn into_entry(self) -> Result<Option<Entry<Bytes>>> {
        let (Some(meta), Some(value)) = (self.meta, self.value) else {
            return Ok(None);
        };
        Ok(Some(Entry { value: Bytes::from(value), meta: StoredMeta::decode(&meta)?.meta }))
    }

    /// The entry of an answer of one.
    pub(crate) fn only_entry(answer: Value) -> Result<Option<Entry<Bytes>>> {
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

    /// A failure is printed, shrunk, and leaves no file in the sources.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// An answer of any kind that the protocol has, nested.
    fn any_value() -> impl Strategy<Value = Value> {
        let bulk = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec(0..3_u8, META_BYTES..=META_BYTES),
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

    /// What is not understood is a defect or another program's, and never the caller's mistake.
    fn assert_refused<T: std::fmt::Debug>(result: Result<T>) {
        if let Err(error) = result {
            assert!([ErrorKind::Corrupt, ErrorKind::Internal].contains(&error.kind()), "{error:?}");
            assert!(error.message().is_ascii() && error.message().len() < 120, "{error:?}");
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_answer_is_read_or_refused(value in any_value()) {
            assert_refused(integer(&value));
            assert_refused(integers::<2>(value.clone()));
            assert_refused(bytes(value.clone()));
            assert_refused(text(value.clone()));
            assert_refused(EntryReply::only_entry(value.clone()));
            if let Ok(items) = array(value.clone()) {
                prop_assert_eq!(Value::Array(items), value);
            }
        }
    }
}
