//! [`NamespacePrefix`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Namespace, TenantId};
use crate::limits::MAX_NAMESPACE_BYTES;
use crate::{Error, Result};

/// Matches a namespace and all namespaces beneath it, by whole segments.
///
/// `acme:a` matches `acme:a` and `acme:a:b`, but not `acme:ab`. A prefix always names a tenant.
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
    /// Parses the text form, which is that of a namespace.
    ///
    /// # Errors
    /// The errors of [`Namespace::parse`].
    pub fn parse(rendered: &str) -> Result<Self> {
        Namespace::parse(rendered).map(Self)
    }

    /// Creates a prefix from an unescaped tenant and zero or more unescaped scope segments. Without
    /// segments it matches all namespaces of the tenant.
    ///
    /// # Errors
    /// The errors of [`Namespace::from_parts`].
    pub fn from_parts<I>(tenant: impl AsRef<str>, segments: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Namespace::from_parts(tenant, segments).map(Self)
    }

    /// Appends one unescaped scope segment.
    ///
    /// # Errors
    /// The errors of [`Namespace::with_scope`].
    pub fn with_scope(self, segment: impl AsRef<str>) -> Result<Self> {
        self.0.with_scope(segment).map(Self)
    }

    /// Returns true if `namespace` is the namespace of this prefix or lies beneath it.
    #[must_use]
    pub fn matches(&self, namespace: &Namespace) -> bool {
        namespace
            .as_str()
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// Returns the namespace beneath this prefix whose last segments are the parts of `relative`. The
    /// tenant of `relative` becomes a segment.
    ///
    /// # Errors
    /// `InvalidArgument` if the result is longer than
    /// [`MAX_NAMESPACE_BYTES`](crate::limits::MAX_NAMESPACE_BYTES).
    ///
    /// ```
    /// use cubbyhole::{Namespace, NamespacePrefix};
    ///
    /// let prefix = NamespacePrefix::parse("acme:app")?;
    /// let absolute = prefix.join(&Namespace::parse("agent-7:chat")?)?;
    /// assert_eq!(absolute, Namespace::parse("acme:app:agent-7:chat")?);
    /// assert_eq!(prefix.strip(&absolute), Some(Namespace::parse("agent-7:chat")?));
    /// # Ok::<(), cubbyhole::Error>(())
    /// ```
    pub fn join(&self, relative: &Namespace) -> Result<Namespace> {
        let room = MAX_NAMESPACE_BYTES.saturating_sub(self.as_str().len() + 1);
        let length = relative.as_str().len();
        if length > room {
            return Err(Error::invalid_argument(format!(
                "the namespace has {length} bytes, more than the {room} that its prefix leaves of the \
                 limit of {MAX_NAMESPACE_BYTES} (MAX_NAMESPACE_BYTES)"
            )));
        }
        let parts = [self.as_str(), ":", relative.as_str()];
        // Short names are put together on the stack, which saves one of two allocations.
        let mut buffer = [0; 128];
        let mut end = 0;
        for part in parts {
            let start = end;
            end += part.len();
            let Some(target) = buffer.get_mut(start..end) else {
                return Ok(Namespace(parts.concat().into()));
            };
            target.copy_from_slice(part.as_bytes());
        }
        Ok(Namespace(match std::str::from_utf8(&buffer[..end]) {
            Ok(rendered) => rendered.into(),
            Err(_) => parts.concat().into(),
        }))
    }

    /// Returns the name of `namespace` relative to this prefix: the inverse of [`join`](Self::join).
    /// `None` if the namespace is not beneath the prefix, or has no relative name: it is the
    /// namespace of the prefix itself, or the first segment beneath the prefix is empty.
    #[must_use]
    pub fn strip(&self, namespace: &Namespace) -> Option<Namespace> {
        let rest = namespace.as_str().strip_prefix(self.as_str())?.strip_prefix(':')?;
        let is_name = !rest.is_empty() && !rest.starts_with(':');
        is_name.then(|| Namespace(rest.into()))
    }

    /// Returns the namespace that the prefix names. The prefix matches it too.
    #[must_use]
    pub fn as_namespace(&self) -> &Namespace {
        &self.0
    }

    /// Returns the text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the tenant.
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
