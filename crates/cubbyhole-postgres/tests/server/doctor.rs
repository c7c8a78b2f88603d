//! Findings of `diagnose`.

use std::path::Path;

use cubbyhole_core::{Diagnosis, ExecutionContext, Verdict};
use cubbyhole_postgres::{Config, diagnose};
use cubbyhole_testkit::PostgresServer;
use cubbyhole_testkit::helpers::{PASSWORD, check, check_form, ctx, until};
use tokio::task::block_in_place;

use crate::sql::{one, rejection};
use crate::support::Schema;

/// Runs `diagnose` and checks that the result does not contain the password.
async fn run_diagnose(config: &Config) -> Diagnosis {
    let diagnosis = diagnose(&ctx(), config).await.unwrap();
    check_form(&diagnosis);
    diagnosis
}

/// The names of the checks that found a problem.
fn problems(diagnosis: &Diagnosis) -> Vec<&str> {
    let problems = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Problem);
    problems.map(|check| check.name.as_str()).collect()
}

#[tokio::test]
async fn healthy_database_has_no_findings() {
    let schema = Schema::new().await;
    let diagnosis = run_diagnose(&schema.config()).await;
    for name in [
        "server",
        "pooler",
        "writes",
        "encryption",
        "clock",
        "schema",
        "role",
        "row security",
        "functions",
        "vacuum",
        "entries",
        "pool",
    ] {
        assert_eq!(check(&diagnosis, name).verdict, Verdict::Ok, "{diagnosis:#?}");
    }
    assert_eq!(problems(&diagnosis), [""; 0]);
    assert!(check(&diagnosis, "role").finding.contains(&format!("{}_login", schema.name)));
    assert!(!check(&diagnosis, "role").finding.contains("tenants"));
    schema.grant_operator().await;
    let diagnosis = run_diagnose(&schema.config()).await;
    assert!(check(&diagnosis, "role").finding.contains("tenants"), "{diagnosis:#?}");
}

#[tokio::test]
async fn role_rejected_by_open_is_a_problem_and_other_checks_run() {
    let schema = Schema::new().await;
    let name = &schema.name;
    schema.make_role("bypass", &format!("BYPASSRLS IN ROLE {name}_app")).await;
    schema.make_role("sweeping", &format!("IN ROLE {name}_app, {name}_sweeper")).await;
    for config in [schema.admin_config(), schema.config_of("bypass"), schema.config_of("sweeping")]
    {
        let diagnosis = run_diagnose(&config).await;
        assert_eq!(problems(&diagnosis), ["role"], "{diagnosis:#?}");
        let advice = check(&diagnosis, "role").advice.clone().unwrap();
        assert!(advice.contains(&format!("GRANT {name}_app TO")), "{advice}");
        for name in ["server", "clock", "schema", "row security", "functions"] {
            assert_eq!(check(&diagnosis, name).verdict, Verdict::Ok, "{diagnosis:#?}");
        }
    }
    schema.make_role("nobody", "").await;
    let diagnosis = run_diagnose(&schema.config_of("nobody")).await;
    assert!(problems(&diagnosis).contains(&"role"), "{diagnosis:#?}");
    let finding = &check(&diagnosis, "role").finding;
    assert!(finding.contains(&format!("GRANT {name}_app TO {name}_nobody")), "{finding}");
}

#[tokio::test]
async fn missing_or_newer_schema_is_a_problem() {
    let schema = Schema::new().await;
    let missing = schema.config().with_schema("no_such_schema").unwrap();
    let diagnosis = run_diagnose(&missing).await;
    assert_eq!(problems(&diagnosis), ["schema"], "{diagnosis:#?}");
    assert!(check(&diagnosis, "schema").advice.as_ref().unwrap().contains("cubbyhole migrate"));
    schema.execute(&format!("INSERT INTO {}.migrations VALUES (99, 'later')", schema.name)).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    assert_eq!(problems(&diagnosis), ["schema"], "{diagnosis:#?}");
    assert!(check(&diagnosis, "schema").finding.contains("99"));
}

#[tokio::test]
async fn failed_connection_is_a_problem_not_an_error() {
    let schema = Schema::new().await;
    let wrong = schema.url("").replace(PASSWORD, "Wr0ng-0ne");
    // No process listens on port 1.
    let (nowhere, _) =
        schema.url("").split_once('@').map(|(user, _)| (user.to_owned(), ())).unwrap();
    let nowhere = format!("{nowhere}@127.0.0.1:1/state");
    for (url, expected) in [(wrong, "password"), (nowhere, "address")] {
        let diagnosis = run_diagnose(&Config::from_url(&url).unwrap()).await;
        assert_eq!(problems(&diagnosis), ["connection"], "{diagnosis:#?}");
        assert_eq!(diagnosis.checks.len(), 1, "{diagnosis:#?}");
        let advice = check(&diagnosis, "connection").advice.clone().unwrap();
        assert!(advice.contains(expected), "{advice}");
        assert!(!format!("{diagnosis:?}").contains("Wr0ng"), "{diagnosis:?}");
    }
    let ended = ExecutionContext::new();
    ended.cancel();
    assert!(diagnose(&ended, &schema.config()).await.is_err());
}

