//! Names are literal text: no character in a tenant, a segment, a key or a prefix has a special
//! meaning.

use cubbyhole_core::{ErrorKind, Namespace, ScanOptions, TenantId};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

/// Names with characters that are special in some engine, escape or script.
pub(super) const HOSTILE: [&str; 44] = [
    "%",
    "_",
    "\\",
    "*",
    "?",
    "[",
    "]",
    "{",
    "}",
    ":",
    "/",
    ".",
    "\"",
    "'",
    "\n",
    "\t",
    "\r",
    " ",
    "..",
    "a%b",
    "a_b",
    "a\\",
    "\\:",
    ":\\",
    "::",
    "[a-z]",
    "{}",
    "}a",
    "{a}",
    "$1",
    "';--",
    "%s",
    "a\nb",
    "\u{1}",
    "\u{7f}",
    "\u{80}",
    "\u{1f980}",
    "e\u{301}",
    "\u{e9}",
    "\u{5e9}\u{5dc}",
    "\u{202e}a",
    "\u{feff}",
    "\u{fffd}",
    "\u{10ffff}",
];

cases! {
    /// Keys with special characters work, and no two of them are confused.
    #[case(tenant, core)]
    async fn hostile_keys_stay_distinct<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["keys"])?;
        for (number, key) in HOSTILE.iter().enumerate() {
            w.put(&ns, key, number as u64).await?;
        }
        for (number, key) in HOSTILE.iter().enumerate() {
            check_eq!(w.number(&ns, key).await?, Some(number as u64), "the value of key {key:?}");
        }
        let mut all = HOSTILE.to_vec();
        all.sort_unstable();
        check_eq!(w.list(&ns, None).await?, all, "the keys");
        Ok(())
    }

    /// Deleting a key with special characters deletes only that key.
    #[case(tenant, core)]
    async fn delete_of_hostile_key_removes_only_that_key<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["keys"])?;
        w.put_all(&ns, &HOSTILE).await?;
        let mut left = HOSTILE.to_vec();
        left.sort_unstable();
        for key in HOSTILE {
            w.delete(&ns, key).await?;
            left.retain(|other| *other != key);
            check_eq!(w.list(&ns, None).await?, left, "the keys after the delete of {key:?}");
        }
        Ok(())
    }

    /// Scope segments with special characters work, and no two of them are confused.
    #[case(tenant, core)]
    async fn hostile_segments_stay_distinct<V: Sample>(w: &World<V>) -> Outcome {
        for (number, segment) in HOSTILE.iter().enumerate() {
            w.put(&w.ns(&[segment])?, "k", number as u64).await?;
        }
        for (number, segment) in HOSTILE.iter().enumerate() {
            let ns = w.ns(&[segment])?;
            check_eq!(
                w.number(&ns, "k").await?,
                Some(number as u64),
                "the value in segment {segment:?}"
            );
            check_eq!(w.list(&ns, None).await?, ["k"], "the keys of segment {segment:?}");
        }
        Ok(())
    }

    /// Tenants with special characters work, and no two of them are confused.
    #[case(store, core)]
    async fn hostile_tenants_stay_distinct<V: Sample>(w: &World<V>) -> Outcome {
        for (number, name) in HOSTILE.iter().enumerate() {
            let ns = Namespace::new(TenantId::new(name)?);
            w.put(&ns, "k", number as u64).await?;
        }
        for (number, name) in HOSTILE.iter().enumerate() {
            let ns = Namespace::new(TenantId::new(name)?);
            check_eq!(
                w.number(&ns, "k").await?,
                Some(number as u64),
                "the value of tenant {name:?}"
            );
            check_eq!(w.list(&ns, None).await?, ["k"], "the keys of tenant {name:?}");
        }
        Ok(())
    }

    /// Namespaces with special characters are listed unchanged.
    #[case(tenant, core)]
    async fn hostile_segments_are_listed_unchanged<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let mut expected = Vec::new();
        for segment in HOSTILE {
            let ns = w.ns(&["s", segment])?;
            w.put(&ns, "k", 1).await?;
            expected.push(ns);
        }
        expected.sort_unstable();
        let mut found = w.namespaces(&w.everything()).await?;
        found.sort_unstable();
        check_eq!(found, expected, "the namespaces");
        for ns in &expected {
            let found = w.namespaces(&ns.into()).await?;
            check_eq!(found, std::slice::from_ref(ns), "the namespaces under the prefix of {ns:?}");
        }
        Ok(())
    }

    /// The prefix of `list` is literal text, not a pattern.
    #[case(tenant, core)]
    async fn list_prefix_is_literal_text<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["prefix"])?;
        w.put(&ns, "plain", 0).await?;
        w.put(&ns, "", 0).await?;
        let mut all = vec![String::new(), "plain".to_owned()];
        for prefix in HOSTILE {
            for key in [format!("{prefix}1"), format!("1{prefix}")] {
                w.put(&ns, &key, 1).await?;
                all.push(key);
            }
        }
        all.sort_unstable();
        for prefix in HOSTILE {
            let expected: Vec<_> = all.iter().filter(|key| key.starts_with(prefix)).collect();
            let found = w.list(&ns, Some(prefix)).await?;
            check_eq!(
                found.iter().collect::<Vec<_>>(),
                expected,
                "the keys with the prefix {prefix:?}"
            );
        }
        Ok(())
    }

    /// The prefix of `scan` is literal text, not a pattern.
    #[case(tenant, entry)]
    async fn scan_prefix_is_literal_text<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["prefix"])?;
        let mut all: Vec<_> = HOSTILE.iter().map(|prefix| format!("{prefix}x")).collect();
        for key in &all {
            w.put(&ns, key, 1).await?;
        }
        all.sort_unstable();
        for prefix in HOSTILE {
            let expected: Vec<_> = all.iter().filter(|key| key.starts_with(prefix)).collect();
            let items = w.pages(&ns, ScanOptions::new().with_prefix(prefix).with_limit(7)).await?;
            let found: Vec<_> = items.iter().map(|item| &item.key).collect();
            check_eq!(found, expected, "the keys with the prefix {prefix:?}");
        }
        Ok(())
    }

    /// The empty string is a valid key.
    #[case(tenant, core)]
    async fn empty_key_is_valid<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "", 1).await?;
        check_eq!(w.number(&ns, "").await?, Some(1), "the value of the empty key");
        check_eq!(w.list(&ns, None).await?, [""], "the keys without a prefix");
        check_eq!(w.list(&ns, Some("")).await?, [""], "the keys with the empty prefix");
        check_eq!(w.list(&ns, Some("a")).await?, [""; 0], "the keys with another prefix");
        w.put(&ns, "a", 2).await?;
        w.delete(&ns, "").await?;
        check_eq!(w.list(&ns, None).await?, ["a"], "the keys after the delete of the empty key");
        Ok(())
    }

    /// Empty segments are valid and significant: `t`, `t:` and `t::` are three namespaces.
    #[case(tenant, core)]
    async fn empty_segments_are_significant<V: Sample>(w: &World<V>) -> Outcome {
        let namespaces =
            [w.ns(&[])?, w.ns(&[""])?, w.ns(&["", ""])?, w.ns(&["", "a"])?, w.ns(&["a"])?];
        for (number, ns) in namespaces.iter().enumerate() {
            w.put(ns, "k", number as u64).await?;
        }
        for (number, ns) in namespaces.iter().enumerate() {
            check_eq!(
                w.number(ns, "k").await?,
                Some(number as u64),
                "the value in namespace {ns:?}"
            );
            check_eq!(w.list(ns, None).await?, ["k"], "the keys of {ns:?}");
        }
        Ok(())
    }

    /// NUL is rejected in keys and prefixes, and nothing is written.
    #[case(tenant, core)]
    async fn nul_in_key_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "a", 1).await?;
        for key in ["\0", "a\0", "\0a", "a\0b"] {
            let invalid = ErrorKind::InvalidArgument;
            refused(w.put(&ns, key, 2).await, invalid, format_args!("put of {key:?}"))?;
            refused(w.get(&ns, key).await, invalid, format_args!("get of {key:?}"))?;
            refused(w.delete(&ns, key).await, invalid, format_args!("delete of {key:?}"))?;
            refused(w.list(&ns, Some(key)).await, invalid, format_args!("list of {key:?}"))?;
        }
        check_eq!(w.list(&ns, None).await?, ["a"], "the keys after the rejected calls");
        Ok(())
    }

    /// NUL is rejected in tenants and segments, so no namespace contains it.
    #[case(tenant, core)]
    async fn nul_in_namespace_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let invalid = ErrorKind::InvalidArgument;
        refused(TenantId::new("a\0"), invalid, "a tenant with NUL")?;
        refused(w.ns(&["a\0b"]), invalid, "a segment with NUL")?;
        refused(Namespace::parse("a:\0"), invalid, "a rendered namespace with NUL")?;
        Ok(())
    }

    /// Text is stored unchanged: no normalisation merges two names.
    #[case(tenant, core)]
    async fn text_is_not_normalised<V: Sample>(w: &World<V>) -> Outcome {
        let pairs =
            [("e\u{301}", "\u{e9}"), ("K", "\u{212a}"), ("a", "A"), ("a", "a "), ("1", "01")];
        for (index, (one, other)) in pairs.into_iter().enumerate() {
            let ns = w.ns(&["pair", &index.to_string()])?;
            w.put(&ns, one, 1).await?;
            check_eq!(w.get(&ns, other).await?, None, "get of {other:?} after a put of {one:?}");
            w.put(&ns, other, 2).await?;
            check_eq!(
                w.number(&ns, one).await?,
                Some(1),
                "the value of {one:?} after a put of {other:?}"
            );
            let (one, other) = (w.ns(&[one])?, w.ns(&[other])?);
            w.put(&one, &index.to_string(), 3).await?;
            check!(
                w.get(&other, &index.to_string()).await?.is_none(),
                "the namespace {other:?} has the entry of {one:?}"
            );
        }
        Ok(())
    }
}
