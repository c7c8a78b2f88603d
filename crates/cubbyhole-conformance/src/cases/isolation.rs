//! Isolation: a write to one location is never visible at another one.

use cubbyhole_core::{Namespace, TenantId};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check_eq};
use crate::world::World;

cases! {
    /// The same key in two namespaces is two entries.
    #[case(tenant, core)]
    async fn same_key_in_two_namespaces_is_two_entries<V: Sample>(w: &World<V>) -> Outcome {
        let (a, b) = (w.ns(&["a"])?, w.ns(&["b"])?);
        w.put(&a, "k", 1).await?;
        w.put(&b, "k", 2).await?;
        check_eq!(w.number(&a, "k").await?, Some(1), "the value in a");
        w.delete(&a, "k").await?;
        check_eq!(w.number(&b, "k").await?, Some(2), "the value in b, after the delete in a");
        Ok(())
    }

    /// The same scope and key of two tenants is two entries.
    #[case(tenant, core)]
    async fn same_scope_and_key_of_two_tenants_is_two_entries<V: Sample>(w: &World<V>) -> Outcome {
        let ours = w.ns(&["a"])?;
        let theirs = Namespace::new(w.tenant_with("-other")?).with_scope("a")?;
        w.put(&ours, "k", 1).await?;
        check_eq!(w.get(&theirs, "k").await?, None, "get in the other tenant");
        w.put(&theirs, "k", 2).await?;
        w.delete(&theirs, "k").await?;
        check_eq!(
            w.number(&ours, "k").await?,
            Some(1),
            "the value after the other tenant's was deleted"
        );
        Ok(())
    }

    /// The scope `a` does not see the entries of `ab`, and `ab` does not see those of `a`.
    #[case(tenant, core)]
    async fn scope_a_never_sees_scope_ab<V: Sample>(w: &World<V>) -> Outcome {
        let (a, ab) = (w.ns(&["a"])?, w.ns(&["ab"])?);
        w.put_all(&ab, &["k", "bk", ":k"]).await?;
        check_eq!(w.list(&a, None).await?, [""; 0], "the keys of a");
        check_eq!(w.list(&a, Some("b")).await?, [""; 0], "the keys of a that start with b");
        check_eq!(w.get(&a, "bk").await?, None, "bk in a");
        w.put(&a, "b", 9).await?;
        check_eq!(w.list(&ab, None).await?, [":k", "bk", "k"], "the keys of ab");
        check_eq!(w.list(&a, None).await?, ["b"], "the keys of a");
        Ok(())
    }

    /// A tenant does not see the entries of a tenant whose name starts with its own.
    #[case(tenant, core)]
    async fn tenant_never_sees_tenant_with_longer_name<V: Sample>(w: &World<V>) -> Outcome {
        let ours = w.ns(&[])?;
        for suffix in ["b", "-b", "/b", "0", "%", "_", ";", "\u{10ffff}", " "] {
            let theirs = Namespace::new(w.tenant_with(suffix)?);
            w.put(&theirs, "k", 1).await?;
            w.put(&theirs.with_scope("a")?, "k", 1).await?;
            check_eq!(
                w.list(&ours, None).await?,
                [""; 0],
                "the data of the tenant after a write to the tenant with suffix {suffix:?}"
            );
            check_eq!(
                w.get(&ours, "k").await?,
                None,
                "the data of the tenant after a write to the tenant with suffix {suffix:?}"
            );
            check_eq!(
                w.list(&w.ns(&["a"])?, None).await?,
                [""; 0],
                "the keys in scope a after a write to the tenant with suffix {suffix:?}"
            );
        }
        Ok(())
    }

    /// `list` returns the keys of one namespace, and none of the namespaces under it.
    #[case(tenant, core)]
    async fn list_does_not_include_child_namespaces<V: Sample>(w: &World<V>) -> Outcome {
        w.put(&w.ns(&[])?, "top", 1).await?;
        w.put(&w.ns(&["a"])?, "middle", 2).await?;
        w.put(&w.ns(&["a", "b"])?, "bottom", 3).await?;
        check_eq!(
            w.list(&w.ns(&[])?, None).await?,
            ["top"],
            "the keys of the namespace without scope"
        );
        check_eq!(w.list(&w.ns(&["a"])?, None).await?, ["middle"], "the keys of a");
        check_eq!(w.list(&w.ns(&["a", "b"])?, None).await?, ["bottom"], "the keys of a:b");
        Ok(())
    }

    /// A colon in a key is not a separator: `[t, x]` + `y`, `[t]` + `x:y` and `[t, x, y]` + the
    /// empty key are three entries.
    #[case(tenant, core)]
    async fn colon_in_key_does_not_form_a_segment<V: Sample>(w: &World<V>) -> Outcome {
        let locations = [
            (w.ns(&["x"])?, "y"),
            (w.ns(&[])?, "x:y"),
            (w.ns(&["x", "y"])?, ""),
            (w.ns(&["x:y"])?, ""),
            (w.ns(&["x"])?, ":y"),
            (w.ns(&["x", ""])?, "y"),
            (w.ns(&[])?, ":x:y"),
            (w.ns(&["x:"])?, "y"),
            (w.ns(&["", "x"])?, "y"),
        ];
        all_distinct(w, &locations).await
    }

    /// Escapes never collide: a `\` before a `:` is ordinary text.
    #[case(tenant, core)]
    async fn escapes_never_collide<V: Sample>(w: &World<V>) -> Outcome {
        let locations = [
            (w.ns(&["a:b"])?, "k"),
            (w.ns(&["a", "b"])?, "k"),
            (w.ns(&["a\\:b"])?, "k"),
            (w.ns(&["a\\", "b"])?, "k"),
            (w.ns(&["a\\\\:b"])?, "k"),
            (w.ns(&["a\\\\", "b"])?, "k"),
            (w.ns(&["a"])?, "b:k"),
            (w.ns(&["a"])?, "\\:b:k"),
        ];
        all_distinct(w, &locations).await
    }

    /// Characters that engines use as separators between namespace and key never collide.
    #[case(tenant, core)]
    async fn separators_never_collide<V: Sample>(w: &World<V>) -> Outcome {
        for separator in [":", "/", "|", ".", "\u{1}", "\u{1f}", "\n", "::", "\\", "\u{ff}"] {
            let joined = format!("a{separator}b");
            let locations = [
                (w.ns(&["a"])?, joined.as_str()),
                (w.ns(&[&joined])?, ""),
                (w.ns(&[&joined])?, "b"),
                (w.ns(&["a", separator])?, "b"),
                (w.ns(&["a"])?, "b"),
                (w.ns(&["a"])?, separator),
            ];
            all_distinct(w, &locations).await?;
        }
        Ok(())
    }

    /// Tenants, segments and keys are case-sensitive.
    #[case(tenant, core)]
    async fn names_are_case_sensitive<V: Sample>(w: &World<V>) -> Outcome {
        let upper = Namespace::new(TenantId::new(w.tenant().as_str().to_uppercase())?);
        let locations = [
            (w.ns(&["a"])?, "k"),
            (w.ns(&["A"])?, "k"),
            (w.ns(&["a"])?, "K"),
            (upper.with_scope("a")?, "k"),
        ];
        all_distinct(w, &locations).await
    }

    /// The same segments in another order are another namespace.
    #[case(tenant, core)]
    async fn segment_order_is_significant<V: Sample>(w: &World<V>) -> Outcome {
        let locations = [
            (w.ns(&["a", "b", "c"])?, "k"),
            (w.ns(&["c", "b", "a"])?, "k"),
            (w.ns(&["a", "bc"])?, "k"),
            (w.ns(&["ab", "c"])?, "k"),
            (w.ns(&["a", "b"])?, "k"),
        ];
        all_distinct(w, &locations).await
    }
}

/// Writes a number to each location, reads all of them, and deletes them one by one.
async fn all_distinct<V: Sample>(w: &World<V>, locations: &[(Namespace, &str)]) -> Outcome {
    for (number, (ns, key)) in locations.iter().enumerate() {
        check_eq!(w.get(ns, key).await?, None, "get of {key:?} in {ns:?} before it is written");
        w.put(ns, key, number as u64).await?;
    }
    for (number, (ns, key)) in locations.iter().enumerate() {
        check_eq!(w.number(ns, key).await?, Some(number as u64), "the value of {key:?} in {ns:?}");
        w.delete(ns, key).await?;
        check_eq!(w.get(ns, key).await?, None, "get of {key:?} in {ns:?} after its delete");
    }
    Ok(())
}
