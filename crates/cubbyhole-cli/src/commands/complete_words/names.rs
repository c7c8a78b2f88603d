//! Completes namespaces and keys from a store.

use std::sync::Arc;

use cubbyhole::layers::{Encryption, KeyRing, Layers};
use cubbyhole::{Backend, ExecutionContext, Namespace, NamespacePrefix, OpenOptions, ScanOptions};

use super::candidate::MAX_CANDIDATES;
use crate::output::escape;
use crate::session::StoreChoice;

/// Sorts after every character of a name.
const LAST: char = char::MAX;

/// Opens an existing store. Does not create one, and does not wait for a lock. Only the layers that
/// hide names are used.
pub(super) async fn open(ctx: &ExecutionContext, choice: &StoreChoice) -> Option<Arc<dyn Backend>> {
    let mut layers = Layers::new();
    if let Some(scope) = choice.layers.layers.scope() {
        layers = layers.with_scope(scope.clone());
    }
    if choice.layers.encryption.is_some() {
        // Hides the tenant of the keys. Names are not encrypted, so any key will do.
        layers = layers.with_encryption(Encryption::new(Arc::new(KeyRing::generate().ok()?)));
    }
    let options = OpenOptions::new().with_read_only(true).with_layers(layers);
    options.open(ctx, &choice.url).await.ok()
}

/// Returns the keys of a namespace that begin with `begun`.
pub(super) async fn keys(
    ctx: &ExecutionContext,
    store: &dyn Backend,
    namespace: &str,
    begun: &str,
) -> Vec<String> {
    let Ok(namespace) = Namespace::parse(namespace) else { return Vec::new() };
    let options = ScanOptions::new().keys_only().with_limit(MAX_CANDIDATES).with_prefix(begun);
    match store.scan(ctx, &namespace, options).await {
        Ok(page) => page.items.into_iter().map(|item| item.key).collect(),
        Err(_) => Vec::new(),
    }
}

/// Returns the namespaces that begin with `begun`, up to the next segment: `acme` if it is a
/// namespace, and `acme:` if there are namespaces below it. With `prefixes`, also `acme` if it is
/// only a prefix.
pub(super) async fn namespaces(
    ctx: &ExecutionContext,
    store: &dyn Backend,
    begun: &str,
    prefixes: bool,
    scope: Option<&NamespacePrefix>,
) -> Vec<String> {
    let (above, _) = split(begun);
    let mut found = Siblings { begun, above: above.len(), names: Vec::new() };
    // If the time is up, the names found so far are still returned.
    let _ = match (above.strip_suffix(':').map(NamespacePrefix::parse), scope) {
        (None, None) => found.add_tenants(ctx, store).await,
        (None, Some(scope)) => found.add_namespaces(ctx, store, scope).await,
        (Some(Ok(above)), Some(scope)) if above.matches(scope.as_namespace()) => {
            found.add_namespaces(ctx, store, scope).await
        }
        (Some(Ok(above)), _) => found.add_namespaces(ctx, store, &above).await,
        (Some(Err(error)), _) => Err(error),
    };
    let mut names = Vec::new();
    for Sibling { text, own, deeper } in found.names {
        let only_above = deeper && !own;
        if prefixes || !only_above {
            names.push(text.clone());
        }
        if deeper {
            names.push(text + ":");
        }
    }
    names.truncate(MAX_CANDIDATES);
    names
}

/// Whether a name can be shown: it is not empty and needs no escapes.
pub(super) fn can_be_shown(name: &str) -> bool {
    !name.is_empty() && escape(name) == name
}

/// The names of one level: those with one segment more than the prefix above.
struct Siblings<'a> {
    begun: &'a str,
    /// The length of the prefix above, including its `:`.
    above: usize,
    names: Vec<Sibling>,
}

struct Sibling {
    text: String,
    /// The name is a namespace.
    own: bool,
    /// There are namespaces below it.
    deeper: bool,
}

