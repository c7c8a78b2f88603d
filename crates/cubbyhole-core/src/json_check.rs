//! Detects values that would not round-trip through JSON, before they are written.
//!
//! `serde_json` writes NaN and infinities as `null`, writes `Some(None)` like `None`, and writes
//! deeper nesting than it parses. The serializer of this module writes nothing. It traverses the value
//! and reports whether it serialises to null.

use std::fmt;

use serde::ser::{self, Serialize};

use crate::{Error, Result};

/// Maximum nesting that `serde_json` parses.
const MAX_DEPTH: u32 = 127;

pub(crate) fn check<V: Serialize + ?Sized>(value: &V) -> Result<()> {
    value.serialize(Walk { depth: 0 }).map(drop).map_err(|refusal| match refusal {
        Refusal::Known(message) => Error::codec(message),
        // The message of the user's own `Serialize` is dropped: it might contain a value.
        Refusal::Custom => Error::codec("the value's own `Serialize` refused it"),
    })
}

#[derive(Debug)]
enum Refusal {
    Known(&'static str),
    Custom,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value cannot be kept as JSON")
    }
}

impl std::error::Error for Refusal {}

impl ser::Error for Refusal {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Custom
    }
}

/// Whether the value serialises to null.
type Null = bool;
type Walked = Result<Null, Refusal>;

#[derive(Clone, Copy)]
struct Walk {
    depth: u32,
}

impl Walk {
    fn deeper(self) -> Result<Self, Refusal> {
        if self.depth == MAX_DEPTH {
            return Err(Refusal::Known(
                "the value is nested deeper than 127, which JSON's reader refuses",
            ));
        }
        Ok(Self { depth: self.depth + 1 })
    }

    fn float(finite: bool) -> Walked {
        if finite {
            return Ok(false);
        }
        Err(Refusal::Known("the value holds NaN or an infinity, which JSON cannot keep"))
    }
}

macro_rules! never_null {
    ($($name:ident: $ty:ty,)*) => {
        $(fn $name(self, _: $ty) -> Walked {
            Ok(false)
        })*
    };
}

impl ser::Serializer for Walk {
    type Ok = Null;
    type Error = Refusal;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    never_null! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
    }

    fn serialize_f32(self, value: f32) -> Walked {
        Self::float(value.is_finite())
    }

    fn serialize_f64(self, value: f64) -> Walked {
        Self::float(value.is_finite())
    }

    fn serialize_bytes(self, _: &[u8]) -> Walked {
        self.deeper().map(|_| false)
    }

    fn serialize_none(self) -> Walked {
        Ok(true)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Walked {
        if value.serialize(self)? {
            return Err(Refusal::Known(
                "the value holds `Some` of something that is null in JSON, which reads back as `None`",
            ));
        }
        Ok(false)
    }

    fn serialize_unit(self) -> Walked {
        Ok(true)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Walked {
        Ok(true)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Walked {
        Ok(false)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Walked {
        value.serialize(self.deeper()?).map(|_| false)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Refusal> {
        self.deeper()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refusal> {
        self.deeper()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refusal> {
        self.deeper()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refusal> {
        self.deeper()?.deeper()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Refusal> {
        self.deeper()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refusal> {
        self.deeper()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refusal> {
        self.deeper()?.deeper()
    }
}

macro_rules! elements {
    ($($of:ident: $name:ident($($label:ty)?);)*) => {
        $(impl ser::$of for Walk {
            type Ok = Null;
            type Error = Refusal;

            fn $name<T: Serialize + ?Sized>(&mut self, $(_: $label,)? value: &T) -> Result<(), Refusal> {
                value.serialize(*self).map(drop)
            }

            fn end(self) -> Walked {
                Ok(false)
            }
        })*
    };
}

elements! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}

impl ser::SerializeMap for Walk {
    type Ok = Null;
    type Error = Refusal;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refusal> {
        // `serde_json` itself refuses a key that is neither a string nor a number.
        key.serialize(*self).map(drop)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        value.serialize(*self).map(drop)
    }

    fn end(self) -> Walked {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde::Deserialize;

    use crate::{Codec, ErrorKind, JsonCodec};

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    enum Shape {
        Unit,
        New(Box<Option<Shape>>),
        Tuple(u8, Vec<Shape>),
        Struct { x: f64 },
    }

    fn refused<V: serde::Serialize + serde::de::DeserializeOwned>(value: &V) {
        let error = JsonCodec.encode(value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
    }

    fn kept<V>(value: &V)
    where
        V: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let bytes = JsonCodec.encode(value).unwrap();
        assert_eq!(&JsonCodec.decode(&bytes).unwrap() as &V, value);
    }

    #[test]
    fn values_that_json_cannot_represent_are_refused() {
        refused(&f64::NAN);
        refused(&vec![1.0_f32, f32::INFINITY]);
        refused(&BTreeMap::from([("x", f64::NEG_INFINITY)].map(|(k, v)| (k.to_owned(), v))));
        refused(&Some(None::<u8>));
        refused(&Some(()));
        refused(&vec![Some(Some(None::<u8>))]);
        refused(&Shape::Struct { x: f64::NAN });
        refused(&Shape::New(Box::new(Some(Shape::Tuple(0, vec![Shape::Struct { x: f64::NAN }])))));
    }

    #[test]
    fn representable_values_round_trip() {
        kept(&vec![0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX, -0.0, 5e-324]);
        kept(&1.000_000_1_f32);
        kept(&Some(Some(7)));
        kept(&(i128::MIN, u128::MAX));
        kept(&vec![Some("a"), None].into_iter().map(|s| s.map(str::to_owned)).collect::<Vec<_>>());
        kept(&Shape::New(Box::new(None)));
        kept(&Shape::Tuple(1, vec![Shape::Unit, Shape::Struct { x: -0.5 }]));
        kept(&BTreeMap::from([(1_u8, "é\u{0}\u{202e}".to_owned())]));
    }

    #[test]
    fn nesting_limit_is_that_of_the_parser() {
        fn arrays(depth: usize) -> serde_json::Value {
            (0..depth)
                .fold(serde_json::Value::Null, |inner, _| serde_json::Value::Array(vec![inner]))
        }
        kept(&arrays(127));
        refused(&arrays(128));
        let text = arrays(128).to_string();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
    }

    #[test]
    fn decoding_error_contains_no_value() {
        let decoded: crate::Result<u8> = JsonCodec.decode(&Bytes::from_static(b"\"s3cret\""));
        let error = decoded.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
