//! The schema of version 2, and processes of that version that run while the schema is migrated.

use std::time::Duration;

use cubbyhole_core::{
    Condition, EntryMeta, EntryStore, ExecutionContext, Expiry, GetOptions, NamespacePrefix,
    PutOptions, RecursiveScanOptions, ScanOptions, Store,
};
use cubbyhole_postgres::{PostgresStore, migrate};
use cubbyhole_testkit::helpers::{PASSWORD, bytes, ctx, ns};
use tokio_postgres::Client;

use crate::sql::{one, rejection, rows};
use crate::support::{Schema, admin_url};

#[path = "../../src/schema.rs"]
#[expect(dead_code, reason = "the tests apply only the migrations")]
mod schema;

const HOUR: Duration = Duration::from_secs(3600);

impl Schema {
    /// Creates a schema with the first `version` migrations.
    pub(crate) async fn at_version(version: usize) -> Self {
        let created = Self::not_created(admin_url());
        let name = &created.name;
        let mut sql = format!("SET client_min_messages = warning; {}", schema::preparation(name));
        for (index, migration) in schema::MIGRATIONS.iter().take(version).enumerate() {
            sql += &migration.sql(name);
            let (number, title) = (index + 1, migration.name);
            sql += &format!(
                "INSERT INTO {name}.migrations (version, name) VALUES ({number}, '{title}');"
            );
        }
        sql += &format!("CREATE ROLE {name}_login LOGIN PASSWORD '{PASSWORD}' IN ROLE {name}_app;");
        created.execute(&sql).await;
        created
    }

    async fn upgrade(&self) {
        let done = migrate(&ctx(), &self.admin_config()).await.unwrap();
        assert!(done.iter().any(|line| line.contains("migration 3")), "{done:?}");
    }
}

/// The functions that version 2 calls, with arguments of the types that it sends. Most find an entry.
const CALLS: [&str; 22] = [
    "SELECT @.get($1::text, 'a:x', 'k')",
    "SELECT * FROM @.get_entry($1::text, 'a:x', 'k', NULL::int8)",
    "SELECT * FROM @.get_entry($1::text, 'a:x', 'ttl', 7200000::int8)",
    "SELECT * FROM @.get_many($1::text, 'a:x', '{k,ttl,none}'::text[])",
    "SELECT @.put($1::text, 'a:x', 'put', 'v'::bytea, gen_random_uuid(), 3600000::int8, NULL::int8)",
    "SELECT * FROM @.put_if($1::text, 'a:x', 'put_if', 'v'::bytea, gen_random_uuid(), NULL::int8,
        4102444800000::int8, NULL::uuid)",
    "SELECT * FROM @.put_if($1::text, 'a:x', 'k', 'v'::bytea, gen_random_uuid(), NULL::int8,
        NULL::int8, '00000000-0000-7000-8000-000000000001'::uuid)",
    "SELECT @.delete($1::text, 'a:x', 'delete')",
    "SELECT * FROM @.delete_if($1::text, 'a:x', 'k', gen_random_uuid())",
    "SELECT * FROM @.delete_if($1::text, 'a:x', 'none', NULL::uuid)",
    "SELECT * FROM @.take($1::text, 'a:x', 'take')",
    "SELECT @.touch($1::text, 'a:x', 'touch', NULL::int8, 4102444800000::int8)",
    "SELECT * FROM @.write_batch($1::text, 'a:x', '{b,c}'::text[], '{0,1}'::int4[], '{0,1}'::int4[],
        '{NULL,NULL}'::uuid[], ARRAY[gen_random_uuid(), NULL], '{60000,NULL}'::int8[],
        '{NULL,NULL}'::int8[], ARRAY['v', NULL]::bytea[])",
    "SELECT * FROM @.list($1::text, 'a:x', '', NULL::text)",
    "SELECT * FROM @.scan($1::text, 'a:x', '', NULL::text, 3::int4, 1000000::int8, true)",
    "SELECT * FROM @.namespaces($1::text, 'a', NULL::text, NULL::int8)",
    "SELECT * FROM @.usage($1::text, 'a')",
    "SELECT * FROM @.erase($1::text, 'a:erased', 10::int8)",
    "SELECT * FROM @.evict(CASE $1::text WHEN 'a' THEN 10 END)",
    "SELECT * FROM @.tenants(NULL::text, CASE $1::text WHEN 'a' THEN 10 END)",
    "SELECT * FROM @.backlog(CASE $1::text WHEN 'a' THEN 10 END)",
    "SELECT @.clock() > length($1::text)",
];

