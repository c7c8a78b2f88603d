//! `list`: the keys of a namespace, and their order.

use cubbyhole_core::ScanOptions;

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check_eq};
use crate::world::World;

/// Keys in byte order. A locale, UTF-16 or numeric order would sort them differently.
const ORDERED: [&str; 18] = [
    "",
    " ",
    "!",
    "-",
    "10",
    "2",
    "A",
    "B",
    "Z",
    "_",
    "a",
    "aa",
    "b",
    "z",
    "~",
    "\u{e9}",
    "\u{fffd}",
    "\u{1f980}",
];

cases! {
    /// `list` of an empty namespace returns no keys.
    #[case(tenant, core)]
    async fn empty_namespace_lists_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["empty"])?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys without a prefix");
        check_eq!(w.list(&ns, Some("")).await?, [""; 0], "the keys with the empty prefix");
        check_eq!(w.list(&ns, Some("a")).await?, [""; 0], "the keys with a prefix");
        Ok(())
    }

    /// `list` returns every key once, without a prefix and with the empty prefix.
    #[case(tenant, core)]
    async fn every_key_is_listed_once<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &ORDERED).await?;
        w.put_all(&ns, &ORDERED).await?;
        check_eq!(w.list(&ns, None).await?, ORDERED, "the keys without a prefix");
        check_eq!(w.list(&ns, Some("")).await?, ORDERED, "the keys with the empty prefix");
        Ok(())
    }

    /// A prefix selects the keys that start with it, including the key that equals it.
    #[case(tenant, core)]
    async fn prefix_selects_keys<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "ab", "abc", "abd", "ac", "b", "Ab", " ab", "xab"]).await?;
        check_eq!(
            w.list(&ns, Some("ab")).await?,
            ["ab", "abc", "abd"],
            "the keys with the prefix ab"
        );
        check_eq!(
            w.list(&ns, Some("abcd")).await?,
            [""; 0],
            "the keys with a prefix that is longer than any key"
        );
        check_eq!(w.list(&ns, Some("b")).await?, ["b"], "the keys with the prefix b");
        Ok(())
    }

    /// A prefix that ends with the last Unicode character works, although it has no successor of
    /// the same length.
    #[case(tenant, core)]
    async fn prefix_of_last_unicode_characters_works<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let keys = ["a", "a\u{10ffff}", "a\u{10ffff}\u{10ffff}", "b", "\u{d7ff}x", "\u{e000}x"];
        w.put_all(&ns, &keys).await?;
        w.put_all(&ns, &["\u{10ffff}", "\u{10ffff}a", "\u{10ffff}\u{10ffff}"]).await?;
        let last = "\u{10ffff}";
        let expected = ["\u{10ffff}", "\u{10ffff}a", "\u{10ffff}\u{10ffff}"];
        check_eq!(w.list(&ns, Some(last)).await?, expected, "the keys with the prefix U+10FFFF");
        let expected = ["a\u{10ffff}", "a\u{10ffff}\u{10ffff}"];
        check_eq!(
            w.list(&ns, Some("a\u{10ffff}")).await?,
            expected,
            "the keys with the prefix a, U+10FFFF"
        );
        check_eq!(
            w.list(&ns, Some("\u{d7ff}")).await?,
            ["\u{d7ff}x"],
            "the keys with the last prefix before the surrogates"
        );
        check_eq!(
            w.list(&ns, Some("\u{e000}")).await?,
            ["\u{e000}x"],
            "the keys with the first prefix after the surrogates"
        );
        check_eq!(w.list(&ns, Some("b")).await?, ["b"], "b");
        Ok(())
    }

    /// A store that implements `EntryStore` lists keys in ascending byte order.
    #[case(tenant, entry)]
    async fn list_is_in_byte_order<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["order"])?;
        for key in ORDERED.iter().rev() {
            w.put(&ns, key, 1).await?;
        }
        // A store that only implements `Store` may list in any order. For that store, this call
        // ends the case as ignored.
        w.page(&ns, ScanOptions::new()).await?;
        check_eq!(w.store().list(w.ctx(), &ns, None).await?, ORDERED, "the keys in byte order");
        Ok(())
    }

    /// `list` reflects puts and deletes.
    #[case(tenant, core)]
    async fn list_reflects_puts_and_deletes<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        w.delete(&ns, "b").await?;
        check_eq!(w.list(&ns, None).await?, ["a", "c"], "the keys after the delete");
        w.put(&ns, "bb", 1).await?;
        check_eq!(w.list(&ns, None).await?, ["a", "bb", "c"], "the keys after the put");
        Ok(())
    }

    /// `list` has no limit: it returns more keys than a page of a scan.
    #[case(tenant, core)]
    async fn list_returns_more_keys_than_a_page<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["many"])?;
        let keys: Vec<String> = (0..1500).map(|number| format!("k{number:04}")).collect();
        for chunk in keys.chunks(100) {
            let puts = chunk.iter().map(|key| w.put(&ns, key, 1));
            futures_util::future::try_join_all(puts).await?;
        }
        check_eq!(w.list(&ns, None).await?, keys, "the keys of a namespace with 1,500 entries");
        check_eq!(
            w.list(&ns, Some("k14")).await?.len(),
            100,
            "the number of keys that start with k14"
        );
        Ok(())
    }
}
