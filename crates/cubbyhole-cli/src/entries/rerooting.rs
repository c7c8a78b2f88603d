//! Renames namespaces: replaces one prefix with another.

use cubbyhole::{Error, Namespace, NamespacePrefix, Result};

use crate::output::escape;

/// Replaces the prefix `from` with `to`, by whole segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rerooting {
    from: NamespacePrefix,
    to: NamespacePrefix,
}

impl Rerooting {
    pub(crate) fn new(from: NamespacePrefix, to: NamespacePrefix) -> Self {
        Self { from, to }
    }

    /// The replaced prefix.
    pub(crate) fn from(&self) -> &NamespacePrefix {
        &self.from
    }

    /// The new prefix.
    pub(crate) fn to(&self) -> &NamespacePrefix {
        &self.to
    }

    /// Returns the new name of a namespace: `to`, followed by the segments below `from`. The order of
    /// namespaces does not change.
    ///
    /// # Errors
    /// `InvalidArgument` if the namespace is not under `from`, or the new name is too long.
    pub(crate) fn apply(&self, namespace: &Namespace) -> Result<Namespace> {
        let name = || escape(namespace.as_str());
        if !self.from.matches(namespace) {
            return Err(Error::invalid_argument(format!(
                "the namespace {} is not under {}",
                name(),
                escape(self.from.as_str())
            )));
        }
        let above = self.from.as_namespace().segments().count();
        let mut renamed = self.to.as_namespace().clone();
        for segment in namespace.segments().skip(above) {
            renamed = renamed.with_scope(segment).map_err(|error| {
                Error::invalid_argument(format!(
                    "{} has no name under {}: {}",
                    name(),
                    escape(self.to.as_str()),
                    error.message()
                ))
            })?;
        }
        Ok(renamed)
    }

    /// Returns the opposite: replaces `to` with `from`.
    pub(crate) fn inverse(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }

    /// Whether a namespace can be under both prefixes.
    pub(crate) fn overlaps(&self) -> bool {
        let Self { from, to } = self;
        from.matches(to.as_namespace()) || to.matches(from.as_namespace())
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole::limits::MAX_NAMESPACE_BYTES;
    use cubbyhole::{ErrorKind, TenantId};
    use proptest::prelude::*;

    use super::*;

    fn rerooting(from: &str, to: &str) -> Rerooting {
        let parse = |text| NamespacePrefix::parse(text).unwrap();
        Rerooting::new(parse(from), parse(to))
    }

    #[test]
    fn whole_segments_of_the_prefix_are_replaced() {
        for (from, to, name, expected) in [
            ("acme", "globex", "acme", Some("globex")),
            ("acme", "globex", "acme:a:", Some("globex:a:")),
            ("acme:a", "globex", "acme:a:b", Some("globex:b")),
            ("acme", "globex:x:y", r"acme:a\:b:c\\", Some(r"globex:x:y:a\:b:c\\")),
            (r"a\:b", r"c\\", r"a\:b:\:", Some(r"c\\:\:")),
            (r"a\\", "c", r"a\\:d", Some("c:d")),
            ("acme:", "b", "acme::x", Some("b:x")),
            ("acme:a", "globex", "acme:ab", None),
            ("acme", "globex", "acme-2", None),
            ("acme:a", "globex", "acme", None),
            ("a", "b", r"a\:x", None),
        ] {
            let renamed = rerooting(from, to).apply(&Namespace::parse(name).unwrap());
            match expected {
                Some(expected) => assert_eq!(renamed.unwrap().as_str(), expected),
                None => assert!(renamed.unwrap_err().message().contains("is not under"), "{name}"),
            }
        }
    }

    #[test]
    fn name_that_becomes_too_long_is_refused() {
        let long = Namespace::new(TenantId::new("a").unwrap());
        let long = long.with_scope("x".repeat(MAX_NAMESPACE_BYTES - 2)).unwrap();
        assert!(rerooting("a", "b").apply(&long).is_ok());
        let error = rerooting("a", "bc").apply(&long).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("MAX_NAMESPACE_BYTES"), "{error}");
    }

    #[test]
    fn prefixes_overlap_if_one_is_under_the_other() {
        for (from, to, expected) in [
            ("acme", "acme", true),
            ("acme", "acme:a", true),
            ("acme:a", "acme", true),
            ("acme:a", "acme:b", false),
            ("acme:a", "acme:ab", false),
            ("acme", "acme-2", false),
            (r"a\:b", "a", false),
        ] {
            assert_eq!(rerooting(from, to).overlaps(), expected, "{from} {to}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn order_is_kept_and_the_inverse_restores_the_name(
            from in "[ab:]{1,3}", to in "[ab:\\\\]{1,3}",
            names in prop::collection::vec(prop::collection::vec("[ab:\\\\;9-]{0,2}", 0..3), 1..6),
        ) {
            let parse = |name: &str| NamespacePrefix::from_parts(name, [name]).unwrap();
            let rerooting = Rerooting::new(parse(&from), parse(&to));
            let mut names: Vec<Namespace> = names
                .into_iter()
                .map(|parts| parts.iter().fold(parse(&from).as_namespace().clone(), |name, part| {
                    name.with_scope(part).unwrap()
                }))
                .collect();
            names.sort();
            let renamed: Vec<Namespace> =
                names.iter().map(|name| rerooting.apply(name).unwrap()).collect();
            prop_assert!(renamed.is_sorted());
            let back: Vec<Namespace> =
                renamed.iter().map(|name| rerooting.inverse().apply(name).unwrap()).collect();
            prop_assert_eq!(back, names);
        }
    }
}