/// Writes the entries that [`CALLS`] find.
async fn load(schema: &Schema) {
    let sql = "DELETE FROM @.entries;
        INSERT INTO @.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
        SELECT n, k, split_part(n, ':', 1), '00000000-0000-7000-8000-000000000001', 1, 2, e, v::bytea
        FROM (VALUES ('a:x', 'k', NULL, 'of k'), ('a:x', 'ttl', 4102444800000, 'of ttl'),
            ('a:x', 'delete', NULL, ''), ('a:x', 'take', NULL, ''), ('a:x', 'touch', NULL, ''),
            ('a', 'own', NULL, 'of own'), ('a:erased', 'k', NULL, ''), ('a:x', 'gone', 1, ''),
            ('b', 'k', NULL, 'of b')) AS found (n, k, e, v);";
    schema.execute(&sql.replace('@', &schema.name)).await;
}

/// The answers to [`CALLS`], without versions, times that depend on the clock, and the order of rows.
async fn answers(login: &Client, statements: &[tokio_postgres::Statement]) -> Vec<String> {
    let mut all = Vec::new();
    for statement in statements {
        let found = login.query(statement, &[&"a"]).await.unwrap();
        let mut texts = Vec::new();
        for row in &found {
            let mut text = String::new();
            for (index, column) in row.columns().iter().enumerate() {
                let shown = match (column.name(), column.type_().name()) {
                    ("created_at" | "updated_at" | "expires_at" | "late", _) => "a time".to_owned(),
                    (_, "text") => format!("{:?}", row.get::<_, Option<&str>>(index)),
                    (_, "bytea") => format!("{:?}", row.get::<_, Option<&[u8]>>(index)),
                    (_, "int8") => format!("{:?}", row.get::<_, Option<i64>>(index)),
                    (_, "int4") => format!("{:?}", row.get::<_, Option<i32>>(index)),
                    (_, "bool") => format!("{:?}", row.get::<_, Option<bool>>(index)),
                    (_, other) => other.to_owned(),
                };
                text += &format!("{} {shown}, ", column.name());
            }
            texts.push(text);
        }
        texts.sort();
        all.push(format!("{texts:?}"));
    }
    all
}

/// A process that is already open has prepared statements and cached plans.
#[tokio::test]
async fn statements_prepared_at_version_2_answer_the_same_after_the_migration() {
    let schema = Schema::at_version(2).await;
    schema.grant_operator().await;
    let login = schema.login().await;
    let mut statements = Vec::new();
    for call in CALLS {
        statements.push(login.prepare(&call.replace('@', &schema.name)).await.unwrap());
    }
    load(&schema).await;
    let before = answers(&login, &statements).await;
    // Often enough for the server to cache the plans.
    for _ in 0..6 {
        load(&schema).await;
        assert_eq!(answers(&login, &statements).await, before);
    }
    load(&schema).await;
    schema.upgrade().await;
    for pass in 0..6 {
        assert_eq!(answers(&login, &statements).await, before, "pass {pass}");
        load(&schema).await;
    }
    // A session that connects after the migration.
    let late = schema.login().await;
    let mut statements = Vec::new();
    for call in CALLS {
        statements.push(late.prepare(&call.replace('@', &schema.name)).await.unwrap());
    }
    assert_eq!(answers(&late, &statements).await, before);
}

