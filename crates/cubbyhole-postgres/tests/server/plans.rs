//! Query plans: no call reads more rows than it needs, regardless of the size of the table when its
//! plan was cached.

use tokio_postgres::Client;

use crate::sql::one;
use crate::support::Schema;

/// Each call with the maximum number of rows and index entries that it may read, of 100,000.
const CALLS: [(&str, i64); 21] = [
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

/// Adds 1,000 namespaces of 100 entries. A few entries are expired.
async fn load(schema: &Schema) {
    let sql = "INSERT INTO @.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
        SELECT 'a:n' || lpad(n::text, 4, '0'), 'k' || lpad(k::text, 3, '0'), 'a',
            gen_random_uuid(), 0, 0, CASE WHEN k = 99 AND n % 10 = 0 THEN 1 END, 'by hand'
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