impl Siblings<'_> {
    async fn add_tenants(
        &mut self,
        ctx: &ExecutionContext,
        store: &dyn Backend,
    ) -> cubbyhole::Result<()> {
        let after = before(self.begun, 0).map(|namespace| namespace.tenant());
        let page = store.scan_tenants(ctx, after.as_ref(), MAX_CANDIDATES).await?;
        let tenants = page.items.iter().filter(|tenant| tenant.as_rendered() >= self.begun);
        let tenants: Vec<_> =
            tenants.take_while(|tenant| tenant.as_rendered().starts_with(self.begun)).collect();
        for tenant in &tenants {
            let text = tenant.as_rendered().to_owned();
            self.names.push(Sibling { text, own: false, deeper: false });
        }
        for (tenant, name) in tenants.into_iter().zip(&mut self.names) {
            let prefix = NamespacePrefix::from(tenant.clone());
            let first = store.scan_namespaces(ctx, &prefix, None, 2).await?.items;
            name.own = first.first().is_some_and(|namespace| namespace.as_str() == name.text);
            name.deeper = first.len() > usize::from(name.own);
        }
        Ok(())
    }

    async fn add_namespaces(
        &mut self,
        ctx: &ExecutionContext,
        store: &dyn Backend,
        prefix: &NamespacePrefix,
    ) -> cubbyhole::Result<()> {
        // A page starts at a name under its prefix.
        let mut after = before(self.begun, self.above).filter(|after| prefix.matches(after));
        while self.names.len() < MAX_CANDIDATES {
            let page = store.scan_namespaces(ctx, prefix, after.as_ref(), MAX_CANDIDATES).await?;
            for namespace in &page.items {
                if !self.take(namespace.as_str()) {
                    return Ok(());
                }
            }
            let Some(next) = page.next else { return Ok(()) };
            // Skip all namespaces below the last name.
            after = self.after_subtree(&next).filter(|after| prefix.matches(after)).or(Some(next));
        }
        Ok(())
    }

    /// Adds the name of this level for a namespace. Returns whether more names may follow.
    fn take(&mut self, namespace: &str) -> bool {
        let Some(rest) = namespace.get(self.above..) else { return true };
        let end = self.above + first_separator(rest);
        let text = &namespace[..end];
        if !text.starts_with(self.begun) {
            return namespace < self.begun;
        }
        let (own, deeper) = (end == namespace.len(), end < namespace.len());
        // In byte order, `a:x` comes after `a-b`, which comes after `a`.
        match self.names.iter_mut().rev().find(|name| name.text == text) {
            Some(name) => name.deeper |= deeper,
            None => self.names.push(Sibling { text: text.to_owned(), own, deeper }),
        }
        true
    }

    fn after_subtree(&self, last: &Namespace) -> Option<Namespace> {
        let last = last.as_str();
        let end = self.above + first_separator(last.get(self.above..)?);
        let text = last.get(..end).filter(|text| text.len() < last.len())?;
        Namespace::parse(&format!("{text}:{LAST}")).ok()
    }
}

/// Splits `begun` into the prefix above, with its `:`, and the unfinished segment.
fn split(begun: &str) -> (&str, &str) {
    let mut above = 0;
    loop {
        let rest = &begun[above..];
        match first_separator(rest) {
            end if end < rest.len() => above += end + 1,
            _ => return (&begun[..above], rest),
        }
    }
}

/// Returns the end of the first segment: a `:` that is not escaped.
fn first_separator(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b':' => return at,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    text.len()
}

/// Returns a namespace that sorts just before every namespace that begins with `begun`, because a
/// page starts after a given name. Returns `None` if the page must start at the beginning.
fn before(begun: &str, above: usize) -> Option<Namespace> {
    let segment = begun.get(above..)?;
    // An escape is one unit, even if its second character is missing.
    let mut units = segment.char_indices().peekable();
    let mut last = None;
    while let Some((at, c)) = units.next() {
        last = Some((at, c));
        if c == '\\' {
            units.next();
        }
    }
    let (at, c) = last?;
    // Skips `\` and `:`, which are not valid unescaped, and NUL, which is never valid.
    let less = match c {
        ':' | '\u{1}' => return None,
        ']' => '[',
        ';' => '9',
        '\u{e000}' => '\u{d7ff}',
        c => char::from_u32(u32::from(c) - 1)?,
    };
    Namespace::parse(&format!("{}{less}{LAST}", &begun[..above + at])).ok()
}

#[cfg(test)]
mod tests {
    use cubbyhole::{Bytes, Condition, InMemoryStore, PutOptions};

    use super::*;

