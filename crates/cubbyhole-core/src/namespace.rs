//! [`TenantId`], [`Namespace`] and [`NamespacePrefix`].

mod prefix;

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{MAX_NAMESPACE_BYTES, check_text};
use crate::{Error, Result};

pub use prefix::NamespacePrefix;

/// The owner of data: a non-empty text without NUL, at most [`MAX_NAMESPACE_BYTES`] bytes when
/// escaped.
///
/// Tenants are ordered by their escaped form, like namespaces.
#[derive(Clone)]
pub struct TenantId {
    raw: Arc<str>,
    rendered: Arc<str>,
}

impl TenantId {
    /// Creates a tenant from its unescaped name.
    ///
    /// # Errors
    /// `InvalidArgument` if the name is empty, too long or contains NUL.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let mut rendered = String::with_capacity(name.len());
        push_escaped(&mut rendered, name);
        check_rendered(&rendered)?;
        if name.is_empty() {
            return Err(empty_tenant());
        }
        let raw: Arc<str> = name.into();
        let rendered = if rendered.len() == raw.len() { Arc::clone(&raw) } else { rendered.into() };
        Ok(Self { raw, rendered })
    }

    /// Returns the unescaped name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// Returns the name as it appears in the text of a namespace, with `\:` and `\\`.
    #[must_use]
    pub fn as_rendered(&self) -> &str {
        &self.rendered
    }
}

/// A tenant and zero or more scope segments. Keys belong to a namespace.
///
/// A namespace has one text form, `tenant:segment:segment`. A `:` inside the tenant or a segment is
/// escaped as `\:`, and `\` as `\\`. [`parse`](Self::parse) is the exact inverse. Equality, order
/// and hash are those of the text. Segments may be empty. The text is at most
/// [`MAX_NAMESPACE_BYTES`] bytes long. Cloning copies a pointer.
///
/// The JSON form is an array of strings: the tenant, then the segments.
///
/// ```
/// use cubbyhole::{Namespace, TenantId};
///
/// let ns = Namespace::new(TenantId::new("acme")?).with_scope("agent:7")?.with_scope("")?;
/// assert_eq!(ns.as_str(), r"acme:agent\:7:");
/// assert_eq!(Namespace::parse(ns.as_str())?, ns);
/// assert_eq!(ns.segments().collect::<Vec<_>>(), ["agent:7", ""]);
/// # Ok::<(), cubbyhole::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Creates the namespace of a tenant without scope segments.
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self(tenant.rendered)
    }

    /// Creates a namespace from unescaped parts.
    ///
    /// # Errors
    /// `InvalidArgument` if the tenant is empty, a part contains NUL or the text is too long.
    pub fn from_parts<I>(tenant: impl AsRef<str>, segments: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut rendered = TenantId::new(tenant)?.rendered.to_string();
        for segment in segments {
            rendered.push(':');
            push_escaped(&mut rendered, segment.as_ref());
            check_rendered(&rendered)?;
        }
        Ok(Self(rendered.into()))
    }

    /// Appends one unescaped scope segment, which may be empty.
    ///
    /// # Errors
    /// `InvalidArgument` if the segment contains NUL or the text becomes too long.
    pub fn with_scope(self, segment: impl AsRef<str>) -> Result<Self> {
        let segment = segment.as_ref();
        let mut rendered = String::with_capacity(self.0.len() + 1 + segment.len());
        rendered.push_str(&self.0);
        rendered.push(':');
        push_escaped(&mut rendered, segment);
        check_rendered(&rendered)?;
        Ok(Self(rendered.into()))
    }

    /// Parses the text form: the exact inverse of [`as_str`](Self::as_str).
    ///
    /// # Errors
    /// `InvalidArgument` if the tenant is empty, an escape is not `\:` or `\\`, or the text contains
    /// NUL or is too long.
    pub fn parse(rendered: &str) -> Result<Self> {
        check_rendered(rendered)?;
        let mut chars = rendered.chars();
        while let Some(c) = chars.next() {
            if c == '\\' && !matches!(chars.next(), Some('\\' | ':')) {
                return Err(Error::invalid_argument(
                    r"a `\` in a namespace must be written `\\`, and a `:` inside a name `\:`",
                ));
            }
        }
        if rendered.is_empty() || rendered.starts_with(':') {
            return Err(empty_tenant());
        }
        Ok(Self(rendered.into()))
    }

    /// Returns the text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        let rendered = &self.0[..first_separator(&self.0)];
        let raw = unescape(rendered);
        let rendered: Arc<str> =
            if rendered.len() == self.0.len() { Arc::clone(&self.0) } else { rendered.into() };
        match raw {
            Cow::Borrowed(_) => TenantId { raw: Arc::clone(&rendered), rendered },
            Cow::Owned(raw) => TenantId { raw: raw.into(), rendered },
        }
    }

    /// Returns the scope segments in order, unescaped.
    pub fn segments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let mut rest = self.0.get(first_separator(&self.0) + 1..);
        std::iter::from_fn(move || {
            let text = rest?;
            let end = first_separator(text);
            rest = text.get(end + 1..);
            Some(unescape(&text[..end]))
        })
    }
}

