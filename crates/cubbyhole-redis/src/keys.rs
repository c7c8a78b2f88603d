//! The Redis keys of a store, and their hash slots.
//!
//! | key | type | contents |
//! |---|---|---|
//! | `PREFIX{NAMESPACE}vKEY` | string | the value |
//! | `PREFIX{NAMESPACE}m` | hash | the metadata of each entry, by key |
//! | `PREFIX{NAMESPACE}k` | sorted set | the keys, in byte order |
//! | `PREFIX{NAMESPACE}x` | sorted set | the expiring keys by instant, and the registration marker |
//! | `PREFIX{NAMESPACE}f` | string | the fence: the highest token that is rejected |
//! | `PREFIX{TENANT}n` | sorted set | its namespaces with their tokens, and the registration marker |
//! | `PREFIX{TENANT}g` | string | the tenant's fence |
//! | `PREFIX{\*}n` | sorted set | the tenants with their tokens |
//!
//! The text in braces is the hash tag, which alone decides the slot. It is the rendered namespace
//! with `{` written as `\(` and `}` as `\)`. In rendered names, `\` occurs only before `:` and `\`.
//! Therefore tags are unique, no namespace has the tag `\*`, and the first `}` of a key ends its
//! tag.

mod hash_tag;
pub(crate) mod lex_bound;
mod parsed_key;
#[cfg(test)]
mod tests;

pub(crate) use hash_tag::{HashTag, SLOTS};
pub(crate) use parsed_key::ParsedKey;
