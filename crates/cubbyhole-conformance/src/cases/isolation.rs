//! Nothing written in one place is seen in another.

use cubbyhole_core::{Namespace, TenantId};

use crate::case::cases;
use crate::outcome::{Outcome, check_eq};
use crate::Sample;
use crate::world::World;

cases! {
    /// The same key in two namespaces is two entries.
    #[case(tenant, core)]
    async fn the_same_key_in_two_namespaces<V: Sample>(w: &World<V>) -> Outcome {
        let (a, b) = (w.ns(&["a"])?, w.ns(&["b"])?);
        w.put(&a, "k", 1).await?;
        w.put(&b, "k", 2).await?;
        check_eq!(w.number(&a, "k").await?, Some(1), "in a");
        w.delete(&a, "k").await?;
        check_eq!(w.number(&b, "k").await?, Some(2), "in b, after deleting in a");
        Ok(())
    }

    /// The same scope and key under two tenants are two entries.
    #[case(tenant, core)]
    async fn the_same_place_under_two_tenants<V: Sample>(w: &World<V>) -> Outcome {
        let ours = w.ns(&["a"])?;
        let theirs = Namespace::new(w.tenant_with("-other")?).with_scope("a")?;
        w.put(&ours, "k", 1).await?;
        check_eq!(w.get(&theirs, "k").await?, None, "nothing under the other tenant");
        w.put(&theirs, "k", 2).await?;
        w.delete(&theirs, "k").await?;
        check_eq!(w.number(&ours, "k").await?, Some(1), "ours after theirs was deleted");
        Ok(())
    }

    /// `a` never sees what is in `ab`, nor the other way round.
    #[case(tenant, core)]
    async fn a_never_sees_ab<V: Sample>(w: &World<V>) -> Outcome {
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

    /// A tenant never sees one whose name begins with its own.
    #[case(tenant, core)]
    async fn a_tenant_never_sees_a_longer_name<V: Sample>(w: &World<V>) -> Outcome {
        let ours = w.ns(&[])?;
        for suffix in ["b", "-b", "/b", "0", "%", "_", ";", "\u{10ffff}", " "] {
            let theirs = Namespace::new(w.tenant_with(suffix)?);
            w.put(&theirs, "k", 1).await?;
            w.put(&theirs.with_scope("a")?, "k", 1).await?;
            check_eq!(w.list(&ours, None).await?, [""; 0], "ours with {suffix:?} beside it");
            check_eq!(w.get(&ours, "k").await?, None, "ours with {suffix:?} beside it");
            check_eq!(w.list(&w.ns(&["a"])?, None).await?, [""; 0], "ours:a beside {suffix:?}");
        }
        Ok(())
    }

    /// `list` answers for one namespace and not for those beneath it.
    #[case(tenant, core)]
    async fn a_listing_does_not_descend<V: Sample>(w: &World<V>) -> Outcome {
        w.put(&w.ns(&[])?, "top", 1).await?;
        w.put(&w.ns(&["a"])?, "middle", 2).await?;
        w.put(&w.ns(&["a", "b"])?, "bottom", 3).await?;
        check_eq!(w.list(&w.ns(&[])?, None).await?, ["top"], "the tenant alone");
        check_eq!(w.list(&w.ns(&["a"])?, None).await?, ["middle"], "a alone");
        check_eq!(w.list(&w.ns(&["a", "b"])?, None).await?, ["bottom"], "a:b alone");
        Ok(())
    }

    /// `[t, x]` + `y`, `[t]` + `x:y` and `[t, x, y]` + the empty key are three places.
    #[case(tenant, core)]
    async fn a_colon_in_a_key_is_no_segment<V: Sample>(w: &World<V>) -> Outcome {
        let places = [
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
        all_apart(w, &places).await
    }

    /// Escapes collide with nothing: a `\` before a `:` is text like any other.
    #[case(tenant, core)]
    async fn escapes_collide_with_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let places = [
            (w.ns(&["a:b"])?, "k"),
            (w.ns(&["a", "b"])?, "k"),
            (w.ns(&["a\\:b"])?, "k"),
            (w.ns(&["a\\", "b"])?, "k"),
            (w.ns(&["a\\\\:b"])?, "k"),
            (w.ns(&["a\\\\", "b"])?, "k"),
            (w.ns(&["a"])?, "b:k"),
            (w.ns(&["a"])?, "\\:b:k"),
        ];
        all_apart(w, &places).await
    }

    /// Separators that engines use between namespace and key collide with nothing.
    #[case(tenant, core)]
    async fn separators_collide_with_nothing<V: Sample>(w: &World<V>) -> Outcome {
        for separator in [":", "/", "|", ".", "\u{1}", "\u{1f}", "\n", "::", "\\", "\u{ff}"] {
            let joined = format!("a{separator}b");
            let places = [
                (w.ns(&["a"])?, joined.as_str()),
                (w.ns(&[&joined])?, ""),
                (w.ns(&[&joined])?, "b"),
                (w.ns(&["a", separator])?, "b"),
                (w.ns(&["a"])?, "b"),
                (w.ns(&["a"])?, separator),
            ];
            all_apart(w, &places).await?;
        }
        Ok(())
    }

    /// The case of letters counts everywhere.
    #[case(tenant, core)]
    async fn the_case_of_letters_counts<V: Sample>(w: &World<V>) -> Outcome {
        let upper = Namespace::new(TenantId::new(w.tenant().as_str().to_uppercase())?);
        let places = [
            (w.ns(&["a"])?, "k"),
            (w.ns(&["A"])?, "k"),
            (w.ns(&["a"])?, "K"),
            (upper.with_scope("a")?, "k"),
        ];
        all_apart(w, &places).await
    }

    /// Segments in another order are another namespace.
    #[case(tenant, core)]
    async fn the_order_of_segments_counts<V: Sample>(w: &World<V>) -> Outcome {
        let places = [
            (w.ns(&["a", "b", "c"])?, "k"),
            (w.ns(&["c", "b", "a"])?, "k"),
            (w.ns(&["a", "bc"])?, "k"),
            (w.ns(&["ab", "c"])?, "k"),
            (w.ns(&["a", "b"])?, "k"),
        ];
        all_apart(w, &places).await
    }
}

/// Writes a number to each place, reads all of them back, and deletes them one by one.
async fn all_apart<V: Sample>(w: &World<V>, places: &[(Namespace, &str)]) -> Outcome {
    for (number, (ns, key)) in places.iter().enumerate() {
        check_eq!(w.get(ns, key).await?, None, "before it is written: {key:?} in {ns:?}");
        w.put(ns, key, number as u64).await?;
    }
    for (number, (ns, key)) in places.iter().enumerate() {
        check_eq!(w.number(ns, key).await?, Some(number as u64), "{key:?} in {ns:?}");
        w.delete(ns, key).await?;
        check_eq!(w.get(ns, key).await?, None, "after its deletion: {key:?} in {ns:?}");
    }
    Ok(())
}
