//! Query plans: no call reads more rows than it needs, regardless of the size of the table when its
//! plan was cached.

use cubbyhole_core::{EntryStore, Store};
use cubbyhole_testkit::helpers::{ctx, ns};
use tokio_postgres::Client;

use crate::sql::one;
use crate::support::Schema;

/// Each call with the maximum number of rows and index entries that it may read, of 100,000.
const CALLS: [(&str, i64); 40] = [
    ("@.get('a', 'a:n0500', 'k050')", 10),
    ("@.get_entry('a', 'a:n0500', 'k050', NULL)", 10),
    ("@.get_entry('a', 'a:n0500', 'k051', 600000)", 30),
    ("@.get_many('a', 'a:n0500', '{k001,k002,k003,k099,none}')", 50),
    ("@.put('a', 'a:n0500', 'k052', '', gen_random_uuid(), NULL, NULL)", 30),
    ("@.put('a', 'a:n0500', 'new', '', gen_random_uuid(), 600000, NULL)", 30),
    ("@.put_if('a', 'a:n0500', 'k053', '', gen_random_uuid(), NULL, NULL, NULL)", 30),
    ("@.put_if('a', 'a:n0500', 'k053', '', gen_random_uuid(), NULL, NULL, gen_random_uuid())", 30),
    ("@.delete('a', 'a:n0500', 'k054')", 30),
    ("@.delete_if('a', 'a:n0500', 'k055', gen_random_uuid())", 30),
    ("@.take('a', 'a:n0500', 'k056')", 30),
    ("@.touch('a', 'a:n0500', 'k057', NULL, NULL)", 30),
    (
        "@.write_batch('a', 'a:n0500', '{k058,k059,k060}', '{0,1,2}', '{0,1,0}',
            ARRAY[NULL, NULL, NULL]::uuid[], ARRAY[gen_random_uuid(), gen_random_uuid(), NULL],
            '{null,null,null}', '{null,null,null}', ARRAY['', '', NULL]::bytea[])",
        150,
    ),
    ("@.get_entry('a', 'a:n0500', 'k050', NULL, false)", 10),
    ("@.get_entry('a', 'a:n0500', 'k050', NULL, true)", 10),
    ("@.get_entry('a', 'a:n0500', 'k070', NULL, true)", 40),
    ("@.get_entry('a', 'a:n0500', 'k071', 900000, false)", 40),
    ("@.get_many('a', 'a:n0500', '{k001,k002,k003,k099,none}', NULL, false)", 50),
    ("@.get_many('a', 'a:n0500', '{k001,k070,k071,none}', NULL, true)", 100),
    ("@.get_many('a', 'a:n0500', '{k001,k072,k073,none}', 900000, true)", 100),
    ("@.stat('a', 'a:n0500', '{k001,k002,k003,k099,none}')", 50),
    ("@.put('a', 'a:n0500', 'k052', '', gen_random_uuid(), 60000, NULL, 60000)", 30),
    ("@.put_if('a', 'a:n0500', 'k053', '', gen_random_uuid(), NULL, NULL, NULL, 3, NULL)", 30),
    ("@.delete_if('a', 'a:n0500', 'k055', 3, NULL)", 30),
    ("@.take_entry('a', 'a:n0500', 'k056')", 30),
    ("@.touch('a', 'a:n0500', 'k057', 60000, NULL, 60000, 3, NULL)", 30),
    (
        "@.write_batch('a', 'a:n0500', '{k058,k059,k060}', '{0,1,2}', '{0,1,0}',
            ARRAY[NULL, NULL, NULL]::uuid[], ARRAY[gen_random_uuid(), gen_random_uuid(), NULL],
            '{null,null,null}', '{null,null,null}', '{null,null,null}',
            ARRAY['', '', NULL]::bytea[])",
        150,
    ),
    ("@.scan('a', 'a:n0500', 'k01', 'k09', 10, 1000000, true, false)", 60),
    ("@.scan('a', 'a:n0500', 'k01', 'k09', 10, 1000000, true, true)", 60),
    ("@.scan_refreshing('a', 'a:n0500', 'k06', 'k09', 20, 1000000, true, true)", 500),
    ("@.scan_recursive('a', 'a', 'a:n0600', 'k050', 10, 1000000, true)", 60),
    ("@.delete_prefix('a', 'a:n0503', 'k01', 'k02', 5)", 60),
    ("@.list('a', 'a:n0500', 'k01', 'k02')", 60),
    ("@.scan('a', 'a:n0500', '', NULL, 10, 1000000, true)", 60),
    ("@.namespaces('a', 'a:n0500', NULL, NULL)", 50),
    ("@.namespaces('a', 'a', 'a:n0500', 10)", 300),
    ("@.namespaces('a', 'a', NULL, NULL)", 8_000),
    ("@.usage('a', 'a:n0501')", 500),
    ("@.erase('a', 'a:n0502', 10)", 200),
    ("@.evict(10)", 200),
];

