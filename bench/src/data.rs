//! What the stores are filled with: groups of ten namespaces, namespaces of a hundred keys, values
//! of a size.

use cubbyhole::{Bytes, Namespace, NamespacePrefix, TenantId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::Result;

pub const KEYS: usize = 100;
pub const NAMESPACES_OF_A_GROUP: usize = 10;
/// How many different values are written in turn.
const VALUES: usize = 64;

/// How namespaces are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A group is a tenant: `tenant-00077:agent-5`.
    ManyTenants,
    /// A group is a part of the one tenant: `acme:g77:n5`.
    OneTenant,
}

/// The tenant of [`Layout::OneTenant`].
pub const TENANT: &str = "acme";

impl Layout {
    /// The tenant, and the segments below it.
    pub fn parts(self, namespace: usize) -> (String, Vec<String>) {
        let (group, member) =
            (namespace / NAMESPACES_OF_A_GROUP, namespace % NAMESPACES_OF_A_GROUP);
        match self {
            Self::ManyTenants => (format!("tenant-{group:05}"), vec![format!("agent-{member}")]),
            Self::OneTenant => (TENANT.to_owned(), vec![format!("g{group}"), format!("n{member}")]),
        }
    }

    /// What all namespaces of a group are under.
    pub fn group(self, group: usize) -> (String, Option<String>) {
        match self {
            Self::ManyTenants => (format!("tenant-{group:05}"), None),
            Self::OneTenant => (TENANT.to_owned(), Some(format!("g{group}"))),
        }
    }
}

/// The names of everything in a store, made beforehand: making them is not measured.
pub struct Names {
    pub layout: Layout,
    /// As many again as are filled, for the workloads that insert.
    pub namespaces: Vec<Namespace>,
    /// The prefixes of the groups that are filled.
    pub groups: Vec<NamespacePrefix>,
    /// The same in every namespace.
    pub keys: Vec<String>,
    entries: usize,
}

impl Names {
    /// Names for so many entries, a multiple of a group's thousand.
    pub fn of(entries: usize, layout: Layout) -> Result<Self> {
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

    /// How many namespaces are filled.
    pub fn filled(&self) -> usize {
        self.entries / KEYS
    }

    pub fn rendered(&self, place: Place) -> (&str, &str) {
        (self.namespaces[place.namespace].as_str(), &self.keys[place.key])
    }

    /// The namespace, NUL, the key: what a store of pairs has to make of a place.
    pub fn with_location<R>(&self, place: Place, then: impl FnOnce(&str) -> R) -> R {
        let (ns, key) = self.rendered(place);
        // On the stack, as somebody would do who counts nanoseconds.
        let mut buffer = [0; 64];
        let length = ns.len() + 1 + key.len();
        buffer[..ns.len()].copy_from_slice(ns.as_bytes());
        buffer[ns.len() + 1..length].copy_from_slice(key.as_bytes());
        then(std::str::from_utf8(&buffer[..length]).unwrap_or_default())
    }

    pub fn location(&self, place: Place) -> String {
        self.with_location(place, str::to_owned)
    }
}

/// Where an entry is, by its place in [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub namespace: usize,
    pub key: usize,
}

impl Place {
    /// Of the entries in the order in which they are filled in.
    pub fn nth(index: usize) -> Self {
        Self { namespace: index / KEYS, key: index % KEYS }
    }

    pub fn group(self) -> usize {
        self.namespace / NAMESPACES_OF_A_GROUP
    }

    /// Every other entry expires, long after the run: a sweep has an index to look at and nothing
    /// to remove.
    pub fn expires(self) -> bool {
        self.key % 2 == 1
    }
}

/// A value in both forms in which stores take one.
#[derive(Clone)]
pub struct Value {
    pub text: String,
    /// The text as JSON.
    pub json: Bytes,
}

impl Value {
    /// In memory of its own, as a service has what it writes.
    pub fn owned(&self) -> Bytes {
        Bytes::copy_from_slice(&self.json)
    }
}

/// Random letters, so that little is gained by compressing them.
pub struct Values(Vec<Value>);

impl Values {
    /// Values of so many bytes as JSON.
    pub fn of(bytes: usize) -> Self {
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
    fn names_and_values_are_as_they_say() {
        let names = Names::of(3000, Layout::OneTenant).unwrap();
        assert_eq!((names.entries(), names.filled(), names.groups.len()), (3000, 30, 3));
        let place = Place::nth(2143);
        assert_eq!(names.location(place), "acme:g2:n1\0message-0043");
        assert_eq!(names.groups[place.group()].to_string(), "acme:g2");
        let names = Names::of(1000, Layout::ManyTenants).unwrap();
        assert_eq!(names.location(Place::nth(1999)), "tenant-00001:agent-9\0message-0099");
        let values = Values::of(256);
        assert_eq!(values.bytes(), 256);
        let value = values.nth(65);
        assert_eq!(serde_json::from_slice::<String>(&value.json).unwrap(), value.text);
    }
}
