//! Mapping of server errors, each provoked on a real server.

use std::error::Error as _;

use cubbyhole_core::{Condition, EntryStore, Error, ErrorKind, PutOptions, Result, Store};
use cubbyhole_postgres::{Config, PostgresStore, diagnose};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, bytes, ctx, ns, until};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::sql::one;
use crate::support::Schema;

/// No message may contain this value or this key.
const MARK: &str = "M4rked-value";
const KEY: &str = "m4rked-key";

/// Returns the kind of the error after checking that no text of the error contains a secret.
fn kind(error: &Error) -> ErrorKind {
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        shown += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    for secret in [PASSWORD, MARK, KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
    error.kind()
}

async fn put(store: &PostgresStore) -> Result<()> {
    store.put(&ctx(), &ns("a"), KEY, bytes(MARK)).await
}

async fn get(store: &PostgresStore) -> Result<Option<cubbyhole_core::Bytes>> {
    store.get(&ctx(), &ns("a"), KEY).await
}

/// An entry whose row another transaction has locked.
struct LockedEntry {
    schema: Schema,
    store: PostgresStore,
    holder: Client,
    admin: Client,
}

impl LockedEntry {
    async fn new() -> Self {
        let schema = Schema::new().await;
        let store = schema.open().await;
        store.put(&ctx(), &ns("a"), KEY, bytes("old")).await.unwrap();
        let (holder, admin) = (schema.admin().await, schema.admin().await);
        let hold = format!("BEGIN; SELECT FROM {}.entries FOR UPDATE", schema.name);
        holder.batch_execute(&hold).await.unwrap();
        Self { schema, store, holder, admin }
    }

    /// Calls a server function with the process id of the waiting session.
    async fn signal(&self, function: &str) {
        self.schema.until_waiting(&self.admin, 1).await;
        let sql = format!(
            "SELECT {function}(pid) FROM pg_stat_activity
             WHERE usename = '{}_login' AND wait_event_type = 'Lock'",
            self.schema.name
        );
        assert!(one::<bool>(&self.admin, &sql).await);
    }

    fn putting(&self) -> JoinHandle<Result<()>> {
        let store = self.store.clone();
        tokio::spawn(async move { put(&store).await })
    }

    /// Releases the row, and checks that the entry is unchanged and that the store works.
    async fn assert_unharmed(&self) {
        self.holder.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(get(&self.store).await.unwrap(), Some(bytes("old")));
        put(&self.store).await.unwrap();
        assert_eq!(get(&self.store).await.unwrap(), Some(bytes(MARK)));
    }
}

#[tokio::test]
async fn statement_cancelled_by_administrator_had_no_effect() {
    let held = LockedEntry::new().await;
    let putting = held.putting();
    held.signal("pg_cancel_backend").await;
    let error = putting.await.unwrap().unwrap_err();
    assert_eq!(kind(&error), ErrorKind::DeadlineExceeded, "{error:?}");
    assert!(!error.may_have_been_applied() && !error.is_retryable());
    held.assert_unharmed().await;
}

#[tokio::test]
async fn write_on_terminated_session_has_unknown_outcome() {
    let held = LockedEntry::new().await;
    let putting = held.putting();
    held.signal("pg_terminate_backend").await;
    let error = putting.await.unwrap().unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unavailable, "{error:?}");
    assert!(error.may_have_been_applied() && !error.is_retryable());
    held.assert_unharmed().await;
}

#[tokio::test]
async fn read_on_terminated_session_is_retryable() {
    let held = LockedEntry::new().await;
    let lock = format!("LOCK TABLE {}.entries", held.schema.name);
    held.holder.batch_execute(&lock).await.unwrap();
    let store = held.store.clone();
    let getting = tokio::spawn(async move { get(&store).await });
    held.signal("pg_terminate_backend").await;
    let error = getting.await.unwrap().unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable() && !error.may_have_been_applied());
    held.assert_unharmed().await;
}

#[tokio::test]
async fn lock_timeout_of_the_role_is_retryable() {
    let held = LockedEntry::new().await;
    let set = format!("ALTER ROLE {}_login SET lock_timeout = '20ms'", held.schema.name);
    held.schema.execute(&set).await;
    let limited = held.schema.open().await;
    let error = put(&limited).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable() && !error.may_have_been_applied());
    held.assert_unharmed().await;
}