/// The number of rows and index entries that the current transaction has read.
const READ: &str = "SELECT pg_stat_get_xact_tuples_returned(t.oid)
        + pg_stat_get_xact_tuples_fetched(t.oid)
        + (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::int8
            FROM pg_index i WHERE i.indrelid = t.oid)
    FROM pg_class t WHERE t.oid = '@.entries'::regclass";

/// Adds 1,000 namespaces of 100 entries. A few entries are expired, and a tenth has an idle TTL of which
/// half has passed.
async fn load(schema: &Schema) {
    let sql = "INSERT INTO @.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value, idle_ttl)
        SELECT 'a:n' || lpad(n::text, 4, '0'), 'k' || lpad(k::text, 3, '0'), 'a',
            gen_random_uuid(), 0, 0,
            CASE WHEN k = 99 AND n % 10 = 0 THEN 1
                WHEN k BETWEEN 70 AND 79 THEN @.clock() + 600000 END,
            'by hand', CASE WHEN k BETWEEN 70 AND 79 THEN 1200000 END
        FROM generate_series(0, 999) n, generate_series(0, 99) k
        ON CONFLICT DO NOTHING";
    schema.execute(&sql.replace('@', &schema.name)).await;
}

/// Keeps the statistics unchanged.
async fn without_autovacuum(schema: &Schema) {
    let sql = format!("ALTER TABLE {}.entries SET (autovacuum_enabled = off)", schema.name);
    schema.execute(&sql).await;
}

/// Makes each call often enough for the server to cache its plan.
async fn warm(schema: &Schema, login: &Client) {
    for _ in 0..10 {
        for (call, _) in CALLS {
            let sql = format!("SELECT count(*) FROM {}", call.replace('@', &schema.name));
            one::<i64>(login, &sql).await;
        }
    }
}

async fn assert_few_reads(schema: &Schema, login: &Client) {
    let read = READ.replace('@', &schema.name);
    let mut excess = Vec::new();
    for (call, max) in CALLS {
        login.batch_execute("BEGIN").await.unwrap();
        let before: i64 = one(login, &read).await;
        let sql = format!("SELECT count(*) FROM {}", call.replace('@', &schema.name));
        one::<i64>(login, &sql).await;
        let rows = one::<i64>(login, &read).await - before;
        login.batch_execute("ROLLBACK").await.unwrap();
        if rows > max {
            excess.push(format!("{call} read {rows}, more than {max}"));
        }
    }
    assert!(excess.is_empty(), "{excess:#?}");
    // Verify the measurement with a statement that reads all rows. Parallel workers would count
    // separately.
    let begin = "BEGIN; SET LOCAL cubbyhole.tenant = 'a';
        SET LOCAL max_parallel_workers_per_gather = 0";
    login.batch_execute(begin).await.unwrap();
    let before: i64 = one(login, &read).await;
    one::<i64>(login, &format!("SELECT count(value) FROM {}.entries", schema.name)).await;
    assert!(one::<i64>(login, &read).await - before >= 90_000);
    login.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn plans_cached_on_an_empty_table_read_few_rows() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    let login = schema.login().await;
    schema.execute(&format!("ANALYZE {}.entries", schema.name)).await;
    warm(&schema, &login).await;
    load(&schema).await;
    assert_few_reads(&schema, &login).await;
}

