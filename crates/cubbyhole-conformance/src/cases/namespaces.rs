//! `list_namespaces` and `scan_namespaces`.

use cubbyhole_core::{ErrorKind, Namespace, NamespacePrefix};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

/// Scopes that sort close to `a`: `a!`, `a-b` and `a/x` sort before `a:`, and `a;`, `aa` and `b`
/// after it.
const SCOPES: [&[&str]; 16] = [
    &[],
    &[""],
    &["a"],
    &["a", ""],
    &["a", "b"],
    &["a", "b", "c"],
    &["a", "\u{10ffff}"],
    &["a!"],
    &["a-b"],
    &["a/x"],
    &["a:b"],
    &["a;"],
    &["a\\"],
    &["aa"],
    &["b"],
    &["\u{10ffff}"],
];

cases! {
    /// `list_namespaces` returns every namespace under a prefix that has entries, including the
    /// namespace that the prefix names.
    #[case(tenant, core)]
    async fn every_namespace_is_listed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let all = fill(w).await?;
        let mut found = w.namespaces(&w.everything()).await?;
        found.sort_unstable();
        check_eq!(found, all, "the namespaces of the tenant");
        Ok(())
    }

    /// A prefix matches whole segments: `a` matches `a` and `a:b`, but not `ab` or `a-b`.
    #[case(tenant, core)]
    async fn prefix_matches_whole_segments<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let all = fill(w).await?;
        for prefix in prefixes(w)? {
            let mut found = w.namespaces(&prefix).await?;
            found.sort_unstable();
            check_eq!(found, under(&prefix, &all), "the namespaces under {prefix}");
        }
        Ok(())
    }

    /// A store that implements `EntryStore` lists namespaces in byte order of the rendered form.
    #[case(tenant, entry)]
    async fn list_is_in_byte_order<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let all = fill(w).await?;
        w.store().scan_namespaces(w.ctx(), &w.everything(), None, 1).await?;
        check_eq!(w.namespaces(&w.everything()).await?, all, "the namespaces in byte order");
        Ok(())
    }

    /// `list_namespaces` returns no namespace of a tenant whose name starts with the name of the
    /// given one.
    #[case(tenant, core)]
    async fn tenants_with_longer_names_are_not_listed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        for suffix in ["b", "-b", "/b", ";", "%", "\\", ":", "\u{10ffff}"] {
            let theirs = Namespace::new(w.tenant_with(suffix)?);
            w.put(&theirs, "k", 1).await?;
            w.put(&theirs.with_scope("a")?, "k", 1).await?;
        }
        check_eq!(
            w.namespaces(&w.everything()).await?,
            [],
            "the namespaces of a tenant without entries"
        );
        let ours = w.ns(&["a"])?;
        w.put(&ours, "k", 1).await?;
        check_eq!(w.namespaces(&w.everything()).await?, [ours], "the namespaces of the tenant");
        Ok(())
    }

    /// A namespace is listed once for any number of entries. Its parents are listed only if they
    /// have entries.
    #[case(tenant, core)]
    async fn namespace_is_listed_once_without_parents<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let deep = w.ns(&["a", "b", "c"])?;
        for number in 0..20 {
            w.put(&deep, &format!("k{number}"), number).await?;
        }
        let found = w.namespaces(&w.everything()).await?;
        check_eq!(found, std::slice::from_ref(&deep), "the namespaces of the tenant");
        let found = w.namespaces(&w.ns(&["a"])?.into()).await?;
        check_eq!(found, [deep], "the namespaces under a prefix whose namespace is empty");
        Ok(())
    }

    /// A namespace is not listed after its last entry was deleted.
    #[case(tenant, core)]
    async fn emptied_namespace_is_not_listed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let (a, b) = (w.ns(&["a"])?, w.ns(&["b"])?);
        w.put_all(&a, &["j", "k"]).await?;
        w.put(&b, "k", 1).await?;
        w.delete(&a, "j").await?;
        check_eq!(
            w.namespaces(&w.everything()).await?.len(),
            2,
            "the number of namespaces while a has one entry"
        );
        w.delete(&a, "k").await?;
        check_eq!(
            w.namespaces(&w.everything()).await?,
            [b],
            "the namespaces after the last delete in a"
        );
        w.put(&a, "k", 1).await?;
        check_eq!(
            w.namespaces(&w.everything()).await?.len(),
            2,
            "the number of namespaces after a new put in a"
        );
        Ok(())
    }

    /// A namespace that has only expired entries is not listed, swept or not.
    #[case(time, core)]
    async fn expired_namespace_is_not_listed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let (a, b) = (w.ns(&["a"])?, w.ns(&["b"])?);
        w.put_for(&a, "j", 1, w.short()).await?;
        w.put_for(&a, "k", 1, w.short()).await?;
        w.put_for(&b, "j", 1, w.short()).await?;
        w.put(&b, "k", 1).await?;
        w.expire().await;
        check_eq!(
            w.namespaces(&w.everything()).await?,
            std::slice::from_ref(&b),
            "the namespaces after the entries of a have expired"
        );
        w.store().evict_expired(w.ctx()).await?;
        check_eq!(w.namespaces(&w.everything()).await?, [b], "the namespaces after a sweep");
        Ok(())
    }

    /// `list_namespaces` has no limit: it returns more namespaces than a page of a scan.
    #[case(tenant, core)]
    async fn list_returns_more_namespaces_than_a_page<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_namespaces()?;
        let mut expected = Vec::new();
        for number in 0..1100 {
            expected.push(w.ns(&["many", &format!("{number:04}")])?);
        }
        for chunk in expected.chunks(50) {
            futures_util::future::try_join_all(chunk.iter().map(|ns| w.put(ns, "k", 1))).await?;
        }
        let mut found = w.namespaces(&w.everything()).await?;
        found.sort_unstable();
        check_eq!(found, expected, "the 1,100 namespaces");
        Ok(())
    }

    /// Pages of every size return each namespace once, in byte order.
    #[case(tenant, entry)]
    async fn pages_of_every_size_return_each_once<V: Sample>(w: &World<V>) -> Outcome {
        let all = fill(w).await?;
        for limit in 1..=all.len() + 1 {
            let found = w.namespace_pages(&w.everything(), limit).await?;
            check_eq!(found, all, "the namespaces on pages of {limit}");
        }
        Ok(())
    }

    /// The prefix of `scan_namespaces` matches whole segments.
    #[case(tenant, entry)]
    async fn page_prefix_matches_whole_segments<V: Sample>(w: &World<V>) -> Outcome {
        let all = fill(w).await?;
        for prefix in prefixes(w)? {
            for limit in [1, 2, 1000] {
                let found = w.namespace_pages(&prefix, limit).await?;
                check_eq!(
                    found,
                    under(&prefix, &all),
                    "the namespaces under {prefix}, on pages of {limit}"
                );
            }
        }
        Ok(())
    }

    /// `after` excludes the namespace that it names. That namespace need not exist or be under the
    /// prefix.
    #[case(tenant, entry)]
    async fn after_may_name_absent_namespace<V: Sample>(w: &World<V>) -> Outcome {
        let all = fill(w).await?;
        let mut afters = all.clone();
        for segments in [&["a", "a"][..], &["a", "z"], &["a-"], &["zz"], &["a!", "x"], &["!"]] {
            afters.push(w.ns(segments)?);
        }
        afters.push(Namespace::parse("!")?);
        afters.push(Namespace::parse("\u{10ffff}")?);
        for prefix in prefixes(w)? {
            for after in &afters {
                let mut expected = under(&prefix, &all);
                expected.retain(|ns| ns > after);
                let page = w.store().scan_namespaces(w.ctx(), &prefix, Some(after), 1000).await?;
                check_eq!(page.items, expected, "the namespaces under {prefix} after {after}");
            }
        }
        Ok(())
    }

    /// `scan_namespaces` skips namespaces whose entries were deleted or have expired.
    #[case(tenant, entry)]
    async fn pages_skip_empty_namespaces<V: Sample>(w: &World<V>) -> Outcome {
        let mut expected = Vec::new();
        for number in 0..12 {
            let ns = w.ns(&[&format!("{number:02}")])?;
            match number % 3 {
                0 => drop(w.put_expired(&ns, "k").await?),
                1 => {
                    w.put(&ns, "k", 1).await?;
                    w.delete(&ns, "k").await?;
                }
                _ => {
                    w.put(&ns, "k", 1).await?;
                    w.put_expired(&ns, "j").await?;
                    expected.push(ns);
                }
            }
        }
        for limit in [1, 3, 100] {
            let found = w.namespace_pages(&w.everything(), limit).await?;
            check_eq!(found, expected, "the namespaces on pages of {limit}");
        }
        Ok(())
    }

    /// A limit of 0 or more than 1,000 is rejected.
    #[case(tenant, entry)]
    async fn limit_out_of_range_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        for limit in [0, 1001, usize::MAX] {
            let page = w.store().scan_namespaces(w.ctx(), &w.everything(), None, limit).await;
            refused(page, ErrorKind::InvalidArgument, format_args!("a limit of {limit}"))?;
        }
        Ok(())
    }

    /// A namespace that exists during a whole scan is returned exactly once, even if others are
    /// created between the pages.
    #[case(tenant, entry)]
    async fn writes_between_pages_lose_no_namespace<V: Sample>(w: &World<V>) -> Outcome {
        let mut stays = Vec::new();
        for number in 0..20 {
            let ns = w.ns(&[&format!("n{number:02}")])?;
            w.put(&ns, "k", 1).await?;
            stays.push(ns);
        }
        let (mut found, mut after) = (Vec::new(), None::<Namespace>);
        loop {
            let all = w.everything();
            let page = w.store().scan_namespaces(w.ctx(), &all, after.as_ref(), 3).await?;
            found.extend(page.items);
            let Some(next) = page.next else {
                break;
            };
            w.put(&next.clone().with_scope("new")?, "k", 1).await?;
            w.put(&w.ns(&["a", &found.len().to_string()])?, "k", 1).await?;
            after = Some(next);
        }
        check!(
            found.is_sorted_by(|a, b| a < b),
            "the pages must return each namespace once and in order"
        );
        found.retain(|ns| stays.contains(ns));
        check_eq!(found, stays, "the namespaces that existed during the whole scan");
        Ok(())
    }
}

/// Writes an entry to every scope, and returns the namespaces in order.
async fn fill<V: Sample>(w: &World<V>) -> Outcome<Vec<Namespace>> {
    let mut all = Vec::new();
    for segments in SCOPES {
        let ns = w.ns(segments)?;
        w.put(&ns, "k", 1).await?;
        all.push(ns);
    }
    all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(all)
}

fn prefixes<V: Sample>(w: &World<V>) -> cubbyhole_core::Result<Vec<NamespacePrefix>> {
    let scopes = SCOPES.into_iter().chain([&["nothing"][..], &["a", "b", "c", "d"]]);
    scopes.map(|segments| w.ns(segments).map(NamespacePrefix::from)).collect()
}

/// Returns the namespaces under a prefix, by segments and not by text.
fn under(prefix: &NamespacePrefix, all: &[Namespace]) -> Vec<Namespace> {
    let segments: Vec<_> = prefix.as_namespace().segments().collect();
    let beneath = |ns: &&Namespace| {
        ns.tenant() == prefix.tenant() && ns.segments().collect::<Vec<_>>().starts_with(&segments)
    };
    all.iter().filter(beneath).cloned().collect()
}
