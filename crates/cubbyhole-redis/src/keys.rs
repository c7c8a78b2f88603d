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

mod hash_tag;
pub(crate) mod lex_bound;
mod parsed_key;
#[cfg(test)]
mod tests;

pub(crate) use hash_tag::{HashTag, SLOTS};
pub(crate) use parsed_key::ParsedKey;