#[tokio::test]
async fn statement_timeout_of_the_role_had_no_effect() {
    let held = LockedEntry::new().await;
    let set = format!("ALTER ROLE {}_login SET statement_timeout = '2s'", held.schema.name);
    held.schema.execute(&set).await;
    let limited = held.schema.open().await;
    let never_ends = cubbyhole_core::ExecutionContext::new();
    let error = limited.put(&never_ends, &ns("a"), KEY, bytes(MARK)).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::DeadlineExceeded, "{error:?}");
    assert!(!error.may_have_been_applied());
    held.assert_unharmed().await;
}

#[tokio::test]
async fn dropped_schema_is_permanently_unavailable() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    put(&store).await.unwrap();
    get(&store).await.unwrap();
    schema.execute(&format!("DROP SCHEMA {} CASCADE", schema.name)).await;
    let unprepared = store.list(&ctx(), &ns("a"), None).await.unwrap_err();
    for error in [put(&store).await.unwrap_err(), get(&store).await.unwrap_err(), unprepared] {
        assert_eq!(kind(&error), ErrorKind::Unavailable, "{error:?}");
        assert!(!error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
        assert!(error.message().contains("cubbyhole migrate"), "{error}");
    }
}

#[tokio::test]
async fn read_only_server_is_unavailable_for_writes_only() {
    let schema = Schema::new().await;
    put(&schema.open().await).await.unwrap();
    let name = &schema.name;
    let set = format!("ALTER ROLE {name}_login SET default_transaction_read_only = on");
    schema.execute(&set).await;
    let store = schema.open().await;
    assert_eq!(get(&store).await.unwrap(), Some(bytes(MARK)));
    let absent = Condition::IfAbsent;
    let (ctx, options) = (ctx(), PutOptions::new());
    let conditional =
        store.put_entry(&ctx, &ns("a"), "new", bytes(MARK), options, absent).await.map(drop);
    for error in [put(&store).await, conditional, store.delete(&ctx, &ns("a"), KEY).await] {
        let error = error.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Unavailable, "{error:?}");
        assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
        for cause in ["standby", "default_transaction_read_only"] {
            assert!(error.message().contains(cause), "{error}");
        }
    }
    let only_writable = format!("{}&target_session_attrs=read-write", schema.url(""));
    let only_writable = Config::from_url(&only_writable).unwrap();
    let error = PostgresStore::open(&ctx, only_writable).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unavailable, "{error:?}");
    for cause in ["standby", "default_transaction_read_only"] {
        assert!(error.message().contains(cause), "{error}");
    }
    // New connections use the new setting, so the store recovers without a restart.
    schema.execute(&format!("ALTER ROLE {name}_login RESET default_transaction_read_only")).await;
    put(&store).await.unwrap();
}

#[tokio::test]
async fn revoked_privileges_are_named() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    put(&store).await.unwrap();
    let name = &schema.name;
    schema.execute(&format!("REVOKE {name}_app FROM {name}_login")).await;
    for error in [put(&store).await.unwrap_err(), get(&store).await.unwrap_err()] {
        assert_eq!(kind(&error), ErrorKind::PermissionDenied, "{error:?}");
        assert!(!error.is_retryable() && !error.may_have_been_applied());
        assert!(error.message().contains(&format!("{name}_app")), "{error}");
    }
    schema.execute(&format!("GRANT {name}_app TO {name}_login")).await;
    assert_eq!(get(&store).await.unwrap(), Some(bytes(MARK)));
}

#[tokio::test]
async fn connection_limit_of_a_role_is_retryable() {
    let held = LockedEntry::new().await;
    let name = &held.schema.name;
    held.schema.execute(&format!("ALTER ROLE {name}_login CONNECTION LIMIT 1")).await;
    let putting = held.putting();
    held.schema.until_waiting(&held.admin, 1).await;
    let error = get(&held.store).await.unwrap_err();
    assert_out_of_slots(&error);
    held.holder.batch_execute("ROLLBACK").await.unwrap();
    putting.await.unwrap().unwrap();
    assert_eq!(get(&held.store).await.unwrap(), Some(bytes(MARK)));
}