#[tokio::test]
async fn migration_keeps_arguments_columns_and_owners_of_functions() {
    let (schema, latest) = (Schema::at_version(2).await, Schema::new().await);
    let admin = schema.admin().await;
    let functions = async |schema: &Schema| -> Vec<String> {
        let sql = format!(
            "SELECT array_agg(f ORDER BY f) FROM (
                SELECT concat_ws(' ', p.proname, pg_get_function_arguments(p.oid), 'returns',
                    pg_get_function_result(p.oid), p.prosecdef, p.proowner::regrole, p.proacl::text)
                FROM pg_proc p WHERE p.pronamespace = '{}'::regnamespace) AS found (f)",
            schema.name
        );
        one::<Vec<String>>(&admin, &sql).await
    };
    let before = functions(&schema).await;
    schema.upgrade().await;
    let after = functions(&schema).await;
    for function in &before {
        assert!(after.contains(function), "{function} is missing or changed");
    }
    assert!(after.len() > before.len());
    // No function can be called by every role.
    let open = format!(
        "SELECT FROM pg_proc p WHERE p.pronamespace = '{}'::regnamespace
            AND has_function_privilege('public', p.oid, 'EXECUTE')",
        schema.name
    );
    assert_eq!(rows(&admin, &open).await, 0);
    // An upgraded schema is the same as a new one.
    let renamed: Vec<String> =
        functions(&latest).await.iter().map(|f| f.replace(&latest.name, &schema.name)).collect();
    assert_eq!(after, renamed);
}

#[tokio::test]
async fn migration_does_not_rewrite_the_table() {
    let schema = Schema::at_version(2).await;
    let admin = schema.admin().await;
    load(&schema).await;
    let sql = format!(
        "SELECT pg_relation_filenode('{0}.entries') || ' ' || string_agg(ctid::text || xmin || xmax, ' '
            ORDER BY ctid) FROM {0}.entries",
        schema.name
    );
    let before: String = one(&admin, &sql).await;
    schema.upgrade().await;
    assert_eq!(one::<String>(&admin, &sql).await, before);
}

#[tokio::test]
async fn entries_of_version_2_are_read_after_the_migration() {
    let (schema, ctx) = (Schema::at_version(2).await, ctx());
    load(&schema).await;
    schema.upgrade().await;
    let (store, x) = (schema.open().await, ns("a:x"));
    assert_eq!(store.get(&ctx, &x, "k").await.unwrap(), Some(bytes("of k")));
    assert_eq!(store.get(&ctx, &x, "gone").await.unwrap(), None);
    let check = |meta: &EntryMeta, expires: bool| {
        assert_eq!(meta.version.to_string(), "00000000-0000-7000-8000-000000000001");
        assert_eq!((meta.created_at.as_millis(), meta.updated_at.as_millis()), (1, 2));
        assert_eq!(meta.expires_at.map(|at| at.as_millis()), expires.then_some(4_102_444_800_000));
        assert_eq!(meta.idle_ttl, None);
    };
    for options in [GetOptions::new(), GetOptions::new().refreshing()] {
        let entry = store.get_entry(&ctx, &x, "ttl", options).await.unwrap().unwrap();
        assert_eq!(entry.value, bytes("of ttl"));
        check(&entry.meta, true);
        let many = store.get_many(&ctx, &x, &["k", "none", "ttl"], options).await.unwrap();
        let many: Vec<_> = many.into_iter().map(|entry| entry.unwrap()).collect();
        check(&many[0].as_ref().unwrap().meta, false);
        assert_eq!(many[1], None);
        check(&many[2].as_ref().unwrap().meta, true);
    }
    let stats = store.stat(&ctx, &x, &["ttl", "gone"]).await.unwrap();
    check(&stats[0].unwrap().meta, true);
    assert_eq!((stats[0].unwrap().value_bytes, stats[1]), (Some(6), None));
    let keys = ["delete", "k", "take", "touch", "ttl"];
    assert_eq!(store.list(&ctx, &x, None).await.unwrap(), keys);
    for options in [ScanOptions::new(), ScanOptions::new().refreshing()] {
        for options in [options.clone(), options.reversed()] {
            let is_reversed = options.is_reversed();
            let page = store.scan(&ctx, &x, options).await.unwrap();
            let mut found: Vec<_> = page.items.iter().map(|item| item.key.as_str()).collect();
            if is_reversed {
                found.reverse();
            }
            assert_eq!((found.as_slice(), page.next), (&keys[..], None));
            page.items.iter().for_each(|item| check(&item.meta, item.key == "ttl"));
        }
    }
    let all = NamespacePrefix::parse("a").unwrap();
    let page = store.scan_recursive(&ctx, &all, RecursiveScanOptions::new()).await.unwrap();
    let found: Vec<_> = page.items.iter().map(|(ns, item)| format!("{ns} {}", item.key)).collect();
    let expected =
        ["a own", "a:erased k", "a:x delete", "a:x k", "a:x take", "a:x touch", "a:x ttl"];
    assert_eq!(found, expected);
    let usage = store.usage(&ctx, &all).await.unwrap();
    assert_eq!((usage.namespaces, usage.entries, usage.expired), (3, 7, 1));
    assert!(store.take(&ctx, &x, "take").await.unwrap().unwrap().meta.idle_ttl.is_none());
    let idle = Expiry::Idle(HOUR);
    assert!(store.touch(&ctx, &x, "touch", idle, Condition::IfPresent).await.unwrap());
    let stats = store.stat(&ctx, &x, &["touch"]).await.unwrap();
    assert_eq!(stats[0].unwrap().meta.idle_ttl, Some(HOUR));
}

