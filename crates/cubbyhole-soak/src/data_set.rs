//! What there is to read and to write.

use cubbyhole::{Namespace, NamespacePrefix, Result, TenantId};

/// The names of all tenants, namespaces and keys: a fixed number of each.
///
/// Names hold characters that mean something to some engine. Of the keys of a namespace every
/// fourth is *mortal*: written with an expiry that its value knows too. The last ones *belong* to a
/// caller each, who alone writes them and so knows what must be read. The last namespace of a
/// tenant is erased now and then, and has no keys that belong to anybody.
#[derive(Debug)]
pub struct Population {
    tenants: Vec<TenantId>,
    namespaces: Vec<Namespace>,
    keys: Vec<String>,
    callers: usize,
}

/// Where an entry stands, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Which namespace, of all tenants'.
    pub namespace: u16,
    /// Which key of it.
    pub key: u16,
}

impl Population {
    /// How many tenants there are.
    pub const TENANTS: usize = 20;
    /// How many namespaces a tenant has.
    pub const NAMESPACES: usize = 10;
    /// How many keys a namespace has besides those that belong to callers.
    pub const KEYS: usize = 100;

    /// The names, with a key in each namespace for each of `callers`.
    ///
    /// # Errors
    /// None that could occur: the names are legal.
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

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, place: Place) -> &Namespace {
        &self.namespaces[usize::from(place.namespace)]
    }

    /// A key.
    #[must_use]
    pub fn key(&self, place: Place) -> &str {
        &self.keys[usize::from(place.key)]
    }

    /// Which number a key has, if it is one of these.
    #[must_use]
    pub fn key_number(&self, key: &str) -> Option<u16> {
        self.keys.binary_search_by(|name| name.as_str().cmp(key)).ok()?.try_into().ok()
    }

    /// Whether the namespace is one that is erased now and then.
    #[must_use]
    pub fn is_erased(&self, namespace: u16) -> bool {
        usize::from(namespace) % Self::NAMESPACES == Self::NAMESPACES - 1
    }

    /// Whether the entry is always written with an expiry, which stands in its value too.
    #[must_use]
    pub fn is_mortal(&self, place: Place) -> bool {
        usize::from(place.key) < Self::KEYS && place.key.is_multiple_of(4)
    }

    /// Any place that any caller may write.
    pub fn any(&self, random: &mut fastrand::Rng) -> Place {
        let namespace = random.usize(..self.namespaces.len()) as u16;
        Place { namespace, key: random.usize(..Self::KEYS) as u16 }
    }

    /// A place where many callers meet, none of them mortal.
    pub fn busy(&self, random: &mut fastrand::Rng) -> Place {
        Place { namespace: 0, key: 1 + random.u16(..2) }
    }

    /// A place that belongs to `caller`.
    ///
    /// # Panics
    /// If there is no such caller.
    pub fn own(&self, caller: usize, random: &mut fastrand::Rng) -> Place {
        assert!(caller < self.callers, "there are {} callers", self.callers);
        let tenant = random.usize(..self.tenants.len());
        let scope = random.usize(..Self::NAMESPACES - 1);
        let namespace = (tenant * Self::NAMESPACES + scope) as u16;
        Place { namespace, key: (Self::KEYS + caller) as u16 }
    }

    /// The tenant that a namespace is of, as a prefix.
    #[must_use]
    pub fn tenant_of(&self, namespace: u16) -> NamespacePrefix {
        let tenant = usize::from(namespace) / Self::NAMESPACES;
        NamespacePrefix::from(self.tenants[tenant].clone())
    }
}
