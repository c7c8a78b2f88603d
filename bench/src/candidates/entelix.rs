//! `entelix-memory` and `entelix-persistence`, which implement the same trait. They have no
//! conditional writes, no batches and no pages.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use entelix_core::{ExecutionContext, TenantId};
use entelix_memory::{Namespace, NamespacePrefix, PutOptions, Store};

use super::each_namespace;
use super::ours::{StoredValue, TTL};
use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, Layout, Names, TENANT, Value, Values};
use crate::workload::Ability;

/// The number of puts in flight while a store is filled.
const IN_FLIGHT: usize = 64;

const ALL: &[Ability] = &[
    Ability::Get,
    Ability::Put,
    Ability::List,
    Ability::ListGroup,
    Ability::ListAll,
    Ability::Sweep,
];

/// The abilities of an entelix store.
pub trait StoreAbilities {
    const ABILITIES: &'static [Ability] = ALL;
}

impl<V: Clone + Send + Sync + 'static> StoreAbilities for entelix_memory::InMemoryStore<V> {}

impl<V> StoreAbilities for entelix_persistence::postgres::PostgresStore<V> {}

impl<V> StoreAbilities for entelix_persistence::redis::RedisStore<V> {
    // It lists no namespaces, and Redis removes expired entries.
    const ABILITIES: &'static [Ability] = &[Ability::Get, Ability::Put, Ability::List];
}

/// An entelix store.
pub struct Entelix<V, S> {
    store: Arc<S>,
    names: Arc<Names>,
    namespaces: Arc<Vec<Namespace>>,
    groups: Vec<NamespacePrefix>,
    ctx: ExecutionContext,
    value: PhantomData<fn() -> V>,
}

impl<V: StoredValue + Clone, S: Store<V>> Entelix<V, S> {
    pub fn new(store: S, names: &Arc<Names>) -> Self {
        let layout = names.layout;
        Self {
            store: Arc::new(store),
            namespaces: Arc::new(
                (0..names.namespaces.len()).map(|index| namespace(layout, index)).collect(),
            ),
            groups: (0..names.groups.len()).map(|index| group(layout, index)).collect(),
            names: Arc::clone(names),
            ctx: ExecutionContext::new(),
            value: PhantomData,
        }
    }

    pub async fn fill(&self, values: &Arc<Values>) -> Result<()> {
        let (store, names, values) =
            (Arc::clone(&self.store), Arc::clone(&self.names), Arc::clone(values));
        let namespaces = Arc::clone(&self.namespaces);
        each_namespace(&self.names, IN_FLIGHT, move |namespace| {
            let (store, names, values) =
                (Arc::clone(&store), Arc::clone(&names), Arc::clone(&values));
            let namespaces = Arc::clone(&namespaces);
            async move {
                let ctx = ExecutionContext::new();
                for (key, name) in names.keys.iter().enumerate() {
                    let options = match (EntryId { namespace, key }).expires() {
                        true => PutOptions::default().with_ttl(TTL),
                        false => PutOptions::default(),
                    };
                    let value = V::of(values.nth(namespace + key));
                    let ns = &namespaces[namespace];
                    store.put_with_options(&ctx, ns, name, value, options).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Puts `count` entries with a TTL of 1 ms in a separate namespace.
    pub async fn put_expiring(&self, count: usize, values: &Values) -> Result<()> {
        let ns = Namespace::new(TenantId::new("expiring"));
        for key in 0..count {
            let options = PutOptions::default().with_ttl(Duration::from_millis(1));
            let (key, value) = (format!("k{key}"), V::of(values.nth(key)));
            self.store.put_with_options(&self.ctx, &ns, &key, value, options).await?;
        }
        Ok(())
    }
}

/// The namespace that [`Names`] has at this index.
fn namespace(layout: Layout, index: usize) -> Namespace {
    let (tenant, scope) = layout.parts(index);
    scope.into_iter().fold(Namespace::new(TenantId::new(tenant)), Namespace::with_scope)
}

fn group(layout: Layout, index: usize) -> NamespacePrefix {
    let (tenant, scope) = layout.group(index);
    let tenant = NamespacePrefix::new(TenantId::new(tenant));
    scope.into_iter().fold(tenant, NamespacePrefix::with_scope)
}

impl<V: StoredValue + Clone, S: Store<V> + StoreAbilities> Candidate for Entelix<V, S> {
    const ABILITIES: &'static [Ability] = S::ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let ns = &self.namespaces[id.namespace];
        let value = self.store.get(&self.ctx, ns, &self.names.keys[id.key]).await?;
        Ok(value.map(|value| value.bytes()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let ns = &self.namespaces[id.namespace];
        let key = &self.names.keys[id.key];
        Ok(self.store.put(&self.ctx, ns, key, V::of(value)).await?)
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        Ok(self.store.list(&self.ctx, &self.namespaces[namespace], None).await?.len())
    }

    async fn list_group(&self, group: usize) -> Result<usize> {
        Ok(self.store.list_namespaces(&self.ctx, &self.groups[group]).await?.len())
    }

    async fn list_all(&self) -> Result<usize> {
        let prefix = NamespacePrefix::new(TenantId::new(TENANT));
        Ok(self.store.list_namespaces(&self.ctx, &prefix).await?.len())
    }

    async fn sweep(&self) -> Result<Option<usize>> {
        Ok(Some(self.store.evict_expired(&self.ctx).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entelix_namespaces_render_like_ours() {
        for layout in [Layout::ManyTenants, Layout::OneTenant] {
            let names = Names::new(3000, layout).unwrap();
            for (index, ns) in names.namespaces.iter().enumerate() {
                assert_eq!(namespace(layout, index).render(), ns.as_str());
            }
        }
    }
}
