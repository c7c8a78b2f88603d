//! Where the entries are: one tenant, groups of ten namespaces, a hundred entries in each.

use cubbyhole::Namespace;

use crate::Result;

pub const TENANT: &str = "acme";
pub const ENTRIES: usize = 1_000_000;
pub const PER_NAMESPACE: usize = 100;
pub const NAMESPACES: usize = ENTRIES / PER_NAMESPACE;
pub const PER_GROUP: usize = 10;

/// The name of the namespace of entry `i`, in SQL. The peer writes names in the same way.
pub fn sql() -> String {
    let in_group = PER_GROUP * PER_NAMESPACE;
    format!("'{TENANT}:g' || i / {in_group} || ':n' || i / {PER_NAMESPACE} % {PER_GROUP}")
}

/// Where one entry is.
#[derive(Debug, Clone, Copy)]
pub struct Place(usize);

impl Place {
    pub fn anywhere(random: &mut fastrand::Rng) -> Self {
        Self(random.usize(0..ENTRIES))
    }

    /// As it is stored.
    pub fn rendered(self) -> String {
        format!("{TENANT}:{}:{}", self.group(), self.name())
    }

    fn group(self) -> String {
        format!("g{}", self.0 / (PER_GROUP * PER_NAMESPACE))
    }

    fn name(self) -> String {
        format!("n{}", self.0 / PER_NAMESPACE % PER_GROUP)
    }

    pub fn key(self) -> String {
        format!("k{}", self.0 % PER_NAMESPACE)
    }

    pub fn namespace(self) -> Result<Namespace> {
        Ok(Namespace::from_parts(TENANT, [self.group(), self.name()])?)
    }

    pub fn peer_namespace(self) -> entelix_memory::Namespace {
        let tenant = entelix_core::TenantId::new(TENANT);
        entelix_memory::Namespace::new(tenant).with_scope(self.group()).with_scope(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_name_a_place_alike() {
        let place = Place(77_543);
        assert_eq!(place.namespace().unwrap().as_str(), "acme:g77:n5");
        assert_eq!(place.peer_namespace().render(), "acme:g77:n5");
        assert_eq!(place.rendered(), "acme:g77:n5");
        assert_eq!(place.key(), "k43");
    }
}