/// Writes an entry with an idle TTL.
async fn put_idle(store: &PostgresStore, key: &str) {
    let options = PutOptions::new().with_idle_ttl(HOUR);
    store.put_with_options(&ctx(), &ns("a:x"), key, bytes("v"), options).await.unwrap();
}

#[tokio::test]
async fn writes_of_version_2_clear_the_idle_ttl() {
    let schema = Schema::at_version(2).await;
    let login = schema.login().await;
    schema.upgrade().await;
    let store = schema.open().await;
    for (call, expires) in [
        ("@.put('a', 'a:x', 'k', '', gen_random_uuid(), NULL, NULL)", false),
        ("@.put('a', 'a:x', 'k', '', gen_random_uuid(), 60000, NULL)", true),
        ("@.put_if('a', 'a:x', 'k', '', gen_random_uuid(), 60000, NULL, $version)", true),
        ("@.touch('a', 'a:x', 'k', NULL, NULL)", false),
        ("@.touch('a', 'a:x', 'k', 60000, NULL)", true),
        (
            "@.write_batch('a', 'a:x', '{k}', '{0}', '{0}', '{NULL}', ARRAY[gen_random_uuid()],
                '{60000}', '{NULL}', ARRAY[''::bytea])",
            true,
        ),
        (
            "@.write_batch('a', 'a:x', '{k}', '{0}', '{2}', ARRAY[$version]::uuid[],
                ARRAY[gen_random_uuid()], '{NULL}', '{NULL}', ARRAY[''::bytea])",
            false,
        ),
    ] {
        put_idle(&store, "k").await;
        let version =
            store.stat(&ctx(), &ns("a:x"), &["k"]).await.unwrap()[0].unwrap().meta.version;
        let sql = format!("SELECT * FROM {call}").replace('@', &schema.name);
        let sql = sql.replace("$version", &format!("'{version}'"));
        assert_eq!(rows(&login, &sql).await, 1, "{call}");
        let meta = store.stat(&ctx(), &ns("a:x"), &["k"]).await.unwrap()[0].unwrap().meta;
        assert_eq!((meta.idle_ttl, meta.expires_at.is_some()), (None, expires), "{call}");
    }
    // An expired entry with an idle TTL is replaced by one without.
    put_idle(&store, "k").await;
    schema.execute(&format!("UPDATE {}.entries SET expires_at = 1", schema.name)).await;
    let put_if = "SELECT FROM @.put_if('a', 'a:x', 'k', '', gen_random_uuid(), NULL, NULL, NULL)
        WHERE written";
    assert_eq!(rows(&login, &put_if.replace('@', &schema.name)).await, 1);
    let meta = store.stat(&ctx(), &ns("a:x"), &["k"]).await.unwrap()[0].unwrap().meta;
    assert_eq!((meta.idle_ttl, meta.expires_at), (None, None));
}

