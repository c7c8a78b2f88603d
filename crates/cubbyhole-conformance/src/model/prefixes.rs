//! Operations on all namespaces under a prefix, or on the whole store.

use cubbyhole_core::NamespacePrefix;

use super::play::Player;
use crate::Sample;
use crate::outcome::{Outcome, check, check_eq};

impl<V: Sample> Player<'_, V> {
    pub(super) async fn list_namespaces(&mut self, prefix: usize, limit: usize) -> Outcome {
        let expected = self.model.namespaces(prefix, &self.tenants);
        let expected: Vec<_> = expected.into_iter().map(|ns| &self.namespaces[ns]).collect();
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let found = self.w.namespaces(&under).await?;
        check_eq!(found.iter().collect::<Vec<_>>(), expected, "list_namespaces under {prefix}");
        let found = self.w.namespace_pages(&under, limit).await?;
        check_eq!(found.iter().collect::<Vec<_>>(), expected, "scan_namespaces under {prefix}");
        Ok(())
    }

    pub(super) async fn usage(&mut self, prefix: usize) -> Outcome {
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let usage = self.w.store().usage(self.w.ctx(), &under).await?;
        let namespaces = self.model.namespaces(prefix, &self.tenants).len() as u64;
        let expected = (namespaces, self.model.live_under(prefix));
        check_eq!(
            (usage.namespaces, usage.entries),
            expected,
            "namespaces and entries in usage under {prefix}"
        );
        let (least, most) = self.model.expired_under(Some(prefix));
        let within = (least..=most).contains(&usage.expired);
        check!(
            within || !self.w.can().keeps_expired,
            "usage under {prefix} must count {least} to {most} expired entries, but counts {}",
            usage.expired
        );
        Ok(())
    }

    pub(super) async fn erase(&mut self, prefix: usize, limit: usize) -> Outcome {
        let under = NamespacePrefix::from(&self.namespaces[prefix]);
        let mut removed = 0;
        loop {
            let step = self.w.store().erase(self.w.ctx(), &under, limit).await?;
            check!(
                step.removed <= limit as u64,
                "a step of erase with limit {limit} removes {} entries",
                step.removed
            );
            removed += step.removed;
            if step.done {
                break;
            }
        }
        check_eq!(
            removed,
            self.model.live_under(prefix),
            "the entries that erase removes under {prefix}"
        );
        self.model.erase(prefix);
        Ok(())
    }

    pub(super) async fn evict(&mut self) -> Outcome {
        let removed = self.w.store().evict_expired(self.w.ctx()).await? as u64;
        let (least, most) = self.model.expired_under(None);
        check!(
            removed <= most,
            "evict_expired removes {removed} entries, but only {most} have expired"
        );
        let enough = removed >= least || !self.w.can().keeps_expired;
        check!(enough, "evict_expired removes {removed} entries, but {least} have expired");
        self.model.evict();
        Ok(())
    }
}
