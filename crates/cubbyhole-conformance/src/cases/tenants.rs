//! `scan_tenants`: lists the tenants, for operators.

use cubbyhole_core::{ErrorKind, Namespace, TenantId};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check_eq, refused};
use crate::world::World;

/// Tenants that sort close to the namespaces of `t`: `t-b`, `t/x` and `t0` sort between `t` and
/// `t:`.
const NAMES: [&str; 14] = [
    "t",
    "t!",
    "t-b",
    "t/x",
    "t0",
    "t:",
    "t:x",
    "t;",
    "t\\",
    "tt",
    "u",
    "%",
    "\u{5e9}",
    "\u{10ffff}",
];

cases! {
    /// `scan_tenants` returns `PermissionDenied` if the role is not allowed to see across tenants.
    #[case(store, entry)]
    async fn scan_without_permission_is_permission_denied<V: Sample>(w: &World<V>) -> Outcome {
        let page = w.store().scan_tenants(w.ctx(), None, 10).await;
        if w.can().sees_tenants {
            page?;
        } else {
            refused(page, ErrorKind::PermissionDenied, "scan_tenants")?;
        }
        Ok(())
    }

    /// A store without entries has no tenants.
    #[case(store, entry)]
    async fn empty_store_has_no_tenants<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_tenants()?;
        check_eq!(w.tenant_pages(10).await?, [], "the tenants of an empty store");
        Ok(())
    }

    /// Pages of every size return each tenant once, in byte order of the rendered name.
    #[case(store, entry)]
    async fn pages_of_every_size_return_each_tenant_once<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_tenants()?;
        let tenants = fill(w, &[&[], &["a"], &["a", "b"], &["-"]]).await?;
        for limit in 1..=NAMES.len() + 1 {
            check_eq!(w.tenant_pages(limit).await?, tenants, "the tenants on pages of {limit}");
        }
        Ok(())
    }

    /// A tenant that has entries only under a scope is listed.
    #[case(store, entry)]
    async fn tenant_with_only_scoped_entries_is_listed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_tenants()?;
        let tenants = fill(w, &[&["", ""], &["x", "y"]]).await?;
        for limit in [1, 4, 1000] {
            check_eq!(w.tenant_pages(limit).await?, tenants, "the tenants on pages of {limit}");
        }
        Ok(())
    }

    /// `after` excludes the tenant that it names. That tenant need not exist.
    #[case(store, entry)]
    async fn after_may_name_absent_tenant<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_tenants()?;
        let tenants = fill(w, &[&["a"], &["b"]]).await?;
        for after in NAMES.into_iter().chain(["!", "t,", "t.", "t:y", "z", "\u{10ffff}x"]) {
            let after = TenantId::new(after)?;
            let expected: Vec<_> = tenants.iter().filter(|tenant| **tenant > after).collect();
            let page = w.store().scan_tenants(w.ctx(), Some(&after), 1000).await?;
            check_eq!(page.items.iter().collect::<Vec<_>>(), expected, "the tenants after {after}");
        }
        Ok(())
    }

    /// A tenant whose entries were deleted or erased, or have expired, is not listed.
    #[case(store, entry)]
    async fn tenant_without_live_entries_is_not_listed<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_tenants()?;
        let namespace = |name: &str| TenantId::new(name).map(Namespace::new);
        w.put(&namespace("deleted")?, "k", 1).await?;
        w.delete(&namespace("deleted")?, "k").await?;
        w.put(&namespace("erased")?.with_scope("a")?, "k", 1).await?;
        w.store().erase(w.ctx(), &TenantId::new("erased")?.into(), 10).await?;
        w.put_expired(&namespace("expired")?, "k").await?;
        w.put_expired(&namespace("half")?, "k").await?;
        w.put(&namespace("half")?.with_scope("a")?, "k", 1).await?;
        for limit in [1, 1000] {
            check_eq!(
                w.tenant_pages(limit).await?,
                [TenantId::new("half")?],
                "the tenants on pages of {limit}"
            );
        }
        Ok(())
    }

    /// A limit of 0 or more than 1,000 is rejected.
    #[case(store, entry)]
    async fn limit_out_of_range_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_tenants()?;
        for limit in [0, 1001, usize::MAX] {
            let page = w.store().scan_tenants(w.ctx(), None, limit).await;
            refused(page, ErrorKind::InvalidArgument, format_args!("a limit of {limit}"))?;
        }
        Ok(())
    }
}

/// Writes to these scopes of every tenant, and returns the tenants in order.
async fn fill<V: Sample>(w: &World<V>, scopes: &[&[&str]]) -> Outcome<Vec<TenantId>> {
    let mut tenants = Vec::new();
    for name in NAMES {
        for segments in scopes {
            w.put(&Namespace::from_parts(name, *segments)?, "k", 1).await?;
        }
        tenants.push(TenantId::new(name)?);
    }
    tenants.sort_unstable_by(|a, b| a.as_rendered().cmp(b.as_rendered()));
    Ok(tenants)
}
