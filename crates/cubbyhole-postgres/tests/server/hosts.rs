//! URLs with several hosts: which hosts are tried and which error is reported.

use cubbyhole_core::{ErrorKind, Result};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::helpers::ctx;

use crate::proxy::{Proxy, address_of, with_address};
use crate::support::Schema;

/// No process listens on this port.
const DOWN: &str = "127.0.0.1:1";

async fn open(url: &str) -> Result<PostgresStore> {
    PostgresStore::open(&ctx(), Config::from_url(url)?).await
}

#[tokio::test]
async fn host_that_is_down_is_skipped_and_rejection_ends_search() {
    let schema = Schema::new().await;
    let url = schema.url("");
    let second = Proxy::before(schema.admin_url()).await;
    let behind = address_of(&second.url(&url));
    open(&with_address(&url, &format!("{DOWN},{behind}"))).await.unwrap();
    let connections = second.by_connection().len();
    assert!(connections > 0);

    let both = with_address(&url, &format!("{},{behind}", address_of(&url)));
    let unknown_user = both.replace(&format!("{}_login", schema.name), "nobody_here");
    assert_ne!(unknown_user, both);
    let error = open(&unknown_user).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert_eq!(second.by_connection().len(), connections);
}

#[tokio::test]
async fn unreachable_host_is_reported_before_mismatching_host() {
    let schema = Schema::new().await;
    let name = &schema.name;
    let read_only = format!("ALTER ROLE {name}_login SET default_transaction_read_only = on");
    schema.execute(&read_only).await;
    let url = schema.url("&target_session_attrs=read-write");
    let server = address_of(&url);
    for hosts in [format!("{DOWN},{server}"), format!("{server},{DOWN}")] {
        let error = open(&with_address(&url, &hosts)).await.unwrap_err();
        assert!(error.message().contains(DOWN) && error.is_retryable(), "{error:?}");
    }
    let error = open(&url).await.unwrap_err();
    assert!(error.message().contains("no host accepts writes"), "{error:?}");
}
