//! The database isolates tenants against any SQL that the application's role sends.

mod search_path;

use cubbyhole_core::{Bytes, EntryStore, NamespacePrefix, RecursiveScanOptions, Store};
use cubbyhole_testkit::helpers::{bytes, ctx, ns};
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use crate::sql::{one, rejection, rows};
use crate::support::Schema;

/// Tenants `a` with one entry and `b` with two, and connections for SQL statements.
struct Tenants {
    schema: Schema,
    /// A connection of the application without a tenant.
    login: Client,
    admin: Client,
}

impl Tenants {
    async fn new() -> Self {
        let schema = Schema::new().await;
        let store = schema.open().await;
        let ctx = ctx();
        store.put(&ctx, &ns("a:x"), "k", bytes("of a")).await.unwrap();
        store.put(&ctx, &ns("b:x"), "k", bytes("of b")).await.unwrap();
        store.put(&ctx, &ns("b"), "j", bytes("of b too")).await.unwrap();
        let (login, admin) = (schema.login().await, schema.admin().await);
        Self { schema, login, admin }
    }

    /// Sets the tenant `a` for the session.
    async fn as_a() -> Self {
        let tenants = Self::new().await;
        tenants.login.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
        tenants
    }

    /// Replaces `@` with the name of the schema.
    fn sql(&self, sql: &str) -> String {
        sql.replace('@', &self.schema.name)
    }

    async fn rows(&self, sql: &str) -> u64 {
        rows(&self.login, &self.sql(sql)).await
    }

    async fn one<T: tokio_postgres::types::FromSqlOwned>(&self, sql: &str) -> T {
        one(&self.login, &self.sql(sql)).await
    }

    /// Runs a statement that the server must reject. Returns the SQLSTATE and the message.
    async fn rejection(&self, sql: &str) -> (String, String) {
        rejection(&self.login, &self.sql(sql)).await
    }

    /// Checks that row security or the constraint of the table rejects the statement.
    async fn assert_rejected(&self, sql: &str) {
        let (code, message) = self.rejection(sql).await;
        assert!(["42501", "23514"].contains(&code.as_str()), "{sql}: {code} {message}");
    }

    async fn all(&self) -> String {
        self.schema.digest(&self.admin, None).await
    }

    async fn of_b(&self) -> String {
        self.schema.digest(&self.admin, Some("b")).await
    }
}

/// An `INSERT` statement for a row.
fn insert(tenant: &str, name: &str, key: &str) -> String {
    format!(
        "INSERT INTO @.entries (namespace, key, tenant, version, created_at, updated_at, value)
         VALUES ($n${name}$n$, '{key}', $n${tenant}$n$, gen_random_uuid(), 0, 0, 'by hand')"
    )
}

#[tokio::test]
async fn session_without_tenant_sees_and_writes_nothing() {
    let t = Tenants::new().await;
    let before = t.all().await;
    for tenant in ["RESET cubbyhole.tenant", "SET cubbyhole.tenant = ''"] {
        t.login.batch_execute(tenant).await.unwrap();
        assert_eq!(t.rows("SELECT FROM @.entries").await, 0, "{tenant}");
        assert_eq!(t.rows("SELECT FROM @.documents").await, 0, "{tenant}");
        assert_eq!(t.rows("SELECT FROM @.entries FOR UPDATE").await, 0, "{tenant}");
        assert_eq!(t.rows("UPDATE @.entries SET value = ''").await, 0, "{tenant}");
        assert_eq!(t.rows("DELETE FROM @.entries").await, 0, "{tenant}");
        for owner in ["a", "b", "c"] {
            let (code, _) = t.rejection(&insert(owner, &format!("{owner}:x"), "k")).await;
            assert_eq!(code, "42501", "{tenant} {owner}");
        }
        // An empty tenant is invalid.
        t.assert_rejected(&insert("", ":x", "k")).await;
    }
    assert_eq!(t.all().await, before);
}