fn assert_out_of_slots(error: &Error) {
    assert_eq!(kind(error), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
    assert!(error.message().contains("connection slot"), "{error}");
}

/// Connects as the administrator, after the server has released earlier connections.
async fn admin_connection(schema: &Schema) -> Client {
    let found = std::cell::Cell::new(None);
    until("a slot for a superuser", async || {
        let Ok((client, connection)) =
            tokio_postgres::connect(schema.admin_url(), tokio_postgres::NoTls).await
        else {
            return false;
        };
        tokio::spawn(async move { drop(connection.await) });
        found.set(Some(client));
        true
    })
    .await;
    found.take().unwrap()
}

/// When an application's role is rejected, the remaining slots are reserved for superusers. When
/// these are in use too, the server rejects superusers with a different message.
#[tokio::test(flavor = "multi_thread")]
async fn max_connections_reached_is_retryable() {
    let settings = [("max_connections", "5"), ("superuser_reserved_connections", "2")];
    let server = tokio::task::block_in_place(|| PostgresServer::start_with(&settings)).unwrap();
    // The schema has one administrator's connection open, so one slot is left for the application.
    let schema = Schema::on(server.url()).await;
    let (one, two) = (schema.admin().await, schema.admin().await);
    let error = PostgresStore::open(&ctx(), schema.config()).await.unwrap_err();
    assert_out_of_slots(&error);
    let diagnosis = diagnose(&ctx(), &schema.config()).await.unwrap();
    let [check] = &diagnosis.checks[..] else { panic!("{diagnosis:#?}") };
    assert!(check.advice.as_ref().unwrap().contains("max_connections"), "{check:?}");
    let (three, four) = (admin_connection(&schema).await, admin_connection(&schema).await);
    let as_superuser = schema.admin_config().with_unbound_role(true);
    assert_out_of_slots(&PostgresStore::open(&ctx(), as_superuser.clone()).await.unwrap_err());
    drop((one, two, three, four));
    until("a free slot", async || PostgresStore::open(&ctx(), schema.config()).await.is_ok()).await;
}

#[tokio::test]
async fn prepared_statements_survive_a_migration() {
    let (schema, ctx, own) = (Schema::new().await, ctx(), ns("a"));
    let store = schema.open().await;
    let name = &schema.name;
    store.put(&ctx, &own, "k", bytes("v")).await.unwrap();
    for change in [
        // Replaced in place, recreated, and recreated with another result type.
        "EXECUTE pg_get_functiondef('@.list'::regproc)".to_owned(),
        "DECLARE made text := pg_get_functiondef('@.list'::regproc); BEGIN
            DROP FUNCTION @.list; EXECUTE made; END"
            .to_owned(),
        "BEGIN DROP FUNCTION @.list;
            CREATE FUNCTION @.list(text, text, text, text) RETURNS SETOF varchar
                LANGUAGE sql AS $f$ SELECT 'k'::varchar $f$; END"
            .to_owned(),
    ] {
        // Prepare the statement on several connections.
        for _ in 0..2 {
            let lists = join_all((0..6).map(|_| store.list(&ctx, &own, None))).await;
            assert!(lists.into_iter().all(|keys| keys.unwrap() == ["k"]));
        }
        let change = change.replace('@', name);
        let body =
            if change.starts_with("EXECUTE") { format!("BEGIN {change}; END") } else { change };
        schema.execute(&format!("DO $do$ {body} $do$")).await;
        let lists = join_all((0..6).map(|_| store.list(&ctx, &own, None))).await;
        for keys in lists {
            assert_eq!(keys.unwrap(), ["k"], "{body}");
        }
    }
}

#[tokio::test]
async fn server_error_detail_is_not_shown() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    let name = &schema.name;
    let trigger = format!(
        "CREATE FUNCTION {name}.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'not today' USING
                DETAIL = convert_from(NEW.value, 'UTF8') || NEW.key,
                HINT = convert_from(NEW.value, 'UTF8') || NEW.key;
         END $$;
         CREATE TRIGGER tell BEFORE INSERT ON {name}.entries
            FOR EACH ROW EXECUTE FUNCTION {name}.tell()"
    );
    schema.execute(&trigger).await;
    let error = put(&store).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Internal, "{error:?}");
    // The primary message is shown, because it names the cause.
    assert!(format!("{error:?}").contains("not today"), "{error:?}");
    let constraint = format!(
        "DROP TRIGGER tell ON {name}.entries;
         ALTER TABLE {name}.entries ADD CONSTRAINT never CHECK (octet_length(value) = 0)"
    );
    schema.execute(&constraint).await;
    assert_eq!(kind(&put(&store).await.unwrap_err()), ErrorKind::Internal);
}
