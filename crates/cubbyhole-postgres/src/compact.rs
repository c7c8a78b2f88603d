//! Runs `VACUUM` on the table of entries.

use cubbyhole_core::{Compaction, Error, Result};
use tokio_postgres::Client;

use crate::call::{CallFailure, StopFlag};
use crate::pool::Lease;
use crate::rows;

/// Vacuums the table if the role owns it.
pub(crate) async fn compact(
    mut lease: Lease,
    schema: String,
    stopped: StopFlag,
) -> (Lease, Result<Compaction, CallFailure>) {
    let client = &lease.connection.client;
    // The timeout of an earlier call must not apply here. The next call sets its own.
    if let Err(error) = client.batch_execute("RESET statement_timeout").await {
        return (lease, Err(CallFailure::Server(error)));
    }
    let compacted = vacuum(client, &schema, &stopped).await;
    lease.connection.statement_timeout = None;
    (lease, compacted)
}

async fn vacuum(
    client: &Client,
    schema: &str,
    stopped: &StopFlag,
) -> Result<Compaction, CallFailure> {
    let table = format!("\"{schema}\".\"entries\"");
    let size_and_ownership = || async {
        let select = format!(
            "SELECT pg_total_relation_size('{table}'::regclass), \
             pg_has_role((SELECT relowner FROM pg_class WHERE oid = '{table}'::regclass), 'USAGE')"
        );
        let rows = client.query_typed(&select, &[]).await.map_err(CallFailure::Server)?;
        let row = rows::first(&rows).map_err(CallFailure::Rejected)?;
        let bytes: i64 = row.try_get(0).map_err(CallFailure::Server)?;
        let is_owner: bool = row.try_get(1).map_err(CallFailure::Server)?;
        Ok((u64::try_from(bytes).ok(), is_owner))
    };
    let (bytes_before, is_owner) = size_and_ownership().await?;
    if !is_owner {
        return Err(CallFailure::Rejected(Error::permission_denied(format!(
            "only the owner of the table may vacuum it; autovacuum does so automatically. To vacuum \
             it now, run `VACUUM {schema}.entries` as the owner"
        ))));
    }
    if stopped.is_set() {
        return Err(CallFailure::Rejected(Error::cancelled()));
    }
    client.batch_execute(&format!("VACUUM {table}")).await.map_err(CallFailure::Server)?;
    let (bytes_after, _) = size_and_ownership().await?;
    Ok(Compaction { bytes_before, bytes_after })
}
