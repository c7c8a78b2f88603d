//! Where things are: the names of the keys in Redis, and the slots that they belong to.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `PREFIX{NAMESPACE}vKEY` | string | the value, as it was given |
//! | `PREFIX{NAMESPACE}m` | hash | the meta data of each entry, by key |
//! | `PREFIX{NAMESPACE}k` | sorted set | the keys, in byte order |
//! | `PREFIX{NAMESPACE}x` | sorted set | the keys that expire, by instant, and the marker of registration |
//! | `PREFIX{NAMESPACE}f` | string | the fence: the last token that is refused |
//! | `PREFIX{TENANT}n` | sorted set | the tenant's namespaces, each with its token, and the tenant's own marker |
//! | `PREFIX{TENANT}g` | string | the tenant's fence |
//! | `PREFIX{\*}n` | sorted set | the tenants, each with its token |
//!
//! What stands in braces is the hash tag: it alone decides the slot. It is the rendered namespace
//! with `{` as `\(` and `}` as `\)`. Rendered names have `\` before `:` and `\` only, so that no
//! two become the same, none becomes `\*`, and the first `}` of a key ends its tag.

use std::fmt::Write;

use crc::{CRC_16_XMODEM, Crc};
use cubbyhole_core::{Namespace, TenantId};

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// A name that holds a tag: all keys of one place are in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Prefix and tag.
    stem: String,
    slot: u16,
}

impl Place {
    /// The member that says that a place is registered.
    pub(crate) const MARKER: &'static str = "\0";

    pub(crate) fn of_namespace(prefix: &str, ns: &Namespace) -> Self {
        Self::tagged(prefix, ns.as_str())
    }

    pub(crate) fn of_tenant(prefix: &str, tenant: &TenantId) -> Self {
        Self::tagged(prefix, tenant.as_rendered())
    }

    /// Of the index of tenants.
    pub(crate) fn root(prefix: &str) -> Self {
        Self::new(prefix, "\\*")
    }

    fn tagged(prefix: &str, name: &str) -> Self {
        if !name.contains(['{', '}']) {
            return Self::new(prefix, name);
        }
        Self::new(prefix, &name.replace('{', "\\(").replace('}', "\\)"))
    }

    fn new(prefix: &str, tag: &str) -> Self {
        let mut stem = String::with_capacity(prefix.len() + tag.len() + 2);
        // Writing to a string cannot fail.
        let _ = write!(stem, "{prefix}{{{tag}}}");
        Self { stem, slot: CRC.checksum(tag.as_bytes()) % SLOTS }
    }

    pub(crate) const fn slot(&self) -> u16 {
        self.slot
    }

    pub(crate) fn value(&self, key: &str) -> String {
        let mut name = String::with_capacity(self.stem.len() + 1 + key.len());
        name.push_str(&self.stem);
        name.push('v');
        name.push_str(key);
        name
    }

    pub(crate) fn keys(&self) -> String {
        self.kind('k')
    }

    pub(crate) fn metas(&self) -> String {
        self.kind('m')
    }

    pub(crate) fn expiries(&self) -> String {
        self.kind('x')
    }

    pub(crate) fn fence(&self) -> String {
        self.kind('f')
    }

    pub(crate) fn index(&self) -> String {
        self.kind('n')
    }

    pub(crate) fn index_fence(&self) -> String {
        self.kind('g')
    }

    fn kind(&self, kind: char) -> String {
        let mut name = String::with_capacity(self.stem.len() + 1);
        name.push_str(&self.stem);
        name.push(kind);
        name
    }
}

/// What a key of this store is, read back from its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// The sorted set of keys of a namespace.
    Keys(Namespace),
    /// The hash of meta data of a namespace.
    Metas(Namespace),
    /// The sorted set of expiries of a namespace.
    Expiries(Namespace),
    /// The value of an entry.
    Value(Namespace, &'a str),
    /// The index of the namespaces of a tenant.
    Names(TenantId),
    /// The index of tenants, a fence.
    Other,
}