#[tokio::test]
async fn weakened_row_security_is_a_problem() {
    for change in [
        "CREATE POLICY mine ON @.entries FOR SELECT TO PUBLIC USING (true)",
        "CREATE POLICY mine ON @.entries FOR SELECT TO @_app USING (true)",
        "DROP POLICY sweep ON @.entries",
        "ALTER POLICY tenant ON @.entries TO PUBLIC",
        "ALTER POLICY tenant ON @.entries USING (true)",
        "ALTER POLICY tenant ON @.entries WITH CHECK (true)",
        "ALTER POLICY sweep ON @.entries USING (true)",
        "ALTER TABLE @.entries DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE @.entries NO FORCE ROW LEVEL SECURITY",
    ] {
        let schema = Schema::new().await;
        schema.execute(&change.replace('@', &schema.name)).await;
        let diagnosis = run_diagnose(&schema.config()).await;
        assert_eq!(problems(&diagnosis), ["row security"], "{change}: {diagnosis:#?}");
    }
}

#[tokio::test]
async fn function_with_additional_privileges_is_a_problem() {
    for change in [
        "ALTER FUNCTION @.evict(integer) OWNER TO CURRENT_USER",
        "ALTER FUNCTION @.evict(integer) OWNER TO @_enumerator",
        "ALTER FUNCTION @.tenants(text, integer) OWNER TO CURRENT_USER",
        "ALTER ROLE @_enumerator BYPASSRLS",
        "ALTER ROLE @_sweeper LOGIN",
        "ALTER FUNCTION @.get(text, text, text) SECURITY DEFINER",
        "ALTER FUNCTION @.tenants(text, integer) SECURITY INVOKER",
        "ALTER FUNCTION @.backlog(integer) OWNER TO CURRENT_USER",
    ] {
        let schema = Schema::new().await;
        schema.execute(&change.replace('@', &schema.name)).await;
        let diagnosis = run_diagnose(&schema.config()).await;
        assert_eq!(problems(&diagnosis), ["functions"], "{change}: {diagnosis:#?}");
    }
}

#[tokio::test]
async fn costly_settings_are_warnings() {
    let schema = Schema::new().await;
    let name = &schema.name;
    let set = format!(
        "ALTER ROLE {name}_login SET default_transaction_isolation = 'serializable';
         ALTER ROLE {name}_login SET synchronous_commit = off"
    );
    schema.execute(&set).await;
    let diagnosis = run_diagnose(&schema.config().with_pool_size(1_000_000)).await;
    for name in ["isolation", "durability", "pool"] {
        assert_eq!(check(&diagnosis, name).verdict, Verdict::Warning, "{diagnosis:#?}");
    }
    assert!(check(&diagnosis, "durability").finding.contains("synchronous_commit"));
    assert_eq!(diagnosis.verdict(), Verdict::Warning);
}

#[tokio::test]
async fn backlog_of_expired_entries_covers_all_tenants() {
    let schema = Schema::new().await;
    schema.stop_clock().await;
    let admin = schema.admin().await;
    let now: i64 = one(&admin, &format!("SELECT {}.clock()", schema.name)).await;
    let entries = async || {
        let diagnosis = run_diagnose(&schema.config()).await;
        check(&diagnosis, "entries").clone()
    };
    schema.execute(&schema.row("a:x", "live", None)).await;
    schema.execute(&schema.row("a:x", "also live", Some(now + 1))).await;
    assert!(entries().await.finding.ends_with("MiB, no expired entries"));
    let hours = |hours: i64| Some(now - hours * 3_600_000);
    schema.execute(&schema.row("b:x", "gone", hours(24))).await;
    schema.execute(&schema.row("c", "gone", hours(3))).await;
    let found = entries().await;
    assert_eq!(found.verdict, Verdict::Ok, "a delay of one day is acceptable: {found:?}");
    let finding = "; 2 expired entries not swept, the oldest for 24 h";
    assert!(found.finding.ends_with(finding), "{found:?}");
    schema.execute(&schema.row("d", "gone", hours(49))).await;
    let found = entries().await;
    assert_eq!(found.verdict, Verdict::Warning, "{found:?}");
    let finding = "; 3 expired entries not swept, the oldest for 2 days";
    assert!(found.finding.ends_with(finding), "{found:?}");
    assert!(found.advice.unwrap().contains("cubbyhole evict"));
    // Roles without the privileges of the application may not call the function.
    let name = &schema.name;
    schema.make_role("nobody", "").await;
    schema.execute(&format!("GRANT USAGE ON SCHEMA {name} TO {name}_nobody")).await;
    let admin = schema.admin().await;
    admin.batch_execute(&format!("SET ROLE {name}_nobody")).await.unwrap();
    assert_eq!(rejection(&admin, &format!("SELECT {name}.backlog(1)")).await.0, "42501");
}

