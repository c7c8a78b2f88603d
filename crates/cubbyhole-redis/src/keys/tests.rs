//! Key names, their hash slots, and parsing.

use cubbyhole_core::Namespace;
use proptest::prelude::*;

use super::hash_tag::CRC;
use super::*;

fn parse<'a>(prefix: &str, name: &'a [u8]) -> Option<ParsedKey<'a>> {
    ParsedKey::parse(prefix, name)
}

/// Prints a shrunk failure, and writes no regression file.
fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Texts of characters with a meaning in names, tags or keys.
fn any_name() -> impl Strategy<Value = String> {
    let c = prop::sample::select(vec!['{', '}', '\\', '(', ')', ':', '*', 'v', 'k', 'a', 'ü']);
    prop::collection::vec(c, 0..8).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn key_name_parses_to_its_parts(
        tenant in any_name(), segment in any_name(), key in any_name(), prefix in "[a-z:\\\\]{0,3}",
    ) {
        prop_assume!(!tenant.is_empty());
        let ns = Namespace::from_parts(&tenant, [&segment]).unwrap();
        let tag = HashTag::of_namespace(&prefix, &ns);
        let name = tag.value(&key);
        prop_assert_eq!(slot_by_the_rule(&name), tag.slot());
        prop_assert_eq!(parse(&prefix, name.as_bytes()), Some(ParsedKey::Value(ns.clone(), &key)));
        let name = tag.keys();
        prop_assert_eq!(parse(&prefix, name.as_bytes()), Some(ParsedKey::Keys(ns.clone())));
        let (metas, expiries) = (tag.metas(), tag.expiries());
        prop_assert_eq!(parse(&prefix, metas.as_bytes()), Some(ParsedKey::Metas(ns.clone())));
        prop_assert_eq!(parse(&prefix, expiries.as_bytes()), Some(ParsedKey::Expiries(ns.clone())));
        for other in [tag.fence(), tag.name_index()] {
            prop_assert_eq!(parse(&prefix, other.as_bytes()), Some(ParsedKey::Other));
        }
        for name in [metas, expiries, tag.fence(), tag.name_index()] {
            prop_assert_eq!(slot_by_the_rule(&name), tag.slot());
        }
        let index = HashTag::of_tenant(&prefix, &ns.tenant()).name_index();
        prop_assert_eq!(parse(&prefix, index.as_bytes()), Some(ParsedKey::Names(ns.tenant())));
        prop_assert_ne!(tag.name_index(), HashTag::root(&prefix).name_index());
    }

    #[test]
    fn parsed_bytes_render_to_the_same_bytes(
        bytes in prop_oneof![
            any_name().prop_map(|name| format!("p:{{{name}").into_bytes()),
            (any_name(), any_name())
                .prop_map(|(tag, rest)| format!("p:{{{tag}}}v{rest}").into_bytes()),
            prop::collection::vec(any::<u8>(), 0..20),
        ],
    ) {
        let again = match parse("p:", &bytes) {
            Some(ParsedKey::Value(ns, key)) => HashTag::of_namespace("p:", &ns).value(key),
            Some(ParsedKey::Keys(ns)) => HashTag::of_namespace("p:", &ns).keys(),
            Some(ParsedKey::Metas(ns)) => HashTag::of_namespace("p:", &ns).metas(),
            Some(ParsedKey::Expiries(ns)) => HashTag::of_namespace("p:", &ns).expiries(),
            Some(ParsedKey::Names(tenant)) => HashTag::of_tenant("p:", &tenant).name_index(),
            Some(ParsedKey::Other) | None => return Ok(()),
        };
        prop_assert_eq!(again.as_bytes(), &bytes[..]);
    }
}

fn tag_of(rendered: &str) -> HashTag {
    HashTag::of_namespace("p:", &Namespace::parse(rendered).unwrap())
}

/// Computes the slot by the rule of the cluster specification, independently of `HashTag`.
fn slot_by_the_rule(key: &str) -> u16 {
    let open = key.find('{').unwrap();
    let close = key[open + 1..].find('}').unwrap();
    CRC.checksum(&key.as_bytes()[open + 1..open + 1 + close]) % SLOTS
}

#[test]
fn slot_matches_the_cluster_specification() {
    assert_eq!(CRC.checksum(b"123456789"), 0x31c3);
    assert_eq!(HashTag::new("", "user1000").slot(), 3443);
}

#[test]
fn braces_in_names_keep_slots_and_keys_unique() {
    let names = ["acme", "a{b}c", "}a", "{}", "{", "}}{{", r"a\\(", "a:{b}", "ü:}"];
    let mut seen = std::collections::HashSet::new();
    for name in names {
        let tag = tag_of(name);
        for key in ["", "k", "{x}", "}{"] {
            assert_eq!(slot_by_the_rule(&tag.value(key)), tag.slot(), "{name} {key}");
            assert!(seen.insert(tag.value(key)), "{name} {key} has the key of another entry");
        }
        assert_eq!(slot_by_the_rule(&tag.keys()), tag.slot(), "{name}");
    }
}

#[test]
fn key_name_parses_and_foreign_keys_do_not() {
    for rendered in ["acme", "a{b}:c", r"x\\(y", r"a\:b:}", "a:"] {
        let ns = Namespace::parse(rendered).unwrap();
        for key in ["", "k", "a}b{c", "v"] {
            let name = tag_of(rendered).value(key);
            assert_eq!(parse("p:", name.as_bytes()), Some(ParsedKey::Value(ns.clone(), key)));
        }
        let name = tag_of(rendered).keys();
        assert_eq!(parse("p:", name.as_bytes()), Some(ParsedKey::Keys(ns)));
    }
    assert_eq!(parse("p:", b"q:{a}k"), None);
    assert_eq!(parse("p:", b"p:{a}kx"), None);
    assert_eq!(parse("p:", b"p:a"), None);
    assert_eq!(parse("p:", HashTag::root("p:").name_index().as_bytes()), Some(ParsedKey::Other));
}

#[test]
fn index_of_tenants_belongs_to_no_tenant() {
    let root = HashTag::root("p:").name_index();
    for name in [r"\\*", "*", r"\\"] {
        let tenant = Namespace::parse(name).unwrap().tenant();
        assert_ne!(HashTag::of_tenant("p:", &tenant).name_index(), root, "{name}");
    }
}
