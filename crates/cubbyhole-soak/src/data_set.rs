//! The data set of the load.

use cubbyhole::{Namespace, NamespacePrefix, Result, TenantId};

/// The names of all tenants, namespaces and keys: a fixed number of each.
///
/// The names contain characters that are special in some engines.
///
/// Every fourth key of a namespace is *short-lived*: it is always written with an expiry, which its
/// value also contains. The last keys of a namespace are *own* keys of one caller each. Only that
/// caller writes these keys, so it knows the correct reply. The last namespace of a tenant is
/// erased from time to time and has no own keys.
#[derive(Debug)]
pub struct DataSet {
    tenants: Vec<TenantId>,
    namespaces: Vec<Namespace>,
    keys: Vec<String>,
    callers: usize,
}

/// Identifies an entry by the numbers of its namespace and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// The number of the namespace, counted over all tenants.
    pub namespace: u16,
    /// The number of the key in its namespace.
    pub key: u16,
}

impl DataSet {
    /// The number of tenants.
    pub const TENANTS: usize = 20;
    /// The number of namespaces per tenant.
    pub const NAMESPACES: usize = 10;
    /// The number of shared keys per namespace.
    pub const KEYS: usize = 100;

    /// Creates the names. Each namespace has one key per caller, which only that caller writes.
    ///
    /// # Errors
    /// None in practice, because the names are valid.
    pub fn new(callers: usize) -> Result<Self> {
        let tenants: Vec<TenantId> = (0..Self::TENANTS)
            .map(|tenant| TenantId::new(format!("t%_{tenant:02}")))
            .collect::<Result<_>>()?;
        let mut namespaces = Vec::new();
        for tenant in &tenants {
            for scope in 0..Self::NAMESPACES {
                let namespace = Namespace::new(tenant.clone()).with_scope("agent:{7}")?;
                namespaces.push(namespace.with_scope(format!("*{scope}"))?);
            }
        }
        let keys = (0..Self::KEYS + callers).map(|key| format!("k:{key:04}")).collect();
        Ok(Self { tenants, namespaces, keys, callers })
    }

    /// All tenants.
    #[must_use]
    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// All namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// The keys of a namespace that any caller may write.
    #[must_use]
    pub fn shared_keys(&self) -> &[String] {
        &self.keys[..Self::KEYS]
    }

    /// The namespace of an entry.
    #[must_use]
    pub fn namespace(&self, id: EntryId) -> &Namespace {
        &self.namespaces[usize::from(id.namespace)]
    }

    /// The key of an entry.
    #[must_use]
    pub fn key(&self, id: EntryId) -> &str {
        &self.keys[usize::from(id.key)]
    }

    /// The number of a key, if it is in the data set.
    #[must_use]
    pub fn key_number(&self, key: &str) -> Option<u16> {
        self.keys.binary_search_by(|name| name.as_str().cmp(key)).ok()?.try_into().ok()
    }

    /// Whether the load erases this namespace from time to time.
    #[must_use]
    pub fn is_erased(&self, namespace: u16) -> bool {
        usize::from(namespace) % Self::NAMESPACES == Self::NAMESPACES - 1
    }

    /// Whether the entry is short-lived: always written with an expiry, which its value also
    /// contains.
    #[must_use]
    pub fn is_short_lived(&self, id: EntryId) -> bool {
        usize::from(id.key) < Self::KEYS && id.key.is_multiple_of(4)
    }

    /// A random shared entry.
    pub fn any_entry(&self, random: &mut fastrand::Rng) -> EntryId {
        let namespace = random.usize(..self.namespaces.len()) as u16;
        EntryId { namespace, key: random.usize(..Self::KEYS) as u16 }
    }

    /// One of two entries that many callers write. Neither is short-lived.
    pub fn contended_entry(&self, random: &mut fastrand::Rng) -> EntryId {
        EntryId { namespace: 0, key: 1 + random.u16(..2) }
    }

    /// A random own entry of `caller`.
    ///
    /// # Panics
    /// There is no such caller.
    pub fn own_entry(&self, caller: usize, random: &mut fastrand::Rng) -> EntryId {
        assert!(caller < self.callers, "there are {} callers", self.callers);
        let tenant = random.usize(..self.tenants.len());
        let scope = random.usize(..Self::NAMESPACES - 1);
        let namespace = (tenant * Self::NAMESPACES + scope) as u16;
        EntryId { namespace, key: (Self::KEYS + caller) as u16 }
    }

    /// The tenant of a namespace, as a prefix.
    #[must_use]
    pub fn tenant_prefix(&self, namespace: u16) -> NamespacePrefix {
        let tenant = usize::from(namespace) / Self::NAMESPACES;
        NamespacePrefix::from(self.tenants[tenant].clone())
    }
}
