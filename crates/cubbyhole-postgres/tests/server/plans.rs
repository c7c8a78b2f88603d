//! No call reads more of the table than it needs to, whatever the table held when its plans were
//! made.

use tokio_postgres::Client;

use crate::by_hand::one;
use crate::support::Schema;

/// Each call, with the most rows and index entries that it may read, of 100,000.
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

/// What this session has read of the table: rows by scans and by indexes, and index entries.
const READ: &str = "SELECT pg_stat_get_xact_tuples_returned(t.oid)
        + pg_stat_get_xact_tuples_fetched(t.oid)
        + (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::int8
            FROM pg_index i WHERE i.indrelid = t.oid)
    FROM pg_class t WHERE t.oid = '@.entries'::regclass";

/// A thousand namespaces of a hundred entries, a few of them expired.
async fn load(schema: &Schema) {
    let sql = "INSERT INTO @.entries
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
        SELECT 'a:n' || lpad(n::text, 4, '0'), 'k' || lpad(k::text, 3, '0'), 'a',
            gen_random_uuid(), 0, 0, CASE WHEN k = 99 AND n % 10 = 0 THEN 1 END, 'by hand'
        FROM generate_series(0, 999) n, generate_series(0, 99) k
        ON CONFLICT DO NOTHING";
    schema.execute(&sql.replace('@', &schema.name)).await;
}

/// Keeps the statistics as they are.
async fn without_autovacuum(schema: &Schema) {
    let sql = format!("ALTER TABLE {}.entries SET (autovacuum_enabled = off)", schema.name);
    schema.execute(&sql).await;
}

/// Calls everything often enough for plans to be kept.
async fn warm(schema: &Schema, login: &Client) {
    for _ in 0..10 {
        for (call, _) in CALLS {
            let sql = format!("SELECT count(*) FROM {}", call.replace('@', &schema.name));
            one::<i64>(login, &sql).await;
        }
    }
}

async fn read_little(schema: &Schema, login: &Client) {
    let read = READ.replace('@', &schema.name);
    let mut excess = Vec::new();
    for (call, most) in CALLS {
        login.batch_execute("BEGIN").await.unwrap();
        let before: i64 = one(login, &read).await;
        let sql = format!("SELECT count(*) FROM {}", call.replace('@', &schema.name));
        one::<i64>(login, &sql).await;
        let rows = one::<i64>(login, &read).await - before;
        login.batch_execute("ROLLBACK").await.unwrap();
        if rows > most {
            excess.push(format!("{call} read {rows}, more than {most}"));
        }
    }
    assert!(excess.is_empty(), "{excess:#?}");
    // The measure measures: a call that must read everything is seen to.
    // Workers would count what they read on their own.
    let begin = "BEGIN; SET LOCAL cubbyhole.tenant = 'a';
        SET LOCAL max_parallel_workers_per_gather = 0";
    login.batch_execute(begin).await.unwrap();
    let before: i64 = one(login, &read).await;
    one::<i64>(login, &format!("SELECT count(value) FROM {}.entries", schema.name)).await;
    assert!(one::<i64>(login, &read).await - before >= 90_000);
    login.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn plans_that_were_kept_while_the_table_was_empty_read_little_of_it_when_it_is_full() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    let login = schema.login().await;
    schema.execute(&format!("ANALYZE {}.entries", schema.name)).await;
    warm(&schema, &login).await;
    load(&schema).await;
    read_little(&schema, &login).await;
}

/// Warms with a handful of rows, of which `prepare` tells the planner.
async fn kept_while_small(prepare: &str) {
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
    read_little(&schema, &login).await;
}

#[tokio::test]
async fn plans_that_were_kept_while_the_table_was_small_read_little_of_it_when_it_is_full() {
    kept_while_small("VACUUM ANALYZE").await;
}

/// As where a long transaction keeps `VACUUM` from marking pages as visible to all.
#[tokio::test]
async fn plans_that_were_kept_before_the_first_vacuum_read_little_of_the_table_when_it_is_full() {
    kept_while_small("ANALYZE").await;
}

#[tokio::test]
async fn plans_that_are_made_while_the_table_is_full_read_little_of_it() {
    let schema = Schema::new().await;
    without_autovacuum(&schema).await;
    load(&schema).await;
    schema.execute(&format!("VACUUM ANALYZE {}.entries", schema.name)).await;
    let login = schema.login().await;
    read_little(&schema, &login).await;
    warm(&schema, &login).await;
    read_little(&schema, &login).await;
}

#[tokio::test]
async fn the_list_of_tenants_reads_as_many_rows_as_there_are_tenants() {
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
    assert!(rows <= 400, "it read {rows}");
}

#[tokio::test]
async fn a_step_of_a_sweep_reads_what_it_removes_however_much_has_expired() {
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
    // What has expired since the statistics were made is what they do not tell of.
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
    assert!(rows <= 5_000, "it read {rows}");
}