    async fn store(namespaces: &[&str]) -> InMemoryStore<Bytes> {
        let store = InMemoryStore::new();
        for namespace in namespaces {
            let (namespace, value) = (Namespace::parse(namespace).unwrap(), Bytes::new());
            let (ctx, options) = (ExecutionContext::new(), PutOptions::new());
            let put = cubbyhole::EntryStore::put_entry(
                &store,
                &ctx,
                &namespace,
                "k",
                value,
                options,
                Condition::Always,
            );
            put.await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn namespaces_are_completed_one_segment_at_a_time() {
        let store = store(&[
            "acme",
            "acme:a",
            "acme:a-b",
            "acme:a:x",
            "acme:a:y:z",
            "acme:b\\:c:d",
            "acme:\u{65e5}",
            "acme-2:q:r",
            "b]c",
            "b;c",
        ])
        .await;
        let ctx = ExecutionContext::new();
        for (begun, prefixes, expected) in [
            ("", false, &["acme", "acme:", "acme-2:", "b;c", "b]c"][..]),
            ("", true, &["acme", "acme:", "acme-2", "acme-2:", "b;c", "b]c"]),
            ("ac", false, &["acme", "acme:", "acme-2:"]),
            ("acme", false, &["acme", "acme:", "acme-2:"]),
            ("acme-", false, &["acme-2:"]),
            ("acme:", false, &["acme:a", "acme:a:", "acme:a-b", "acme:b\\:c:", "acme:\u{65e5}"]),
            ("acme:a", false, &["acme:a", "acme:a:", "acme:a-b"]),
            ("acme:a:", false, &["acme:a:x", "acme:a:y:"]),
            ("acme:a:y:", false, &["acme:a:y:z"]),
            ("acme:b\\", false, &["acme:b\\:c:"]),
            ("acme:b\\:", false, &["acme:b\\:c:"]),
            ("acme:b\\:c:", true, &["acme:b\\:c:d"]),
            ("acme:\u{65e5}", false, &["acme:\u{65e5}"]),
            ("acme-2:q", true, &["acme-2:q", "acme-2:q:"]),
            ("b]", false, &["b]c"]),
            ("b;", false, &["b;c"]),
            ("c", false, &[]),
            ("acme:c", false, &[]),
            ("nobody:", false, &[]),
            (":", false, &[]),
            ("a\\x:", false, &[]),
        ] {
            let mut found = namespaces(&ctx, &store, begun, prefixes, None).await;
            found.sort();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{begun} {prefixes}");
        }
    }

    #[tokio::test]
    async fn subtrees_are_skipped_and_candidates_are_bounded() {
        let mut names: Vec<String> = (0..700).map(|n| format!("t:a:{n}")).collect();
        names.extend((0..500).map(|n| format!("t:b{n:03}")));
        names.extend((0..500).map(|n| format!("u{n:03}")));
        let store = store(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let ctx = ExecutionContext::new();
        let found = namespaces(&ctx, &store, "t:", false, None).await;
        assert_eq!(found.len(), MAX_CANDIDATES);
        assert_eq!(found[..3], ["t:a:", "t:b000", "t:b001"]);
        assert_eq!(namespaces(&ctx, &store, "t:b49", false, None).await.len(), 10);
        assert_eq!(namespaces(&ctx, &store, "u", false, None).await.len(), MAX_CANDIDATES);
        assert_eq!(namespaces(&ctx, &store, "u4", false, None).await.len(), 100);
    }

    #[test]
    fn next_page_starts_after_the_subtree_of_the_last_name() {
        let level = Siblings { begun: "t:", above: 2, names: Vec::new() };
        let past = |last: &str| level.after_subtree(&Namespace::parse(last).unwrap());
        assert_eq!(past("t:a:5:6").unwrap().as_str(), "t:a:\u{10ffff}");
        assert_eq!(past("t:b"), None);
    }

    #[test]
    fn name_before_a_beginning_is_valid_and_smaller() {
        for begun in ["a", "]", ";", "\\", "\\\\", "\\:", "a\\:", "\u{e000}", "ab\u{65e5}", "!"] {
            for above in ["", "t:", "t\\:u:v:"] {
                let begun = format!("{above}{begun}");
                let before = before(&begun, above.len()).unwrap();
                assert!(before.as_str() < begun.as_str() && before.as_str() >= above, "{before:?}");
            }
        }
        assert_eq!(before("", 0), None);
        assert_eq!(before("t:", 2), None);
        assert_eq!(split("a\\:b:c\\\\:d"), ("a\\:b:c\\\\:", "d"));
    }

    #[test]
    fn names_with_control_characters_are_not_shown() {
        for name in ["", "a\nb", "\u{1b}[2J", "a\tb", "\u{202e}abc", "\u{9b}"] {
            assert!(!can_be_shown(name), "{name:?}");
        }
        for name in ["a b", "it's", "a\\:b", "\u{65e5}", "100%"] {
            assert!(can_be_shown(name), "{name:?}");
        }
    }
}
