//! The values that cases write.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A type of values that the cases can write and compare.
///
/// Implement it for your own type to run the suite on a store of it.
pub trait Sample: Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Returns the value with this number. Different numbers must give different values.
    fn sample(number: u64) -> Self;

    /// Returns a value whose encoded form has exactly this number of bytes. The default returns
    /// `None`, and the cases about the limit for values are ignored.
    fn sized(bytes: usize) -> Option<Self> {
        let _ = bytes;
        None
    }

    /// Returns valid values that a codec or an engine is likely to damage. The store must return
    /// each one unchanged.
    fn awkward() -> Vec<Self> {
        Vec::new()
    }

    /// Returns a text that every [`sample`](Self::sample) contains, both encoded and in debug form.
    /// Cases search for it in error messages, which must not contain values.
    fn marker() -> Option<&'static str> {
        None
    }
}

const MARKER: &str = "cubbyhole-sample";

impl Sample for Bytes {
    fn sample(number: u64) -> Self {
        // Text, followed by bytes that are not UTF-8 and by the number.
        let mut bytes = format!("{MARKER} {number}\n").into_bytes();
        bytes.extend([0x00, 0xff, 0xc3, 0x28]);
        bytes.extend(number.to_le_bytes());
        bytes.into()
    }

    fn sized(bytes: usize) -> Option<Self> {
        Some(incompressible(bytes).into())
    }

    fn awkward() -> Vec<Self> {
        vec![
            Self::new(),
            Self::from_static(b"\0"),
            Self::from_static(b" "),
            Self::from_static(b"\n"),
            Self::from_static(b"null"),
            Self::from_static(b"{\"not\": closed"),
            Self::from_static(b"\\x00 \\u0000 %s ' \" ; --"),
            Self::from_static("\u{feff}e\u{301} \u{202e} \u{1f980}".as_bytes()),
            (0..=u8::MAX).collect(),
            incompressible(100_000).into(),
        ]
    }

    fn marker() -> Option<&'static str> {
        Some(MARKER)
    }
}

/// Returns random bytes that do not compress, and are the same in every run.
fn incompressible(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// A structured value, to run the suite on `Typed` and on stores of serde values. It has text,
/// floats that are compared by their bits, options and nested maps.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Document {
    /// Any Unicode text.
    pub text: String,
    /// A number that an `f64` cannot represent exactly.
    pub number: u64,
    /// Floats, compared by their bits.
    pub floats: Vec<f64>,
    /// An optional text.
    pub note: Option<String>,
    /// Nested maps, with any Unicode text as keys.
    pub nested: BTreeMap<String, BTreeMap<String, Option<i64>>>,
    /// Nested lists.
    pub tree: Vec<Document>,
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        let bits = |floats: &[f64]| floats.iter().map(|float| float.to_bits()).collect::<Vec<_>>();
        self.text == other.text
            && self.number == other.number
            && bits(&self.floats) == bits(&other.floats)
            && self.note == other.note
            && self.nested == other.nested
            && self.tree == other.tree
    }
}

impl Document {
    fn of_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn of_floats(floats: impl Into<Vec<f64>>) -> Self {
        Self { floats: floats.into(), ..Self::default() }
    }

    fn nested(depth: usize) -> Self {
        (0..depth)
            .fold(Self::of_text("leaf"), |inner, _| Self { tree: vec![inner], ..Self::default() })
    }
}

impl Sample for Document {
    fn sample(number: u64) -> Self {
        let inner = BTreeMap::from([
            ("%_\\".to_owned(), Some(-1)),
            ("\u{1f980} e\u{301}".to_owned(), None),
        ]);
        Self {
            text: format!("{MARKER} {number} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \"quoted\"\n"),
            number: u64::MAX - number,
            floats: vec![0.1 + 0.2, -0.0, f64::MIN_POSITIVE, f64::MAX, number as f64 / 3.0],
            note: number.is_multiple_of(2).then(|| format!("note {number}")),
            nested: BTreeMap::from([(format!("map {number}"), inner)]),
            tree: vec![Self::of_text("leaf")],
        }
    }

    fn sized(bytes: usize) -> Option<Self> {
        let empty = serde_json::to_vec(&Self::default()).ok()?.len();
        Some(Self::of_text("x".repeat(bytes.checked_sub(empty)?)))
    }

    fn awkward() -> Vec<Self> {
        let mut values = vec![
            Self::default(),
            Self::of_text("\0 \u{1} \u{7f} \u{2028} \u{feff} \u{ffff} \u{10ffff}"),
            Self::of_text("\\u0000 \\x00 \\ / \" ' %s"),
            Self::of_text("e\u{301} is not \u{e9}"),
            Self::of_floats([f64::MIN_POSITIVE, f64::EPSILON, 5e-324, f64::MAX, f64::MIN]),
            Self::of_floats([0.1, 0.1 + 0.2, 1.0 / 3.0, 1e16, 9_007_199_254_740_993.0, -0.0]),
            Self { number: u64::MAX, note: Some(String::new()), ..Self::default() },
            // Each level takes two levels of JSON: the sum is below the limit of 127 for reading.
            Self::nested(60),
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let floats = std::iter::repeat_with(|| f64::from_bits(random.u64(..)));
        values.push(Self::of_floats(
            floats.filter(|float| float.is_finite()).take(500).collect::<Vec<_>>(),
        ));
        values
    }

    fn marker() -> Option<&'static str> {
        Some(MARKER)
    }
}

impl Sample for String {
    fn sample(number: u64) -> Self {
        format!("{MARKER} {number}")
    }

    fn sized(bytes: usize) -> Option<Self> {
        Some("x".repeat(bytes))
    }

    fn awkward() -> Vec<Self> {
        ["", "\0", "null", "\"", "\u{202e}e\u{301}", "\u{10ffff}"].map(Self::from).into()
    }

    fn marker() -> Option<&'static str> {
        Some(MARKER)
    }
}
