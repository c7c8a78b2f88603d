//! Prefixes of namespaces.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Namespace, TenantId};
use crate::Result;

/// Matches namespaces by whole segments, the one it names included: `acme:a` matches `acme:a` and
/// `acme:a:b`, never `acme:ab`. It always names a tenant.
///
/// ```
/// use cubbyhole::{Namespace, NamespacePrefix};
///
/// let prefix = NamespacePrefix::parse("acme:agent-7")?;
/// assert!(prefix.matches(&Namespace::parse("acme:agent-7")?));
/// assert!(prefix.matches(&Namespace::parse("acme:agent-7:chat")?));
/// assert!(!prefix.matches(&Namespace::parse("acme:agent-70")?));
/// assert_eq!(NamespacePrefix::from_parts("acme", ["agent-7"])?, prefix);
/// # Ok::<(), cubbyhole::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacePrefix(Namespace);

impl NamespacePrefix {
    /// Reads the rendered form, the same as that of a namespace.
    ///
    /// # Errors
    /// As [`Namespace::parse`].
    pub fn parse(rendered: &str) -> Result<Self> {
        Namespace::parse(rendered).map(Self)
    }

    /// Builds a prefix from a tenant and zero or more scope segments, none of them escaped.
    /// Without segments it matches everything of the tenant.
    ///
    /// # Errors
    /// As [`Namespace::from_parts`].
    pub fn from_parts<I>(tenant: impl AsRef<str>, segments: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Namespace::from_parts(tenant, segments).map(Self)
    }

    /// Appends one scope segment, unescaped.
    ///
    /// # Errors
    /// As [`Namespace::with_scope`].
    pub fn with_scope(self, segment: impl AsRef<str>) -> Result<Self> {
        self.0.with_scope(segment).map(Self)
    }

    /// Whether `namespace` is the one that this prefix names or lies beneath it.
    #[must_use]
    pub fn matches(&self, namespace: &Namespace) -> bool {
        namespace
            .as_str()
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// The namespace that the prefix names, which it matches too.
    #[must_use]
    pub fn as_namespace(&self) -> &Namespace {
        &self.0
    }

    /// The rendered form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The tenant under which the prefix matches.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.0.tenant()
    }
}

impl From<Namespace> for NamespacePrefix {
    fn from(namespace: Namespace) -> Self {
        Self(namespace)
    }
}

impl From<&Namespace> for NamespacePrefix {
    fn from(namespace: &Namespace) -> Self {
        Self(namespace.clone())
    }
}

impl From<TenantId> for NamespacePrefix {
    fn from(tenant: TenantId) -> Self {
        Self(Namespace::new(tenant))
    }
}

impl Serialize for NamespacePrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NamespacePrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Namespace::deserialize(deserializer).map(Self)
    }
}