/// Caches plans on a table of a few rows, after `prepare`.
async fn cached_while_small(prepare: &str) {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    let login = schema.login().await;
    for name in ["a:n0500", "a:n0501", "a:n0502"] {
        schema.execute(&schema.row(name, "k050", None)).await;
    }
    schema.execute(&schema.row("a:n0500", "k099", Some(1))).await;
    schema.execute(&format!("{prepare} {}.entries", schema.name)).await;
    warm(&schema, &login).await;
    load(&schema).await;
    assert_few_reads(&schema, &login).await;
}

#[tokio::test]
async fn plans_cached_on_a_small_table_read_few_rows() {
    cached_while_small("VACUUM ANALYZE").await;
}

/// The state in which a long transaction prevents `VACUUM` from marking pages as all-visible.
#[tokio::test]
async fn plans_cached_before_the_first_vacuum_read_few_rows() {
    cached_while_small("ANALYZE").await;
}

#[tokio::test]
async fn plans_made_on_a_full_table_read_few_rows() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    load(&schema).await;
    schema.execute(&format!("VACUUM ANALYZE {}.entries", schema.name)).await;
    let login = schema.login().await;
    assert_few_reads(&schema, &login).await;
    warm(&schema, &login).await;
    assert_few_reads(&schema, &login).await;
}

/// The number of rows and index entries that a call reads.
async fn reads(schema: &Schema, login: &Client, call: &str) -> i64 {
    let read = READ.replace('@', &schema.name);
    login.batch_execute("BEGIN").await.unwrap();
    let before: i64 = one(login, &read).await;
    one::<i64>(login, &format!("SELECT count(*) FROM {}.{call}", schema.name)).await;
    let rows = one::<i64>(login, &read).await - before;
    login.batch_execute("ROLLBACK").await.unwrap();
    rows
}

#[tokio::test]
async fn pages_read_equally_many_rows_in_both_directions_and_across_namespaces() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    let login = schema.login().await;
    schema.execute(&format!("ANALYZE {}.entries", schema.name)).await;
    let calls = [
        "scan('a', 'a:large', '', NULL, 101, 1000000, true, false)",
        "scan('a', 'a:large', '', NULL, 101, 1000000, true, true)",
        "scan_recursive('a', 'a:large', 'a:large', '00100', 101, 1000000, true)",
        // Ten entries in each namespace.
        "scan_recursive('a', 'a:small', NULL, NULL, 101, 1000000, true)",
        "scan_recursive('a', 'a:small', 'a:small:00500', '5', 101, 1000000, true)",
        "scan_recursive('a', 'a', 'a:small:00500', '5', 101, 1000000, true)",
    ];
    for _ in 0..10 {
        for call in calls {
            reads(&schema, &login, call).await;
        }
    }
    let sql = "INSERT INTO @.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
        SELECT n, k, 'a', gen_random_uuid(), 0, 0, NULL, 'by hand' FROM (
            SELECT 'a:large' AS n, lpad(e::text, 5, '0') AS k FROM generate_series(0, 9999) e
            UNION ALL
            SELECT 'a:small:' || lpad((e / 10)::text, 5, '0'), (e % 10)::text
            FROM generate_series(0, 9999) e
        ) found";
    schema.execute(&sql.replace('@', &schema.name)).await;
    for call in calls {
        let read = reads(&schema, &login, call).await;
        assert!((101..=110).contains(&read), "{call} reads {read}");
    }
}