/// Lets collections of namespaces be searched by text: equality, order and hash are those of the text.
impl Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<TenantId> for Namespace {
    fn from(tenant: TenantId) -> Self {
        Self::new(tenant)
    }
}

fn empty_tenant() -> Error {
    Error::invalid_argument("the tenant is empty; a namespace begins with its tenant")
}

fn check_rendered(rendered: &str) -> Result<()> {
    check_text(rendered, "namespace", "MAX_NAMESPACE_BYTES", MAX_NAMESPACE_BYTES)
}

fn push_escaped(out: &mut String, part: &str) {
    for c in part.chars() {
        if matches!(c, ':' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

fn unescape(part: &str) -> Cow<'_, str> {
    if !part.contains('\\') {
        return Cow::Borrowed(part);
    }
    let mut out = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    Cow::Owned(out)
}

/// Returns the index of the first unescaped `:`, or the length of the text.
fn first_separator(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b':' => return at,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    text.len()
}

impl PartialEq for TenantId {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for TenantId {}

impl Hash for TenantId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}

impl PartialOrd for TenantId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TenantId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rendered.cmp(&other.rendered)
    }
}

macro_rules! text_form {
    ($($name:ident: $parse:path, $show:ident;)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.$show())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.$show()).finish()
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                $parse(text)
            }
        })*
    };
}

