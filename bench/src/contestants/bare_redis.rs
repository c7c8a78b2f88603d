//! The commands `GET` and `SET` by themselves, over one shared connection: the limit on Redis.
//! What they name is as long as what the store names.

use std::sync::Arc;

use cubbyhole::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, cmd, pipe};

use super::each_namespace;
use crate::Result;
use crate::contestant::Contestant;
use crate::data::{Names, Place, Value, Values};
use crate::workload::{Ability, BATCH};

const IN_FLIGHT: usize = 16;

pub struct BareRedis {
    connection: MultiplexedConnection,
    names: Arc<Names>,
}

impl BareRedis {
    /// As the store connects: at once written, and no timer for each answer.
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
                let name = name(&names, Place { namespace, key });
                sets.cmd("SET").arg(name).arg(&*values.nth(namespace + key).json).ignore();
            }
            let mut connection = connection.clone();
            async move { Ok(sets.query_async::<()>(&mut connection).await?) }
        })
        .await
    }
}

fn name(names: &Names, place: Place) -> String {
    let (ns, key) = names.rendered(place);
    ["bare-bare:{", ns, "}v", key].concat()
}

impl Contestant for BareRedis {
    const ABILITIES: &'static [Ability] = &[Ability::Get, Ability::Put, Ability::Batch];

    async fn get(&self, place: Place) -> Result<Option<usize>> {
        let mut get = cmd("GET");
        get.arg(name(&self.names, place));
        let value: Option<Bytes> = get.query_async(&mut self.connection.clone()).await?;
        Ok(value.map(|value| value.len()))
    }

    async fn put(&self, place: Place, value: &Value) -> Result<()> {
        let mut set = cmd("SET");
        set.arg(name(&self.names, place)).arg(&*value.json);
        Ok(set.query_async(&mut self.connection.clone()).await?)
    }

    async fn batch(&self, namespace: usize, values: [&Value; BATCH]) -> Result<()> {
        let mut set = cmd("MSET");
        for (key, value) in values.into_iter().enumerate() {
            set.arg(name(&self.names, Place { namespace, key })).arg(&*value.json);
        }
        Ok(set.query_async(&mut self.connection.clone()).await?)
    }
}
