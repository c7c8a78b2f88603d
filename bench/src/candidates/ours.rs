//! Cubbyhole through its traits, over bytes or over strings that it encodes as JSON.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Batch, Bytes, Condition, EntryStore, ExecutionContext, GetOptions, NamespacePrefix, PutOptions,
    ScanOptions, TenantId,
};

use super::each_namespace;
use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, Names, TENANT, Value, Values};
use crate::workload::{Ability, BATCH};

/// A TTL that ends long after the run.
pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The number of batches in flight while a store is filled.
const IN_FLIGHT: usize = 16;

/// The value type of a store, created from a [`Value`].
pub trait StoredValue: Send + Sync + 'static {
    fn of(value: &Value) -> Self;

    /// The length as JSON.
    fn bytes(&self) -> usize;
}

impl StoredValue for Bytes {
    fn of(value: &Value) -> Self {
        value.owned()
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

impl StoredValue for String {
    fn of(value: &Value) -> Self {
        value.text.clone()
    }

    fn bytes(&self) -> usize {
        self.len() + "\"\"".len()
    }
}

/// A Cubbyhole store.
pub struct Ours<V, S> {
    pub store: S,
    pub names: Arc<Names>,
    pub ctx: ExecutionContext,
    value: PhantomData<fn() -> V>,
}

impl<V: StoredValue, S: EntryStore<V> + Clone> Ours<V, S> {
    pub fn new(store: S, names: &Arc<Names>) -> Self {
        let ctx = ExecutionContext::new();
        Self { store, names: Arc::clone(names), ctx, value: PhantomData }
    }

    /// Fills the store. Entries that [expire](EntryId::expires) get a TTL.
    pub async fn fill(&self, values: &Arc<Values>) -> Result<()> {
        let (store, names, values) =
            (self.store.clone(), Arc::clone(&self.names), Arc::clone(values));
        each_namespace(&self.names, IN_FLIGHT, move |namespace| {
            let mut batch = Batch::new();
            for (key, name) in names.keys.iter().enumerate() {
                let options = match (EntryId { namespace, key }).expires() {
                    true => PutOptions::new().with_ttl(TTL),
                    false => PutOptions::new(),
                };
                let value = V::of(values.nth(namespace + key));
                batch = batch.put_with(name, value, options, Condition::Always);
            }
            let (store, ns) = (store.clone(), names.namespaces[namespace].clone());
            async move {
                store.write(&ExecutionContext::new(), &ns, batch).await?;
                Ok(())
            }
        })
        .await
    }

    /// Puts `count` entries with a TTL of 1 ms in separate namespaces.
    pub async fn put_expiring(&self, count: usize, values: &Values) -> Result<()> {
        const BATCH_ENTRIES: usize = 100;
        for batch in 0..count / BATCH_ENTRIES {
            let ns = cubbyhole::Namespace::from_parts("expiring", [format!("n{batch}")])?;
            let short_lived = PutOptions::new().with_ttl(Duration::from_millis(1));
            let puts = (0..BATCH_ENTRIES).fold(Batch::new(), |puts, key| {
                let value = V::of(values.nth(key));
                puts.put_with(format!("k{key}"), value, short_lived.clone(), Condition::Always)
            });
            self.store.write(&self.ctx, &ns, puts).await?;
        }
        Ok(())
    }
}

impl<V: StoredValue, S: EntryStore<V>> Candidate for Ours<V, S> {
    const ABILITIES: &'static [Ability] = &[
        Ability::Get,
        Ability::Put,
        Ability::List,
        Ability::ListGroup,
        Ability::ListAll,
        Ability::Page,
        Ability::Sweep,
        Ability::Append,
        Ability::Batch,
    ];

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let ns = &self.names.namespaces[id.namespace];
        let value = self.store.get(&self.ctx, ns, &self.names.keys[id.key]).await?;
        Ok(value.map(|value| value.bytes()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let ns = &self.names.namespaces[id.namespace];
        let key = &self.names.keys[id.key];
        Ok(self.store.put(&self.ctx, ns, key, V::of(value)).await?)
    }

    async fn list(&self, namespace: usize) -> Result<usize> {
        Ok(self.store.list(&self.ctx, &self.names.namespaces[namespace], None).await?.len())
    }

    async fn list_group(&self, group: usize) -> Result<usize> {
        Ok(self.store.list_namespaces(&self.ctx, &self.names.groups[group]).await?.len())
    }

    async fn list_all(&self) -> Result<usize> {
        let prefix = NamespacePrefix::from(TenantId::new(TENANT)?);
        Ok(self.store.list_namespaces(&self.ctx, &prefix).await?.len())
    }

    async fn page(&self, from: EntryId, limit: usize) -> Result<usize> {
        let ns = &self.names.namespaces[from.namespace];
        let mut options = ScanOptions::new().with_limit(limit);
        if let Some(before) = from.key.checked_sub(1) {
            options = options.with_after(self.names.keys[before].as_str());
        }
        let page = self.store.scan(&self.ctx, ns, options).await?;
        Ok(page.items.iter().filter(|item| matches!(&item.value, Some(Ok(_)))).count())
    }

    async fn sweep(&self) -> Result<Option<usize>> {
        Ok(Some(self.store.evict_expired(&self.ctx).await?))
    }

    async fn append(&self, id: EntryId, value: &Value) -> Result<()> {
        let (ns, key) = (&self.names.namespaces[id.namespace], &self.names.keys[id.key]);
        loop {
            let entry = self.store.get_entry(&self.ctx, ns, key, GetOptions::new()).await?;
            let entry = entry.ok_or("the entry to append to does not exist")?;
            let condition = Condition::IfVersion(entry.meta.version);
            let options = PutOptions::new();
            match self.store.put_entry(&self.ctx, ns, key, V::of(value), options, condition).await {
                Err(error) if error.kind() == cubbyhole::ErrorKind::Conflict => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let puts = self.names.keys.iter().zip(values);
        let batch = puts.fold(Batch::new(), |batch, (key, value)| batch.put(key, V::of(value)));
        self.store.write(&self.ctx, &self.names.namespaces[namespace], batch).await?;
        Ok(())
    }
}