/// The reverse of [`Place`]; `None` for a key that is not of the store with this prefix.
pub(crate) fn parse<'a>(prefix: &str, name: &'a [u8]) -> Option<Found<'a>> {
    let name = std::str::from_utf8(name).ok()?;
    let (tag, rest) = name.strip_prefix(prefix)?.strip_prefix('{')?.split_once('}')?;
    let mut kind_and_key = rest.chars();
    let kind = kind_and_key.next()?;
    // No name of ours has a brace in its tag: another program's would be taken for what is `\(` here.
    let namespace = || match tag.contains('{') {
        true => None,
        false => Namespace::parse(&untagged(tag)).ok(),
    };
    match (kind, kind_and_key.as_str()) {
        ('v', key) => Some(Found::Value(namespace()?, key)),
        ('k', "") => Some(Found::Keys(namespace()?)),
        ('m', "") => Some(Found::Metas(namespace()?)),
        ('x', "") => Some(Found::Expiries(namespace()?)),
        ('n', "") => Some(namespace().map(|ns| (ns.tenant(), ns)).map_or(Found::Other, of_tenant)),
        ('f' | 'g', "") => Some(Found::Other),
        _ => None,
    }
}

/// No namespace has an index of names, only its tenant has.
fn of_tenant((tenant, ns): (TenantId, Namespace)) -> Found<'static> {
    if tenant.as_rendered() == ns.as_str() { Found::Names(tenant) } else { Found::Other }
}

/// The rendered name that a tag stands for.
fn untagged(tag: &str) -> String {
    let mut name = String::with_capacity(tag.len());
    let mut chars = tag.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('(')) => name.push('{'),
            (_, Some(')')) => name.push('}'),
            (c, escaped) => name.extend([Some(c), escaped].into_iter().flatten()),
        }
    }
    name
}

/// Bounds of `ZRANGE BYLEX`. Texts are UTF-8, in which the byte 0xFF does not occur, and hold no
/// NUL.
pub(crate) mod bound {
    /// From `text` on.
    pub(crate) fn from(text: &str) -> Vec<u8> {
        [b"[", text.as_bytes()].concat()
    }

    /// Past `text`.
    pub(crate) fn past(text: &str) -> Vec<u8> {
        [b"(", text.as_bytes()].concat()
    }

    /// Whether a member lies where a range from this bound begins, or further on.
    pub(crate) fn admits(from: &[u8], member: &[u8]) -> bool {
        match from.split_first() {
            Some((b'[', first)) => member >= first,
            Some((b'(', last)) => member > last,
            _ => true,
        }
    }