#[tokio::test]
async fn stat_does_not_read_large_values() {
    let schema = Schema::new().await;
    let (store, name) = (schema.open().await, ns("a"));
    let random: Vec<u8> = (0..1_000_000).map(|_| fastrand::u8(..)).collect();
    store.put(&ctx(), &name, "large", random.into()).await.unwrap();
    let stats = store.stat(&ctx(), &name, &["large"]).await.unwrap();
    assert_eq!(stats[0].unwrap().value_bytes, Some(1_000_000));
    let login = schema.login().await;
    // Chunks of values that the transaction has read.
    let chunks = format!(
        "SELECT pg_stat_get_xact_tuples_fetched(c.reltoastrelid)
            + pg_stat_get_xact_tuples_returned(i.indexrelid)
         FROM pg_class c JOIN pg_index i ON i.indrelid = c.reltoastrelid
         WHERE c.oid = '{}.entries'::regclass",
        schema.name
    );
    login.batch_execute("BEGIN").await.unwrap();
    let sql = format!("SELECT value_bytes FROM {}.stat('a', 'a', '{{large}}')", schema.name);
    assert_eq!(one::<i32>(&login, &sql).await, 1_000_000);
    let sql = format!(
        "SELECT value_bytes FROM {}.scan_recursive('a', 'a', NULL, NULL, 10, 100, false)",
        schema.name
    );
    assert_eq!(one::<i32>(&login, &sql).await, 1_000_000);
    assert_eq!(one::<i64>(&login, &chunks).await, 0);
    // The measurement counts a read of the value.
    let sql = format!("SELECT {}.get('a', 'a', 'large')", schema.name);
    assert_eq!(one::<Vec<u8>>(&login, &sql).await.len(), 1_000_000);
    assert!(one::<i64>(&login, &chunks).await > 100);
}

#[tokio::test]
async fn listing_tenants_reads_rows_in_proportion_to_tenants() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    schema.grant_operator().await;
    schema.execute(&format!("ANALYZE {}.entries", schema.name)).await;
    let login = schema.login().await;
    let sql = format!("SELECT count(*) FROM {}.tenants(NULL, 1000)", schema.name);
    for _ in 0..10 {
        assert_eq!(one::<i64>(&login, &sql).await, 0);
    }
    load(&schema).await;
    for tenant in 0..20 {
        schema.execute(&schema.row(&format!("t{tenant}"), "k", None)).await;
    }
    let read = READ.replace('@', &schema.name);
    login.batch_execute("BEGIN").await.unwrap();
    let before: i64 = one(&login, &read).await;
    assert_eq!(one::<i64>(&login, &sql).await, 21);
    let rows = one::<i64>(&login, &read).await - before;
    assert!(rows <= 400, "read {rows} rows");
}

#[tokio::test]
async fn sweep_step_reads_only_the_rows_it_removes() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    let insert = |expires_at: &str, first: u32| {
        let sql = format!(
            "INSERT INTO {0}.entries
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
             SELECT 'a', 'k' || k, 'a', gen_random_uuid(), 0, 0, {expires_at}, ''
             FROM generate_series({first}, {first} + 49999) k",
            schema.name
        );
        let schema = &schema;
        async move { schema.execute(&sql).await }
    };
    // The statistics do not cover the entries that have expired since `ANALYZE`.
    insert("4102444800000 + k", 0).await;
    schema.execute(&format!("VACUUM ANALYZE {}.entries", schema.name)).await;
    insert("k", 50_000).await;
    let login = schema.login().await;
    let read = READ.replace('@', &schema.name);
    login.batch_execute("BEGIN").await.unwrap();
    let before: i64 = one(&login, &read).await;
    let sql = format!("SELECT {}.evict(1000)", schema.name);
    assert_eq!(one::<i64>(&login, &sql).await, 1000);
    let rows = one::<i64>(&login, &read).await - before;
    assert!(rows <= 5_000, "read {rows} rows");
}
