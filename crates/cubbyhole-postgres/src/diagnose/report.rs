//! Helpers that all checks share.

use cubbyhole_core::{Diagnosis, Error, Result, Verdict};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::connection::Connection;
use crate::error::{self, Effect};

/// Runs a query. `schema` is its only parameter, if set.
pub(super) async fn query(
    connection: &Connection,
    select: &str,
    schema: Option<&str>,
) -> Result<Vec<Row>> {
    let failed = |error| error::from_call(error, Effect::Read, schema.unwrap_or("<schema>"));
    match schema {
        None => connection.client.query_typed(select, &[]).await.map_err(failed),
        Some(schema) => {
            let params: &[(&(dyn ToSql + Sync), Type)] = &[(&schema, Type::TEXT)];
            connection.client.query_typed(select, params).await.map_err(failed)
        }
    }
}

/// Reports an error as a problem.
pub(super) fn problem(diagnosis: &mut Diagnosis, name: &str, error: &Error, advice: &str) {
    diagnosis.found(Verdict::Problem, name, error.message().to_owned(), advice);
}
