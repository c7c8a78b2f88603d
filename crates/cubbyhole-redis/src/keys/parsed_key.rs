//! Parsing of Redis key names.

use cubbyhole_core::{Namespace, TenantId};

/// A Redis key of this store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParsedKey<'a> {
    /// The sorted set of keys of a namespace.
    Keys(Namespace),
    /// The hash of metadata of a namespace.
    Metas(Namespace),
    /// The sorted set of expiries of a namespace.
    Expiries(Namespace),
    /// The value of an entry.
    Value(Namespace, &'a str),
    /// The index of a tenant's namespaces.
    Names(TenantId),
    /// The index of tenants, or a fence.
    Other,
}

impl<'a> ParsedKey<'a> {
    /// Parses the name of a key. Returns `None` if the key does not belong to the store with this
    /// prefix.
    pub(crate) fn parse(prefix: &str, name: &'a [u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (tag, rest) = name.strip_prefix(prefix)?.strip_prefix('{')?.split_once('}')?;
        let mut kind_and_key = rest.chars();
        let kind = kind_and_key.next()?;
        // The store escapes braces in tags. A key with a raw brace belongs to another program and
        // must not be confused with the escaped name.
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

/// Only tenants have an index of namespaces: a tag with segments belongs to another program.
fn name_index((tenant, ns): (TenantId, Namespace)) -> ParsedKey<'static> {
    if tenant.as_rendered() == ns.as_str() { ParsedKey::Names(tenant) } else { ParsedKey::Other }
}

/// Unescapes a tag to the rendered name.
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
