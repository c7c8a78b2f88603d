//! The data set: groups of ten namespaces, 100 keys per namespace, values of a fixed size.

use cubbyhole::{Bytes, Namespace, NamespacePrefix, TenantId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::Result;

pub const KEYS: usize = 100;
pub const NAMESPACES_OF_A_GROUP: usize = 10;
/// The number of different values. They are written in turn.
const VALUES: usize = 64;

/// The scheme of the namespace names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A group is a tenant: `tenant-00077:agent-5`.
    ManyTenants,
    /// There is one tenant, and a group is a subtree of it: `acme:g77:n5`.
    OneTenant,
}

/// The tenant of [`Layout::OneTenant`].
pub const TENANT: &str = "acme";

impl Layout {
    /// The tenant and the segments of a namespace.
    pub fn parts(self, namespace: usize) -> (String, Vec<String>) {
        let (group, member) =
            (namespace / NAMESPACES_OF_A_GROUP, namespace % NAMESPACES_OF_A_GROUP);
        match self {
            Self::ManyTenants => (format!("tenant-{group:05}"), vec![format!("agent-{member}")]),
            Self::OneTenant => (TENANT.to_owned(), vec![format!("g{group}"), format!("n{member}")]),
        }
    }

    /// The tenant and segment that all namespaces of a group share.
    pub fn group(self, group: usize) -> (String, Option<String>) {
        match self {
            Self::ManyTenants => (format!("tenant-{group:05}"), None),
            Self::OneTenant => (TENANT.to_owned(), Some(format!("g{group}"))),
        }
    }
}

/// The names of all entries. They are created in advance, so their creation is not measured.
pub struct Names {
    pub layout: Layout,
    /// Twice as many as are filled: workloads that insert use the second half.
    pub namespaces: Vec<Namespace>,
    /// The prefixes of the filled groups.
    pub groups: Vec<NamespacePrefix>,
    /// The keys, which are the same in every namespace.
    pub keys: Vec<String>,
    entries: usize,
}

impl Names {
    /// Creates names for `entries` entries, which must be a multiple of 1,000.
    pub fn new(entries: usize, layout: Layout) -> Result<Self> {
        let mut namespaces = Vec::new();
        for namespace in 0..2 * entries / KEYS {
            let (tenant, scope) = layout.parts(namespace);
            namespaces.push(Namespace::from_parts(&tenant, scope)?);
        }
        let mut groups = Vec::new();
        for group in 0..entries / KEYS / NAMESPACES_OF_A_GROUP {
            let (tenant, scope) = layout.group(group);
            let tenant = Namespace::new(TenantId::new(tenant)?);
            groups.push(match scope {
                Some(scope) => tenant.with_scope(scope)?.into(),
                None => tenant.into(),
            });
        }
        let keys = (0..KEYS).map(|key| format!("message-{key:04}")).collect();
        Ok(Self { layout, namespaces, groups, keys, entries })
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The number of filled namespaces.
    pub fn filled(&self) -> usize {
        self.entries / KEYS
    }

    pub fn rendered(&self, id: EntryId) -> (&str, &str) {
        (self.namespaces[id.namespace].as_str(), &self.keys[id.key])
    }

    /// Calls `then` with the location of an entry: the namespace, NUL and the key. Key/value stores
    /// without namespaces use it as their key.
    pub fn with_location<R>(&self, id: EntryId, then: impl FnOnce(&str) -> R) -> R {
        let (ns, key) = self.rendered(id);
        // Built on the stack, because an allocation would cost a noticeable part of a lookup.
        let mut buffer = [0; 64];
        let length = ns.len() + 1 + key.len();
        buffer[..ns.len()].copy_from_slice(ns.as_bytes());
        buffer[ns.len() + 1..length].copy_from_slice(key.as_bytes());
        then(std::str::from_utf8(&buffer[..length]).unwrap_or_default())
    }

    pub fn location(&self, id: EntryId) -> String {
        self.with_location(id, str::to_owned)
    }
}

/// Identifies an entry by its indexes in [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId {
    pub namespace: usize,
    pub key: usize,
}

impl EntryId {
    /// The entry with this number, in the order in which stores are filled.
    pub fn nth(index: usize) -> Self {
        Self { namespace: index / KEYS, key: index % KEYS }
    }

    pub fn group(self) -> usize {
        self.namespace / NAMESPACES_OF_A_GROUP
    }

    /// Whether the entry has a TTL. Every second entry has one that ends long after the run, so a
    /// sweep has an expiry index to search and nothing to remove.
    pub fn expires(self) -> bool {
        self.key % 2 == 1
    }
}

/// A value in the two forms that stores take.
#[derive(Clone)]
pub struct Value {
    pub text: String,
    /// The text as JSON.
    pub json: Bytes,
}

impl Value {
    /// A copy of the value, because a service also writes freshly allocated values.
    pub fn owned(&self) -> Bytes {
        Bytes::copy_from_slice(&self.json)
    }
}

/// Values of random letters, so compression gains little.
pub struct Values(Vec<Value>);

impl Values {
    /// Creates values with `bytes` bytes of JSON each.
    pub fn new(bytes: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(7);
        let mut value = || {
            let letter = |_| {
                char::from(
                    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ012345-_"
                        [random.random_range(0..60)],
                )
            };
            let text: String = (0..bytes - "\"\"".len()).map(letter).collect();
            Value { json: format!("\"{text}\"").into(), text }
        };
        Self((0..VALUES).map(|_| value()).collect())
    }

    pub fn bytes(&self) -> usize {
        self.0[0].json.len()
    }

    pub fn nth(&self, index: usize) -> &Value {
        &self.0[index % VALUES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_have_the_requested_sizes() {
        let names = Names::new(3000, Layout::OneTenant).unwrap();
        assert_eq!((names.entries(), names.filled(), names.groups.len()), (3000, 30, 3));
        let id = EntryId::nth(2143);
        assert_eq!(names.location(id), "acme:g2:n1\0message-0043");
        assert_eq!(names.groups[id.group()].to_string(), "acme:g2");
        let names = Names::new(1000, Layout::ManyTenants).unwrap();
        assert_eq!(names.location(EntryId::nth(1999)), "tenant-00001:agent-9\0message-0099");
        let values = Values::new(256);
        assert_eq!(values.bytes(), 256);
        let value = values.nth(65);
        assert_eq!(serde_json::from_slice::<String>(&value.json).unwrap(), value.text);
    }
}
