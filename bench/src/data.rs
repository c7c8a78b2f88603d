//! What the stores are filled with: tenants of ten namespaces, namespaces of a hundred keys,
//! values of 256 bytes.

use cubbyhole::{Bytes, Namespace, NamespacePrefix, TenantId};

use crate::Result;

pub const KEYS: usize = 100;
pub const NAMESPACES_OF_A_TENANT: usize = 10;
pub const VALUE_BYTES: usize = 256;

/// The names of everything in a store, made beforehand: making them is not measured.
pub struct Names {
    pub tenants: Vec<NamespacePrefix>,
    pub namespaces: Vec<Namespace>,
    /// The same in every namespace.
    pub keys: Vec<String>,
}

impl Names {
    /// Names for so many entries, a multiple of a tenant's thousand.
    pub fn of(entries: usize) -> Result<Self> {
        let mut tenants = Vec::new();
        let mut namespaces = Vec::new();
        for tenant in 0..entries / KEYS / NAMESPACES_OF_A_TENANT {
            let tenant = TenantId::new(format!("tenant-{tenant:05}"))?;
            for agent in 0..NAMESPACES_OF_A_TENANT {
                let tenant = Namespace::new(tenant.clone());
                namespaces.push(tenant.with_scope(format!("agent-{agent}"))?);
            }
            tenants.push(tenant.into());
        }
        let keys = (0..KEYS).map(|key| format!("message-{key:04}")).collect();
        Ok(Self { tenants, namespaces, keys })
    }

    pub fn entries(&self) -> usize {
        self.namespaces.len() * self.keys.len()
    }
}

/// Where an entry is, by its place in [`Names`].
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub namespace: usize,
    pub key: usize,
}

impl Place {
    /// A place in one of so many tenants, which lie evenly among all that there are.
    pub fn random(random: &mut fastrand::Rng, names: &Names, tenants: usize) -> Self {
        let tenant = random.usize(..tenants) * (names.tenants.len() / tenants);
        Self {
            namespace: tenant * NAMESPACES_OF_A_TENANT + random.usize(..NAMESPACES_OF_A_TENANT),
            key: random.usize(..KEYS),
        }
    }

    /// A place anywhere.
    pub fn anywhere(random: &mut fastrand::Rng, names: &Names) -> Self {
        Self::random(random, names, names.tenants.len())
    }

    pub fn tenant(self) -> usize {
        self.namespace / NAMESPACES_OF_A_TENANT
    }

    /// Every other entry expires, long after the run: a sweep has an index to look at and nothing
    /// to remove.
    pub fn expires(self) -> bool {
        self.key % 2 == 1
    }
}

/// Random bytes, so that nothing gains by compressing them.
pub fn value(random: &mut fastrand::Rng) -> Bytes {
    let mut bytes = vec![0; VALUE_BYTES];
    random.fill(&mut bytes);
    bytes.into()
}