#[tokio::test]
async fn reads_of_version_2_ignore_the_idle_ttl() {
    let schema = Schema::at_version(2).await;
    let login = schema.login().await;
    schema.upgrade().await;
    let store = schema.open().await;
    put_idle(&store, "k").await;
    let before = store.stat(&ctx(), &ns("a:x"), &["k"]).await.unwrap();
    for call in [
        "@.get_entry('a', 'a:x', 'k', NULL) WHERE value = 'v'",
        "@.get_many('a', 'a:x', '{k}') WHERE value = 'v'",
        "@.scan('a', 'a:x', '', NULL, 10, 1000, true) WHERE value = 'v'",
        "@.list('a', 'a:x', '', NULL)",
    ] {
        let sql = format!("SELECT FROM {call}").replace('@', &schema.name);
        assert_eq!(rows(&login, &sql).await, 1, "{call}");
    }
    assert_eq!(store.stat(&ctx(), &ns("a:x"), &["k"]).await.unwrap(), before);
    // An extension of the TTL leaves the idle TTL unchanged, as in this version.
    let sql = format!("SELECT FROM {}.get_entry('a', 'a:x', 'k', 7200000)", schema.name);
    assert_eq!(rows(&login, &sql).await, 1);
    let meta = store.stat(&ctx(), &ns("a:x"), &["k"]).await.unwrap()[0].unwrap().meta;
    assert_eq!(meta.idle_ttl, Some(HOUR));
    assert!(meta.expires_at > before[0].unwrap().meta.expires_at);
    // A take of version 2 removes the entry.
    let sql = format!("SELECT FROM {}.take('a', 'a:x', 'k') WHERE value = 'v'", schema.name);
    assert_eq!(rows(&login, &sql).await, 1);
    let never = ExecutionContext::new();
    assert_eq!(store.get(&never, &ns("a:x"), "k").await.unwrap(), None);
}

#[tokio::test]
async fn idle_ttl_outside_its_bounds_is_rejected_by_the_table() {
    let schema = Schema::at_version(2).await;
    load(&schema).await;
    schema.upgrade().await;
    let login = schema.login().await;
    login.batch_execute("SET cubbyhole.tenant = 'a'").await.unwrap();
    let update = |idle_ttl: &str, key: &str| {
        format!(
            "UPDATE {}.entries SET idle_ttl = {idle_ttl}
                WHERE namespace = 'a:x' AND key = '{key}'",
            schema.name
        )
    };
    for idle_ttl in ["0", "-1", "253402300800000", "9223372036854775807"] {
        let (code, _) = rejection(&login, &update(idle_ttl, "ttl")).await;
        assert_eq!(code, "23514", "{idle_ttl}");
    }
    for idle_ttl in ["1", "253402300799999", "NULL"] {
        assert_eq!(rows(&login, &update(idle_ttl, "ttl")).await, 1, "{idle_ttl}");
    }
    // An entry with an idle TTL has an expiry.
    assert_eq!(rejection(&login, &update("1", "k")).await.0, "23514");
    // The other rules of the table still apply.
    let sql = format!("UPDATE {}.entries SET tenant = 'b' WHERE key = 'k'", schema.name);
    assert_eq!(rejection(&login, &sql).await.0, "23514");
}