#[tokio::test]
async fn rows_of_other_tenants_cannot_be_read_or_locked() {
    let t = Tenants::as_a().await;
    assert_eq!(t.one::<i64>("SELECT count(*) FROM @.entries").await, 1);
    assert_eq!(t.one::<i64>("SELECT count(*) FROM @.documents").await, 1);
    assert_eq!(t.one::<Vec<u8>>("SELECT value FROM @.entries").await, b"of a");
    for condition in ["namespace = 'b:x' AND key = 'k'", "tenant = 'b'", "tenant <> 'a'"] {
        for locking in ["", "FOR UPDATE", "FOR SHARE", "FOR KEY SHARE SKIP LOCKED"] {
            let sql = format!("SELECT FROM @.entries WHERE {condition} {locking}");
            assert_eq!(t.rows(&sql).await, 0, "{sql}");
        }
    }
    // Alternatives to a plain SELECT do not show them either.
    let copy = t.sql("COPY @.entries TO STDOUT");
    let copied: Vec<Bytes> = t.login.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
    assert_eq!(copied.len(), 1, "COPY shows another tenant's rows");
    let (code, _) = t.rejection("SET row_security = off; SELECT FROM @.entries").await;
    assert_eq!(code, "42501");
    // Conditions of the caller are not evaluated for hidden rows.
    let prying = "CREATE FUNCTION pg_temp.pry(tenant text, value bytea) RETURNS boolean
        LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN
            IF tenant <> 'a' THEN RAISE EXCEPTION 'seen: %', value; END IF;
            RETURN true;
        END $$";
    t.login.batch_execute(prying).await.unwrap();
    for sql in [
        "SELECT FROM @.entries WHERE pg_temp.pry(tenant, value)",
        "SELECT FROM @.documents WHERE pg_temp.pry(split_part(namespace, ':', 1), namespace::bytea)",
        "SELECT FROM @.entries WHERE 1 / (CASE tenant WHEN 'a' THEN 1 ELSE 0 END) = 1",
        "UPDATE @.entries SET value = value WHERE pg_temp.pry(tenant, value)",
    ] {
        assert_eq!(t.rows(sql).await, 1, "{sql}");
    }
}

#[tokio::test]
async fn column_statistics_are_hidden() {
    let t = Tenants::as_a().await;
    t.schema.execute(&t.sql("ANALYZE @.entries")).await;
    let select = t.sql("SELECT count(*) FROM pg_stats WHERE schemaname = '@'");
    // The administrator sees statistics.
    assert!(one::<i64>(&t.admin, &select).await > 0);
    assert_eq!(one::<i64>(&t.login, &select).await, 0);
    let (code, _) = t.rejection("SELECT stavalues1 FROM pg_catalog.pg_statistic").await;
    assert_eq!(code, "42501");
}

#[tokio::test]
async fn rows_of_other_tenants_cannot_be_written_or_moved() {
    let t = Tenants::as_a().await;
    let before = t.of_b().await;
    assert_eq!(t.rows("UPDATE @.entries SET value = 'mine'").await, 1);
    for sql in [
        "UPDATE @.entries SET value = 'mine' WHERE tenant = 'b'",
        "UPDATE @.entries SET value = 'mine' WHERE namespace = 'b:x'",
        "UPDATE @.entries SET tenant = 'a', namespace = 'a:stolen' WHERE namespace = 'b:x'",
        "DELETE FROM @.entries WHERE namespace = 'b:x' AND key = 'k'",
        "DELETE FROM @.entries WHERE tenant = 'b'",
    ] {
        assert_eq!(t.rows(sql).await, 0, "{sql}");
    }
    // A tenant cannot move its own rows to another tenant either.
    for set in [
        "tenant = 'b'",
        "tenant = 'b', namespace = 'b:x'",
        "tenant = 'b', namespace = 'b:new'",
        "namespace = 'b:x'",
        "namespace = 'b:new'",
        "tenant = ''",
    ] {
        t.assert_rejected(&format!("UPDATE @.entries SET {set}")).await;
    }
    for conflict in ["DO NOTHING", "(namespace, key) DO UPDATE SET value = 'mine'"] {
        for tenant in ["a", "b"] {
            t.assert_rejected(&format!("{} ON CONFLICT {conflict}", insert(tenant, "b:x", "k")))
                .await;
        }
    }
    assert_eq!(t.rows("DELETE FROM @.entries").await, 1);
    assert_eq!(t.of_b().await, before);
}

