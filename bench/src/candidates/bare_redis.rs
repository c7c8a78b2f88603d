//! Bare `GET` and `SET` commands over one shared connection: the limit on Redis. The keys are as
//! long as those of the store.

use std::sync::Arc;

use cubbyhole::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, cmd, pipe};

use super::each_namespace;
use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, Names, Value, Values};
use crate::workload::{Ability, BATCH};

const IN_FLIGHT: usize = 16;

pub struct BareRedis {
    connection: MultiplexedConnection,
    names: Arc<Names>,
}

impl BareRedis {
    /// Connects like the store: `TCP_NODELAY`, and no timer for each reply.
    pub async fn connect(url: &str, names: &Arc<Names>) -> Result<Self> {
        let settings = TcpSettings::default().set_nodelay(true);
        let client = Client::open(url.into_connection_info()?.set_tcp_settings(settings))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { connection, names: Arc::clone(names) })
    }

    pub async fn fill(&self, values: &Arc<Values>) -> Result<()> {
        let (connection, names, values) =
            (self.connection.clone(), Arc::clone(&self.names), Arc::clone(values));
        each_namespace(&self.names, IN_FLIGHT, move |namespace| {
            let mut sets = pipe();
            for key in 0..names.keys.len() {
                let name = name(&names, EntryId { namespace, key });
                sets.cmd("SET").arg(name).arg(&*values.nth(namespace + key).json).ignore();
            }
            let mut connection = connection.clone();
            async move { Ok(sets.query_async::<()>(&mut connection).await?) }
        })
        .await
    }
}

fn name(names: &Names, id: EntryId) -> String {
    let (ns, key) = names.rendered(id);
    ["bare-bare:{", ns, "}v", key].concat()
}

impl Candidate for BareRedis {
    const ABILITIES: &'static [Ability] = &[Ability::Get, Ability::Put, Ability::Batch];

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let mut get = cmd("GET");
        get.arg(name(&self.names, id));
        let value: Option<Bytes> = get.query_async(&mut self.connection.clone()).await?;
        Ok(value.map(|value| value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let mut set = cmd("SET");
        set.arg(name(&self.names, id)).arg(&*value.json);
        Ok(set.query_async(&mut self.connection.clone()).await?)
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let mut set = cmd("MSET");
        for (key, value) in values.into_iter().enumerate() {
            set.arg(name(&self.names, EntryId { namespace, key })).arg(&*value.json);
        }
        Ok(set.query_async(&mut self.connection.clone()).await?)
    }
}
