//! Mutants that mix up names: prefixes as patterns, and names that collide.

use cubbyhole_core::{
    Bytes, EntryStore, Namespace, Page, Result, ScanItem, ScanOptions, Store, async_trait, limits,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// `list` returns all keys for any prefix.
    #[caught_by("listing::prefix_selects_keys", "model::random_operations")]
    ListIgnoresPrefix {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>)
            -> Result<Vec<String>> {
            limits::check_prefix(p)?;
            self.inner.list(c, ns, None).await
        }
    }

    /// The prefix of `list` is a pattern of SQL LIKE.
    #[caught_by("names::list_prefix_is_literal_text")]
    ListMatchesPatterns {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>)
            -> Result<Vec<String>> {
            limits::check_prefix(p)?;
            let mut keys = self.inner.list(c, ns, None).await?;
            keys.retain(|key| like(key, &format!("{}%", p.unwrap_or(""))));
            Ok(keys)
        }
    }

    /// The prefix of `scan` is a pattern of SQL LIKE.
    #[caught_by("names::scan_prefix_is_literal_text")]
    ScanMatchesPatterns {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            o.check()?;
            let pattern = format!("{}%", o.prefix().unwrap_or(""));
            let mut page = self.inner.scan(c, ns, o.with_prefix("")).await?;
            page.items.retain(|item| like(&item.key, &pattern));
            Ok(page)
        }
    }

    /// `list` also returns the keys of namespaces whose rendered form starts with the given one.
    #[caught_by(
        "isolation::scope_a_never_sees_scope_ab",
        "isolation::tenant_never_sees_tenant_with_longer_name"
    )]
    ListIncludesTextPrefix {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>)
            -> Result<Vec<String>> {
            let mut keys = Vec::new();
            for tenant in self.inner.scan_tenants(c, None, 1000).await?.items {
                for other in self.inner.list_namespaces(c, &tenant.into()).await? {
                    if other.as_str().starts_with(ns.as_str()) {
                        keys.extend(self.inner.list(c, &other, p).await?);
                    }
                }
            }
            Ok(keys)
        }
    }

    /// Namespace and key are joined with `:`, without escapes.
    #[caught_by(
        "isolation::colon_in_key_does_not_form_a_segment",
        "isolation::escapes_never_collide"
    )]
    JoinsWithoutEscapes {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let (ns, key) = joined(ns, key)?;
            self.inner.put(c, &ns, &key, v).await
        }

        async fn get(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<Option<Bytes>> {
            let (ns, key) = joined(ns, key)?;
            self.inner.get(c, &ns, &key).await
        }

        async fn delete(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<()> {
            let (ns, key) = joined(ns, key)?;
            self.inner.delete(c, &ns, &key).await
        }
    }
}

/// Matches like LIKE of SQL, without an escape character.
fn like(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = &pattern[1..];
            let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.any(|at| like(&text[at..], rest))
        }
        Some(wanted) => {
            let Some(c) = text.chars().next() else {
                return false;
            };
            (wanted == '_' || wanted == c)
                && like(&text[c.len_utf8()..], &pattern[wanted.len_utf8()..])
        }
    }
}

/// Returns one namespace for all entries, and the parts joined with `:` as the key.
fn joined(ns: &Namespace, key: &str) -> Result<(Namespace, String)> {
    limits::check_key(key)?;
    let mut parts = vec![ns.tenant().as_str().to_owned()];
    parts.extend(ns.segments().map(|segment| segment.into_owned()));
    parts.push(key.to_owned());
    Ok((Namespace::parse("all")?, parts.join(":")))
}