#[tokio::test]
async fn tenant_cannot_write_namespaces_of_other_tenants() {
    let t = Tenants::as_a().await;
    let before = t.all().await;
    // The current tenant, and a namespace that the store would never write for it.
    for (tenant, name) in [
        ("a", "b"),
        ("a", "b:x"),
        ("a", "b:new"),
        ("a", "ab"),
        ("a", "A"),
        ("a", "A:x"),
        ("a", "a "),
        ("a", "a\n:x"),
        ("a", ""),
        ("a", ":a"),
        ("a", r"a\:b"),
        ("a", r"a\:b:x"),
        ("a", r"a\"),
        ("a", r"a:x\"),
        ("a", r"a:\x"),
        ("a", r"\a:x"),
        ("a", "a\\\n:x"),
        ("a\n", "a:x"),
        ("a:b", "a:b"),
        ("a:b", "a:b:c"),
        (r"a\", r"a\:b"),
        (r"a\", r"a\"),
        (r"a\:b", "a:b"),
        (r"a\:", r"a\:b:x"),
        (r"a\\", r"a\\\:b"),
        ("", ""),
        ("", ":x"),
        (":", ":"),
        (":b", ":b:x"),
        ("a%", "a:x"),
        ("_", "b:x"),
        ("%", "b:x"),
        ("[^:]", "b:x"),
        (".", "b:x"),
    ] {
        t.login
            .execute("SELECT set_config('cubbyhole.tenant', $1, false)", &[&tenant])
            .await
            .unwrap();
        t.assert_rejected(&insert(tenant, name, "squatter")).await;
        // The row cannot claim another tenant either.
        if tenant == "a" {
            t.assert_rejected(&insert("b", name, "squatter")).await;
        }
    }
    assert_eq!(t.all().await, before);
    // Well-formed rows are accepted.
    for (tenant, name) in [
        ("a", "a"),
        ("a", "a:"),
        ("a", r"a:b\:c:\\"),
        (r"a\:b", r"a\:b:c"),
        (r"a\\", r"a\\:b"),
        ("a\nb", "a\nb:\n"),
        ("a\nb\\:", "a\nb\\::\n"),
    ] {
        t.login
            .execute("SELECT set_config('cubbyhole.tenant', $1, false)", &[&tenant])
            .await
            .unwrap();
        assert_eq!(t.rows(&insert(tenant, name, "mine")).await, 1, "{tenant:?} {name:?}");
    }
}

#[tokio::test]
async fn errors_do_not_reveal_rows_of_other_tenants() {
    let t = Tenants::as_a().await;
    let put = "SELECT @.put('a', '?', 'k', '', gen_random_uuid(), NULL, NULL)";
    let put_if = "SELECT @.put_if('a', '?', 'k', '', gen_random_uuid(), NULL, NULL, NULL)";
    let batch = "SELECT @.write_batch('a', '?', '{k}', '{0}', '{1}', '{null}',
        ARRAY[gen_random_uuid()], '{null}', '{null}', ARRAY[''::bytea])";
    for sql in [
        insert("a", "?", "k"),
        insert("b", "?", "k"),
        format!("{} ON CONFLICT DO NOTHING", insert("a", "?", "k")),
        "UPDATE @.entries SET namespace = '?'".to_owned(),
        put.to_owned(),
        put_if.to_owned(),
        batch.to_owned(),
    ] {
        let there = t.rejection(&sql.replace('?', "b:x")).await;
        let not_there = t.rejection(&sql.replace('?', "b:y")).await;
        assert_eq!(there, not_there, "{sql}");
        assert!(!there.1.contains("by hand"), "{there:?}");
    }
}

#[tokio::test]
async fn owner_only_statements_are_denied() {
    let t = Tenants::as_a().await;
    let before = t.all().await;
    for sql in [
        "TRUNCATE @.entries",
        "DROP TABLE @.entries",
        "DROP SCHEMA @ CASCADE",
        "DROP POLICY tenant ON @.entries",
        "ALTER POLICY tenant ON @.entries USING (true)",
        "CREATE POLICY mine ON @.entries USING (true)",
        "ALTER TABLE @.entries DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE @.entries NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE @.entries DROP CONSTRAINT tenant_owns_namespace",
        "ALTER TABLE @.entries OWNER TO CURRENT_USER",
        "CREATE INDEX ON @.entries (tenant)",
        "CREATE TABLE @.mine ()",
        "CREATE VIEW @.mine AS SELECT 1",
        "CREATE FUNCTION @.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION @.clock() RETURNS bigint LANGUAGE sql AS 'SELECT 9'",
        "ALTER FUNCTION @.evict(integer) OWNER TO CURRENT_USER",
        "ALTER FUNCTION @.evict(integer) RESET search_path",
        "CREATE FUNCTION pg_temp.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER t BEFORE DELETE ON @.entries EXECUTE FUNCTION pg_temp.t()",
        "CREATE RULE r AS ON DELETE TO @.entries DO INSTEAD NOTHING",
        "INSERT INTO @.migrations VALUES (99, 'mine')",
        "DELETE FROM @.migrations",
        "SET ROLE @_sweeper",
        "SET ROLE @_enumerator",
        "SET ROLE @_operator",
        "SET ROLE @_auditor",
        "SET SESSION AUTHORIZATION @_enumerator",
        "SET session_replication_role = replica",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "GRANT @_operator TO CURRENT_USER",
        "GRANT @_enumerator TO CURRENT_USER",
        "DROP OWNED BY @_sweeper",
        "COPY @.entries TO PROGRAM 'cat'",
        "SELECT @.tenants(NULL, 10)",
        "SELECT stavalues1 FROM pg_catalog.pg_statistic",
    ] {
        let (code, message) = t.rejection(sql).await;
        assert_eq!(code, "42501", "{sql}: {message}");
    }
    // PostgreSQL does not support COPY FROM with row security.
    assert_eq!(t.rejection("COPY @.entries FROM STDIN").await.0, "0A000");
    assert_eq!(t.all().await, before);
}

/// Calls with the tenant `a` and a namespace of `b` that must return no row. `?` is the version of the
/// entry.
const REVEAL_NOTHING: &[&str] = &[
    "SELECT 1 WHERE @.get('a', 'b:x', 'k') IS NOT NULL",
    "SELECT * FROM @.get_entry('a', 'b:x', 'k', NULL)",
    "SELECT * FROM @.get_entry('a', 'b:x', 'k', 5)",
    "SELECT * FROM @.get_many('a', 'b:x', '{k}')",
    "SELECT * FROM @.list('a', 'b:x', '', NULL)",
    "SELECT * FROM @.scan('a', 'b:x', '', NULL, 10, 1000000, true)",
    "SELECT * FROM @.namespaces('a', 'b', NULL, NULL)",
    "SELECT * FROM @.usage('a', 'b') WHERE (namespaces, entries, bytes, expired) <> (0, 0, 0, 0)",
    "SELECT * FROM @.erase('a', 'b', 100) WHERE removed <> 0 OR NOT done",
    "SELECT 1 WHERE @.delete('a', 'b:x', 'k')",
    "SELECT * FROM @.take('a', 'b:x', 'k')",
    "SELECT 1 WHERE @.touch('a', 'b:x', 'k', NULL, 1)",
    "SELECT * FROM @.put_if('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL, '?')
        WHERE written OR current IS NOT NULL",
    "SELECT * FROM @.delete_if('a', 'b:x', 'k', '?') WHERE held OR current IS NOT NULL",
    "SELECT * FROM @.delete_if('a', 'b:x', 'k', NULL) WHERE NOT held OR current IS NOT NULL",
    "SELECT 1 WHERE @.lock_entry('b:x', 'k') IS NOT NULL",
    "SELECT * FROM @.get_entry('a', 'b:x', 'k', NULL, false)",
    "SELECT * FROM @.get_entry('a', 'b:x', 'k', 5, true)",
    "SELECT * FROM @.get_many('a', 'b:x', '{k}', NULL, false)",
    "SELECT * FROM @.get_many('a', 'b:x', '{k}', 5, true)",
    "SELECT * FROM @.stat('a', 'b:x', '{k}')",
    "SELECT * FROM @.scan('a', 'b:x', '', NULL, 10, 1000000, true, false)",
    "SELECT * FROM @.scan('a', 'b:x', '', NULL, 10, 1000000, false, true)",
    "SELECT * FROM @.scan_refreshing('a', 'b:x', '', NULL, 10, 1000000, true, true)",
    "SELECT * FROM @.scan_recursive('a', 'b', NULL, NULL, 10, 1000000, true)",
    "SELECT * FROM @.scan_recursive('a', 'b:x', NULL, NULL, 10, 1000000, false)",
    "SELECT * FROM @.scan_recursive('a', 'b', 'a:x', 'k', 10, 1000000, true)",
    "SELECT * FROM @.scan_recursive('a', 'a', NULL, NULL, 10, 1000000, true)
        WHERE namespace <> 'a:x'",
    "SELECT * FROM @.delete_prefix('a', 'b:x', '', NULL, 10) WHERE removed <> 0 OR NOT done",
    "SELECT * FROM @.take_entry('a', 'b:x', 'k')",
    "SELECT * FROM @.touch('a', 'b:x', 'k', NULL, 1, NULL, 0, NULL) WHERE touched",
    "SELECT * FROM @.touch('a', 'b:x', 'k', NULL, 1, NULL, 3, NULL)
        WHERE touched OR held OR current IS NOT NULL",
    "SELECT * FROM @.put_if('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL, NULL, 2, '?')
        WHERE written OR current IS NOT NULL",
    "SELECT * FROM @.put_if('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL, NULL, 3, NULL)
        WHERE written OR current IS NOT NULL",
    "SELECT * FROM @.delete_if('a', 'b:x', 'k', 2, '?') WHERE held OR current IS NOT NULL",
    "SELECT * FROM @.delete_if('a', 'b:x', 'k', 3, NULL) WHERE held OR current IS NOT NULL",
];

/// Calls with the tenant `a` and a namespace of `b` that row security must reject.
const REJECTED: &[&str] = &[
    "SELECT @.put('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL)",
    "SELECT @.put_if('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL, NULL)",
    "SELECT @.write_batch('a', 'b:x', '{k}', '{0}', '{0}', '{null}',
        ARRAY[gen_random_uuid()], '{null}', '{null}', ARRAY[''::bytea])",
    "SELECT @.write_batch('a', 'b:x', '{k}', '{0}', '{0}', '{null}', '{null}',
        '{null}', '{null}', '{null}')",
    "SELECT @.write_batch('a', 'b:x', '{k}', '{0}', '{2}', '{?}', '{null}',
        '{null}', '{null}', '{null}')",
    "SELECT @.put('a', 'b:new', 'k', '', gen_random_uuid(), NULL, NULL)",
    "SELECT @.put('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL, NULL)",
    "SELECT @.put_if('a', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL, NULL, 1, NULL)",
    "SELECT @.write_batch('a', 'b:x', '{k}', '{0}', '{0}', '{null}',
        ARRAY[gen_random_uuid()], '{null}', '{null}', '{null}', ARRAY[''::bytea])",
    "SELECT @.write_batch('a', 'b:x', '{k}', '{0}', '{3}', '{null}', '{null}',
        '{null}', '{null}', '{null}', '{null}')",
];