text_form! {
    TenantId: TenantId::new, as_str;
    Namespace: Namespace::parse, as_str;
    NamespacePrefix: NamespacePrefix::parse, as_str;
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Namespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_seq(None)?;
        parts.serialize_element(self.tenant().as_str())?;
        for segment in self.segments() {
            parts.serialize_element(&segment)?;
        }
        parts.end()
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Namespace;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings: a tenant and its scope segments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Namespace, A::Error> {
                let tenant: String = parts
                    .next_element()?
                    .ok_or_else(|| A::Error::custom("a namespace begins with its tenant"))?;
                let tenant = TenantId::new(tenant).map_err(A::Error::custom)?;
                let mut namespace = Namespace::new(tenant);
                while let Some(segment) = parts.next_element::<String>()? {
                    namespace = namespace.with_scope(segment).map_err(A::Error::custom)?;
                }
                Ok(namespace)
            }
        }

        deserializer.deserialize_seq(Parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![Just(':'), Just('\\'), Just('a'), Just('\n'), any::<char>()],
            0..6,
        )
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\0').collect())
    }

    proptest! {
        #[test]
        fn parse_is_the_exact_inverse_of_rendering(
            tenant in part().prop_filter("not empty", |t| !t.is_empty()),
            segments in proptest::collection::vec(part(), 0..5),
        ) {
            let ns = Namespace::from_parts(&tenant, &segments).unwrap();
            let parsed = Namespace::parse(ns.as_str()).unwrap();
            prop_assert_eq!(&parsed, &ns);
            let ours = parsed.tenant();
            prop_assert_eq!(ours.as_str(), tenant.as_str());
            prop_assert_eq!(&ours, &TenantId::new(&tenant).unwrap());
            prop_assert_eq!(parsed.segments().collect::<Vec<_>>(), segments.clone());
            let json = serde_json::to_string(&ns).unwrap();
            prop_assert_eq!(serde_json::from_str::<Namespace>(&json).unwrap(), ns);
        }

        #[test]
        fn parsed_text_renders_unchanged(text in "[a:\\\\]{0,12}") {
            if let Ok(ns) = Namespace::parse(&text) {
                let rebuilt = Namespace::from_parts(
                    ns.tenant().as_str(),
                    ns.segments().map(Cow::into_owned),
                ).unwrap();
                prop_assert_eq!(rebuilt.as_str(), text);
            }
        }

        #[test]
        fn joined_name_is_stripped_to_the_same_name(
            ours in proptest::collection::vec(part(), 0..3),
            tenant in part().prop_filter("not empty", |t| !t.is_empty()),
            theirs in proptest::collection::vec(part(), 0..4),
        ) {
            let prefix = NamespacePrefix::from_parts("t", &ours).unwrap();
            let relative = Namespace::from_parts(&tenant, &theirs).unwrap();
            let joined = prefix.join(&relative).unwrap();
            let segments = ours.iter().chain([&tenant]).chain(&theirs);
            prop_assert_eq!(&joined, &Namespace::from_parts("t", segments).unwrap());
            prop_assert!(prefix.matches(&joined));
            prop_assert_eq!(prefix.strip(&joined), Some(relative));
        }

        #[test]
        fn stripped_name_joins_to_the_same_namespace(
            prefix in "[a:\\\\]{1,4}",
            name in "[a:\\\\]{1,10}",
        ) {
            let parsed = (NamespacePrefix::parse(&prefix), Namespace::parse(&name));
            if let (Ok(prefix), Ok(name)) = parsed
                && let Some(relative) = prefix.strip(&name)
            {
                prop_assert!(prefix.matches(&name));
                prop_assert_eq!(&Namespace::parse(relative.as_str()).unwrap(), &relative);
                prop_assert_eq!(prefix.join(&relative).unwrap(), name);
            }
        }

        #[test]
        fn a_prefix_matches_by_whole_segments(
            ours in proptest::collection::vec(part(), 0..3),
            theirs in proptest::collection::vec(part(), 0..4),
        ) {
            let prefix = NamespacePrefix::from(Namespace::from_parts("t", &ours).unwrap());
            let ns = Namespace::from_parts("t", &theirs).unwrap();
            prop_assert_eq!(prefix.matches(&ns), theirs.starts_with(&ours));
        }
    }

    #[test]
    fn a_prefix_is_built_from_the_parts_of_its_namespace() {
        for segments in [vec![], vec!["a:b"], vec!["", r"c\"]] {
            let ns = Namespace::from_parts("ac:me", &segments).unwrap();
            let prefix = NamespacePrefix::from_parts("ac:me", &segments).unwrap();
            assert_eq!(prefix, NamespacePrefix::from(ns));
        }
        let long = "x".repeat(MAX_NAMESPACE_BYTES);
        for (tenant, segment) in [("", "a"), ("t\0", "a"), ("t", "a\0"), ("t", long.as_str())] {
            let error = NamespacePrefix::from_parts(tenant, [segment]).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn invalid_namespace_text_is_refused() {
        for text in ["", ":", ":a", r"a\", r"a\b", r"a:\", "a\0", "a:b\0"] {
            assert!(Namespace::parse(text).is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<Namespace>("[]").is_err());
        assert!(serde_json::from_str::<Namespace>(r#"[""]"#).is_err());
    }

    #[test]
    fn namespace_limit_counts_escapes() {
        assert!(TenantId::new("x".repeat(MAX_NAMESPACE_BYTES)).is_ok());
        assert!(TenantId::new("x".repeat(MAX_NAMESPACE_BYTES + 1)).is_err());
        assert!(TenantId::new(":".repeat(MAX_NAMESPACE_BYTES / 2)).is_ok());
        assert!(TenantId::new(":".repeat(MAX_NAMESPACE_BYTES / 2 + 1)).is_err());
    }
}
