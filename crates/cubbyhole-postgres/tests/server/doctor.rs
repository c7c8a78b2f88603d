//! What `diagnose` finds.

use cubbyhole_core::{Check, Diagnosis, ExecutionContext, Verdict};
use cubbyhole_postgres::{PostgresConfig, diagnose};

use crate::by_hand::ctx;
use crate::support::{PASSWORD, Schema};

/// Looks a database over; nothing that it says shows the password.
async fn looked_over(config: &PostgresConfig) -> Diagnosis {
    let diagnosis = diagnose(&ctx(), config).await.unwrap();
    assert!(!format!("{diagnosis:?}").contains(PASSWORD), "{diagnosis:?}");
    for check in &diagnosis.checks {
        assert_eq!(check.advice.is_some(), check.verdict != Verdict::Ok, "{check:?}");
    }
    diagnosis
}

#[track_caller]
fn check<'a>(diagnosis: &'a Diagnosis, name: &str) -> &'a Check {
    let found = diagnosis.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check `{name}`: {diagnosis:#?}"))
}

/// The problems, by their names.
fn problems(diagnosis: &Diagnosis) -> Vec<&str> {
    let problems = diagnosis.checks.iter().filter(|check| check.verdict == Verdict::Problem);
    problems.map(|check| check.name.as_str()).collect()
}

#[tokio::test]
async fn a_sound_database_is_found_sound() {
    let schema = Schema::new().await;
    let diagnosis = looked_over(&schema.config()).await;
    for name in
        ["server", "encryption", "clock", "schema", "role", "row security", "functions", "pool"]
    {
        assert_eq!(check(&diagnosis, name).verdict, Verdict::Ok, "{diagnosis:#?}");
    }
    assert_eq!(problems(&diagnosis), [""; 0]);
    assert!(check(&diagnosis, "role").finding.contains(&format!("{}_login", schema.name)));
    assert!(!check(&diagnosis, "role").finding.contains("tenants"));
    schema.grant_operator().await;
    let diagnosis = looked_over(&schema.config()).await;
    assert!(check(&diagnosis, "role").finding.contains("tenants"), "{diagnosis:#?}");
}

#[tokio::test]
async fn a_role_that_opening_refuses_is_told_why_and_the_rest_is_looked_over() {
    let schema = Schema::new().await;
    let name = &schema.name;
    schema.make_role("bypass", &format!("BYPASSRLS IN ROLE {name}_app")).await;
    schema.make_role("sweeping", &format!("IN ROLE {name}_app, {name}_sweeper")).await;
    for config in [schema.admin_config(), schema.config_of("bypass"), schema.config_of("sweeping")]
    {
        let diagnosis = looked_over(&config).await;
        assert_eq!(problems(&diagnosis), ["role"], "{diagnosis:#?}");
        let advice = check(&diagnosis, "role").advice.clone().unwrap();
        assert!(advice.contains(&format!("GRANT {name}_app TO")), "{advice}");
        for name in ["server", "clock", "schema", "row security", "functions"] {
            assert_eq!(check(&diagnosis, name).verdict, Verdict::Ok, "{diagnosis:#?}");
        }
    }
    schema.make_role("nobody", "").await;
    let diagnosis = looked_over(&schema.config_of("nobody")).await;
    assert!(problems(&diagnosis).contains(&"role"), "{diagnosis:#?}");
    let finding = &check(&diagnosis, "role").finding;
    assert!(finding.contains(&format!("GRANT {name}_app TO {name}_nobody")), "{finding}");
}

#[tokio::test]
async fn a_schema_that_is_missing_or_of_another_version_is_a_problem() {
    let schema = Schema::new().await;
    let missing = schema.config().with_schema("no_such_schema").unwrap();
    let diagnosis = looked_over(&missing).await;
    assert_eq!(problems(&diagnosis), ["schema"], "{diagnosis:#?}");
    assert!(check(&diagnosis, "schema").advice.as_ref().unwrap().contains("cubbyhole migrate"));
    schema.execute(&format!("INSERT INTO {}.migrations VALUES (99, 'later')", schema.name)).await;
    let diagnosis = looked_over(&schema.config()).await;
    assert_eq!(problems(&diagnosis), ["schema"], "{diagnosis:#?}");
    assert!(check(&diagnosis, "schema").finding.contains("99"));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_entered_is_a_problem_and_no_error() {
    let schema = Schema::new().await;
    let wrong = schema.url("").replace(PASSWORD, "Wr0ng-0ne");
    // Nobody listens on the first port.
    let (nowhere, _) =
        schema.url("").split_once('@').map(|(user, _)| (user.to_owned(), ())).unwrap();
    let nowhere = format!("{nowhere}@127.0.0.1:1/state");
    for (url, said) in [(wrong, "password"), (nowhere, "address")] {
        let diagnosis = looked_over(&PostgresConfig::from_url(&url).unwrap()).await;
        assert_eq!(problems(&diagnosis), ["connection"], "{diagnosis:#?}");
        assert_eq!(diagnosis.checks.len(), 1, "{diagnosis:#?}");
        let advice = check(&diagnosis, "connection").advice.clone().unwrap();
        assert!(advice.contains(said), "{advice}");
        assert!(!format!("{diagnosis:?}").contains("Wr0ng"), "{diagnosis:?}");
    }
    let ended = ExecutionContext::new();
    ended.cancel();
    assert!(diagnose(&ended, &schema.config()).await.is_err());
}

#[tokio::test]
async fn whatever_loosens_row_security_is_a_problem() {
    for loosening in [
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
        schema.execute(&loosening.replace('@', &schema.name)).await;
        let diagnosis = looked_over(&schema.config()).await;
        assert_eq!(problems(&diagnosis), ["row security"], "{loosening}: {diagnosis:#?}");
    }
}

#[tokio::test]
async fn a_function_with_more_rights_than_it_was_made_with_is_a_problem() {
    for change in [
        "ALTER FUNCTION @.evict(integer) OWNER TO CURRENT_USER",
        "ALTER FUNCTION @.evict(integer) OWNER TO @_enumerator",
        "ALTER FUNCTION @.tenants(text, integer) OWNER TO CURRENT_USER",
        "ALTER ROLE @_enumerator BYPASSRLS",
        "ALTER ROLE @_sweeper LOGIN",
        "ALTER FUNCTION @.get(text, text, text) SECURITY DEFINER",
        "ALTER FUNCTION @.tenants(text, integer) SECURITY INVOKER",
    ] {
        let schema = Schema::new().await;
        schema.execute(&change.replace('@', &schema.name)).await;
        let diagnosis = looked_over(&schema.config()).await;
        assert_eq!(problems(&diagnosis), ["functions"], "{change}: {diagnosis:#?}");
    }
}

#[tokio::test]
async fn settings_that_cost_are_warned_of() {
    let schema = Schema::new().await;
    let name = &schema.name;
    let set = format!(
        "ALTER ROLE {name}_login SET default_transaction_isolation = 'serializable';
         ALTER ROLE {name}_login SET synchronous_commit = off"
    );
    schema.execute(&set).await;
    let diagnosis = looked_over(&schema.config().with_pool_size(1_000_000)).await;
    for name in ["isolation", "durability", "pool"] {
        assert_eq!(check(&diagnosis, name).verdict, Verdict::Warning, "{diagnosis:#?}");
    }
    assert!(check(&diagnosis, "durability").finding.contains("synchronous_commit"));
    assert_eq!(diagnosis.verdict(), Verdict::Warning);
}