#[tokio::test]
async fn functions_reveal_nothing_of_other_tenants() {
    let t = Tenants::as_a().await;
    let before = t.all().await;
    let version: String =
        one(&t.admin, &t.sql("SELECT version::text FROM @.entries WHERE namespace = 'b:x'")).await;
    for nothing in REVEAL_NOTHING {
        let sql = nothing.replace('?', &version);
        assert_eq!(t.rows(&sql).await, 0, "{sql}");
        assert_eq!(t.all().await, before, "{sql}");
    }
    for rejected in REJECTED {
        t.assert_rejected(&rejected.replace('?', &version)).await;
    }
    assert_eq!(t.all().await, before);
}

#[tokio::test]
async fn recursive_scan_returns_only_its_tenant() {
    let (schema, ctx) = (Schema::new().await, ctx());
    let store = schema.open().await;
    // Tenants whose names sort before, between and after the names of the tenant `a`.
    let tenants = ["A", "a", "a!", "a-b", "a/", "a;", r"a\\", r"a\:b", "aa", "b"];
    for tenant in tenants {
        for name in [tenant.to_owned(), format!("{tenant}:!"), format!("{tenant}:x")] {
            for key in ["j", "k"] {
                store.put(&ctx, &ns(&name), key, bytes("v")).await.unwrap();
            }
        }
    }
    for tenant in tenants {
        let prefix = NamespacePrefix::parse(tenant).unwrap();
        let mut options = RecursiveScanOptions::new().with_limit(2);
        let mut found = Vec::new();
        loop {
            let page = store.scan_recursive(&ctx, &prefix, options.clone()).await.unwrap();
            found.extend(page.items.iter().map(|(ns, item)| format!("{ns} {}", item.key)));
            let Some(next) = page.next else { break };
            options = options.with_after(next);
        }
        let expected = ["", ":!", ":x"].map(|rest| format!("{tenant}{rest}"));
        let expected = expected.iter().flat_map(|name| [format!("{name} j"), format!("{name} k")]);
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn sweep_reveals_only_a_count() {
    let t = Tenants::as_a().await;
    for (name, key) in [("b:x", "gone"), ("b:x", "gone too"), ("c", "gone")] {
        t.schema.execute(&t.schema.row(name, key, Some(1))).await;
    }
    let live = "SELECT md5(string_agg(e::text, '|' ORDER BY namespace, key)) FROM @.entries e
        WHERE expires_at IS NULL";
    let before: String = one(&t.admin, &t.sql(live)).await;
    assert_eq!(t.rows("SELECT FROM @.entries WHERE expires_at IS NOT NULL").await, 0);
    assert_eq!(t.rows("DELETE FROM @.entries WHERE expires_at IS NOT NULL").await, 0);
    // The sweep does not show more rows to the rest of its transaction.
    t.login.batch_execute("BEGIN").await.unwrap();
    assert_eq!(t.one::<i64>("SELECT @.evict(2)").await, 2);
    assert_eq!(t.one::<i64>("SELECT count(*) FROM @.entries").await, 1);
    t.login.batch_execute("COMMIT").await.unwrap();
    assert_eq!(t.one::<i64>("SELECT @.evict(2147483647)").await, 1);
    assert_eq!(t.one::<i64>("SELECT @.evict(NULL)").await, 0);
    assert_eq!(one::<String>(&t.admin, &t.sql(live)).await, before);
}

#[tokio::test]
async fn listing_tenants_requires_the_operator_grant() {
    let t = Tenants::as_a().await;
    assert_eq!(t.rejection("SELECT @.tenants(NULL, 10)").await.0, "42501");
    t.schema.grant_operator().await;
    let found: Vec<String> = t.one("SELECT array_agg(n) FROM @.tenants(NULL, 10) n").await;
    assert_eq!(found, ["a", "b"]);
    // The list contains names only; rows stay hidden.
    assert_eq!(t.rows("SELECT FROM @.entries WHERE tenant = 'b'").await, 0);
    assert_eq!(t.rejection("SET ROLE @_enumerator").await.0, "42501");
}

#[tokio::test]
async fn tenant_setting_ends_with_the_transaction() {
    let t = Tenants::new().await;
    let unset = "SELECT coalesce(current_setting('cubbyhole.tenant', true), '')";
    for call in [
        "SELECT 1 WHERE @.get('b', 'b:x', 'k') IS NOT NULL",
        "SELECT @.put('b', 'b:x', 'k', '', gen_random_uuid(), NULL, NULL)",
        "SELECT * FROM @.list('b', 'b:x', '', NULL)",
        "SELECT * FROM @.write_batch('b', 'b:x', '{k}', '{0}', '{1}', '{null}', '{null}',
            '{null}', '{null}', '{null}')",
    ] {
        assert_eq!(t.rows(call).await, 1, "{call}");
        assert_eq!(t.one::<String>(unset).await, "", "{call}");
        assert_eq!(t.rows("SELECT FROM @.entries").await, 0, "{call}");
    }
    // After a failed call, and with a tenant set for the session.
    t.rejection("SELECT @.put('b', 'a:x', 'k', '', gen_random_uuid(), NULL, NULL)").await;
    assert_eq!(t.one::<String>(unset).await, "");
    t.login.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    assert_eq!(t.rows("SELECT 1 WHERE @.get('b', 'b:x', 'k') IS NOT NULL").await, 1);
    assert_eq!(t.one::<String>("SELECT tenant FROM @.entries").await, "a");
}

#[tokio::test]
async fn row_security_applies_to_the_table_owner() {
    let t = Tenants::new().await;
    t.schema.execute(&t.sql("ALTER TABLE @.entries OWNER TO @_login")).await;
    assert_eq!(t.rows("SELECT FROM @.entries").await, 0);
    assert_eq!(t.rows("DELETE FROM @.entries").await, 0);
    t.login.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    assert_eq!(t.rows("SELECT FROM @.entries").await, 1);
}
