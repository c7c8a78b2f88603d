//! Key names read back as the parts that they were built from.

use cubbyhole_core::{Namespace, TenantId};

/// What a key of this store is, read back from its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParsedKey<'a> {
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

impl<'a> ParsedKey<'a> {
    /// The reverse of [`HashTag`](super::HashTag); `None` for a key that is not of the store with this prefix.
    pub(crate) fn parse(prefix: &str, name: &'a [u8]) -> Option<Self> {
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
            ('v', key) => Some(Self::Value(namespace()?, key)),
            ('k', "") => Some(Self::Keys(namespace()?)),
            ('m', "") => Some(Self::Metas(namespace()?)),
            ('x', "") => Some(Self::Expiries(namespace()?)),
            ('n', "") => {
                Some(namespace().map(|ns| (ns.tenant(), ns)).map_or(ParsedKey::Other, name_index))
            }
            ('f' | 'g', "") => Some(Self::Other),
            _ => None,
        }
    }
}

/// No namespace has an index of names, only its tenant has.
fn name_index((tenant, ns): (TenantId, Namespace)) -> ParsedKey<'static> {
    if tenant.as_rendered() == ns.as_str() { ParsedKey::Names(tenant) } else { ParsedKey::Other }
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