#[tokio::test]
async fn missing_function_does_not_stop_other_checks() {
    let schema = Schema::new().await;
    schema.execute(&format!("DROP FUNCTION {}.backlog(integer)", schema.name)).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    assert_eq!(problems(&diagnosis), ["functions", "entries"], "{diagnosis:#?}");
    assert_eq!(check(&diagnosis, "pool").verdict, Verdict::Ok, "{diagnosis:#?}");
}

#[tokio::test]
async fn backlog_count_is_bounded() {
    let schema = Schema::new().await;
    schema.stop_clock().await;
    let some = |count: u32| {
        format!(
            "INSERT INTO {0}.entries
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
             SELECT 'a', gen_random_uuid()::text, 'a', gen_random_uuid(), 0, 0, {0}.clock(), ''
             FROM generate_series(1, {count})",
            schema.name
        )
    };
    schema.execute(&some(99_999)).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    assert_eq!(check(&diagnosis, "entries").verdict, Verdict::Ok, "{diagnosis:#?}");
    schema.execute(&some(2)).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    let found = check(&diagnosis, "entries");
    assert_eq!(found.verdict, Verdict::Warning, "{found:?}");
    assert!(found.finding.contains("; 100000 or more expired entries not swept"), "{found:?}");
}

#[tokio::test]
async fn table_without_vacuum_is_a_warning() {
    let schema = Schema::new().await;
    let table = format!("{}.entries", schema.name);
    schema.execute(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    let found = check(&diagnosis, "vacuum");
    assert_eq!(found.verdict, Verdict::Warning, "{found:?}");
    assert!(found.finding.contains("off for the table"), "{found:?}");
    schema.execute(&format!("ALTER TABLE {table} RESET (autovacuum_enabled)")).await;
    // An open transaction prevents any vacuum from removing the rows.
    let open_transaction = schema.admin().await;
    open_transaction
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        .await
        .unwrap();
    let churn = format!(
        "INSERT INTO {table}
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
         SELECT 'a', n::text, 'a', gen_random_uuid(), 0, 0, NULL, '' FROM generate_series(1, 10001) n;
         DELETE FROM {table} WHERE key <> '1'; SELECT pg_stat_force_next_flush()"
    );
    schema.execute(&churn).await;
    let finding = async || {
        let diagnosis = run_diagnose(&schema.config()).await;
        let found = check(&diagnosis, "vacuum");
        (found.verdict, found.finding.clone(), found.advice.clone().unwrap_or_default())
    };
    // The deleted rows do not exceed the tolerance.
    until("statistics of the dead rows", async || finding().await.1.contains("10000 dead")).await;
    assert_eq!(finding().await.0, Verdict::Ok);
    let more = format!("UPDATE {table} SET value = 'v'; SELECT pg_stat_force_next_flush()");
    schema.execute(&more).await;
    until("statistics of one more dead row", async || {
        finding().await.1.contains("10001 dead rows and 1 live")
    })
    .await;
    let (verdict, _, advice) = finding().await;
    assert_eq!(verdict, Verdict::Warning);
    assert!(advice.contains(&format!("VACUUM {table}")), "{advice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_server_is_a_problem() {
    let safe = [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")];
    let mut server = block_in_place(|| PostgresServer::start_with(&safe)).unwrap();
    let schema = Schema::on(server.url()).await;
    let name = &schema.name;
    let set = format!("ALTER ROLE {name}_login SET default_transaction_read_only = on");
    schema.execute(&set).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    assert_eq!(problems(&diagnosis), ["writes"], "{diagnosis:#?}");
    assert!(check(&diagnosis, "writes").finding.contains("read_only"));
    schema.execute(&format!("ALTER ROLE {name}_login RESET default_transaction_read_only")).await;
    let folder = block_in_place(|| server.psql("SHOW data_directory")).unwrap();
    block_in_place(|| server.stop()).unwrap();
    std::fs::write(Path::new(&folder).join("standby.signal"), "").unwrap();
    block_in_place(|| server.start_again()).unwrap();
    let diagnosis = run_diagnose(&schema.config()).await;
    assert_eq!(problems(&diagnosis), ["writes"], "{diagnosis:#?}");
    assert!(check(&diagnosis, "writes").finding.contains("standby"));
    // The other checks run too.
    for name in ["entries", "durability"] {
        assert_eq!(check(&diagnosis, name).verdict, Verdict::Ok, "{diagnosis:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_server_settings_are_warnings() {
    let settings = [("fsync", "off"), ("full_page_writes", "off"), ("autovacuum", "off")];
    let server = block_in_place(|| PostgresServer::start_with(&settings)).unwrap();
    let schema = Schema::on(server.url()).await;
    let diagnosis = run_diagnose(&schema.config()).await;
    let found = check(&diagnosis, "durability");
    assert_eq!(found.verdict, Verdict::Warning, "{diagnosis:#?}");
    assert!(found.finding.contains("off: fsync, full_page_writes"), "{found:?}");
    let found = check(&diagnosis, "vacuum");
    assert_eq!(found.verdict, Verdict::Warning, "{diagnosis:#?}");
    assert!(found.finding.contains("off for the server"), "{found:?}");
}