    /// Up to the last that begins with `text`.
    pub(crate) fn to_end_of(text: &str) -> Vec<u8> {
        [b"(", text.as_bytes(), b"\xff"].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A failure is printed, shrunk, and leaves no file in the sources.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Texts of what means something to a name or to a tag.
    fn any_name() -> impl Strategy<Value = String> {
        let c = prop::sample::select(vec!['{', '}', '\\', '(', ')', ':', '*', 'v', 'k', 'a', 'ü']);
        prop::collection::vec(c, 0..8).prop_map(String::from_iter)
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_name_of_a_key_is_read_back_as_what_it_was_made_of(
            tenant in any_name(), segment in any_name(), key in any_name(), prefix in "[a-z:\\\\]{0,3}",
        ) {
            prop_assume!(!tenant.is_empty());
            let ns = Namespace::from_parts(&tenant, [&segment]).unwrap();
            let place = Place::of_namespace(&prefix, &ns);
            let name = place.value(&key);
            prop_assert_eq!(slot_by_the_rule(&name), place.slot());
            prop_assert_eq!(parse(&prefix, name.as_bytes()), Some(Found::Value(ns.clone(), &key)));
            let name = place.keys();
            prop_assert_eq!(parse(&prefix, name.as_bytes()), Some(Found::Keys(ns.clone())));
            let (metas, expiries) = (place.metas(), place.expiries());
            prop_assert_eq!(parse(&prefix, metas.as_bytes()), Some(Found::Metas(ns.clone())));
            prop_assert_eq!(parse(&prefix, expiries.as_bytes()), Some(Found::Expiries(ns.clone())));
            for other in [place.fence(), place.index()] {
                prop_assert_eq!(parse(&prefix, other.as_bytes()), Some(Found::Other));
            }
            for name in [metas, expiries, place.fence(), place.index()] {
                prop_assert_eq!(slot_by_the_rule(&name), place.slot());
            }
            let index = Place::of_tenant(&prefix, &ns.tenant()).index();
            prop_assert_eq!(parse(&prefix, index.as_bytes()), Some(Found::Names(ns.tenant())));
            prop_assert_ne!(place.index(), Place::root(&prefix).index());
        }

        #[test]
        fn what_is_read_from_any_bytes_is_named_by_them(
            bytes in prop_oneof![
                any_name().prop_map(|name| format!("p:{{{name}").into_bytes()),
                (any_name(), any_name()).prop_map(|(tag, rest)| format!("p:{{{tag}}}v{rest}").into_bytes()),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
        ) {
            let again = match parse("p:", &bytes) {
                Some(Found::Value(ns, key)) => Place::of_namespace("p:", &ns).value(key),
                Some(Found::Keys(ns)) => Place::of_namespace("p:", &ns).keys(),
                Some(Found::Metas(ns)) => Place::of_namespace("p:", &ns).metas(),
                Some(Found::Expiries(ns)) => Place::of_namespace("p:", &ns).expiries(),
                Some(Found::Names(tenant)) => Place::of_tenant("p:", &tenant).index(),
                Some(Found::Other) | None => return Ok(()),
            };
            prop_assert_eq!(again.as_bytes(), &bytes[..]);
        }
    }

    fn place(rendered: &str) -> Place {
        Place::of_namespace("p:", &Namespace::parse(rendered).unwrap())
    }

    /// By the rule of the cluster specification, not by ours.
    fn slot_by_the_rule(key: &str) -> u16 {
        let open = key.find('{').unwrap();
        let close = key[open + 1..].find('}').unwrap();
        CRC.checksum(&key.as_bytes()[open + 1..open + 1 + close]) % SLOTS
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(CRC.checksum(b"123456789"), 0x31c3);
        assert_eq!(Place::new("", "user1000").slot(), 3443);
    }

    #[test]
    fn braces_in_names_do_not_change_the_slot_rule() {
        let names = ["acme", "a{b}c", "}a", "{}", "{", "}}{{", r"a\\(", "a:{b}", "ü:}"];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            let place = place(name);
            for key in ["", "k", "{x}", "}{"] {
                assert_eq!(slot_by_the_rule(&place.value(key)), place.slot(), "{name} {key}");
                assert!(seen.insert(place.value(key)), "{name} {key} stands for two entries");
            }
            assert_eq!(slot_by_the_rule(&place.keys()), place.slot(), "{name}");
        }
    }

    #[test]
    fn a_name_is_read_back_from_its_key() {
        for rendered in ["acme", "a{b}:c", r"x\\(y", r"a\:b:}", "a:"] {
            let ns = Namespace::parse(rendered).unwrap();
            for key in ["", "k", "a}b{c", "v"] {
                let name = place(rendered).value(key);
                assert_eq!(parse("p:", name.as_bytes()), Some(Found::Value(ns.clone(), key)));
            }
            let name = place(rendered).keys();
            assert_eq!(parse("p:", name.as_bytes()), Some(Found::Keys(ns)));
        }
        assert_eq!(parse("p:", b"q:{a}k"), None);
        assert_eq!(parse("p:", b"p:{a}kx"), None);
        assert_eq!(parse("p:", b"p:a"), None);
        assert_eq!(parse("p:", Place::root("p:").index().as_bytes()), Some(Found::Other));
    }

    #[test]
    fn the_index_of_tenants_is_no_tenants() {
        let root = Place::root("p:").index();
        for name in [r"\\*", "*", r"\\"] {
            let tenant = Namespace::parse(name).unwrap().tenant();
            assert_ne!(Place::of_tenant("p:", &tenant).index(), root, "{name}");
        }
    }
}
