//! Objects in the caller's `search_path` must not shadow the functions, operators and tables that
//! the schema uses.

use super::*;

/// Creates objects in the schema `?` that shadow the names that the schema's functions use.
const SHADOWS: &str = "
    CREATE TABLE ?.entries (namespace text, key text, expires_at bigint);
    INSERT INTO ?.entries VALUES ('b:x', 'k', 0), ('b', 'j', 0);
    CREATE FUNCTION ?.clock() RETURNS bigint LANGUAGE sql
        AS 'SELECT 99999999999999';
    CREATE FUNCTION ?.clock_timestamp() RETURNS timestamptz LANGUAGE sql
        AS $$ SELECT '9000-01-01'::timestamptz $$;
    CREATE FUNCTION ?.floor(double precision) RETURNS double precision LANGUAGE sql
        AS 'SELECT 99999999999999.0::double precision';
    CREATE FUNCTION ?.date_part(text, timestamptz) RETURNS double precision LANGUAGE sql
        AS 'SELECT 99999999999.0::double precision';
    CREATE FUNCTION ?.least(integer, integer) RETURNS integer LANGUAGE sql
        AS 'SELECT 1000000';
    CREATE FUNCTION ?.always(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        IF current_user <> session_user THEN
            RAISE EXCEPTION 'this runs with the rights of %', current_user;
        END IF;
        RETURN true;
    END $$;
    CREATE OPERATOR ?.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = ?.always);
    CREATE FUNCTION ?.times(double precision, integer) RETURNS double precision
        LANGUAGE sql AS 'SELECT 99999999999999.0::double precision';
    CREATE OPERATOR ?.* (LEFTARG = double precision, RIGHTARG = integer,
        FUNCTION = ?.times);
    CREATE FUNCTION ?.split_part(text, text, integer) RETURNS text LANGUAGE sql IMMUTABLE
        AS $$ SELECT 'a'::text $$;
    CREATE FUNCTION ?.strpos(text, text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 0';
    CREATE FUNCTION ?.current_setting(text, boolean) RETURNS text LANGUAGE sql STABLE
        AS $$ SELECT 'b'::text $$;
    CREATE FUNCTION ?.set_config(text, text, boolean) RETURNS text LANGUAGE sql
        AS $$ SELECT 'b'::text $$;";

/// Creates a schema that the application's role owns, a privilege that it normally lacks.
async fn own_schema(t: &Tenants) -> String {
    let name = format!("{}_own", t.schema.name);
    let sql = format!(
        "CREATE SCHEMA {name} AUTHORIZATION {}_login; GRANT USAGE ON SCHEMA {name} TO PUBLIC",
        t.schema.name
    );
    t.schema.execute(&sql).await;
    name
}

#[tokio::test]
async fn row_security_ignores_the_callers_search_path() {
    let t = Tenants::as_a().await;
    let before = t.of_b().await;
    let own = own_schema(&t).await;
    t.login.batch_execute(&SHADOWS.replace('?', &own)).await.unwrap();
    for path in [format!("{own}, pg_catalog"), format!("{own}, {}, pg_catalog", t.schema.name)] {
        t.login.batch_execute(&format!("SET search_path = {path}")).await.unwrap();
        let seen = "SELECT count(*) FROM @.entries WHERE tenant OPERATOR(pg_catalog.=) 'b'";
        assert_eq!(t.one::<i64>(seen).await, 0, "{path}");
        let seen = "SELECT count(*) FROM @.documents";
        assert_eq!(t.one::<i64>(seen).await, 1, "{path}");
        assert_eq!(t.rows("UPDATE @.entries SET value = 'mine'").await, 1, "{path}");
        t.assert_rejected(&insert("b", "b:new", "squatter")).await;
        t.assert_rejected(&insert("a", "b:new", "squatter")).await;
        assert_eq!(t.rows("DELETE FROM @.entries WHERE key = 'j'").await, 0, "{path}");
    }
    assert_eq!(t.of_b().await, before);
}

/// Shadows the other functions and operators of the constraint, so the constraint accepts every row.
const ACCEPT_ALL: &str = "
    CREATE FUNCTION ?.substring(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'a' $$;
    CREATE FUNCTION ?.octet_length(text) RETURNS integer LANGUAGE sql AS 'SELECT 0';
    CREATE FUNCTION ?.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION ?.no(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION ?.yes(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION ?.yes(bigint, integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR ?.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = ?.no);
    CREATE OPERATOR ?.!~ (LEFTARG = text, RIGHTARG = text, FUNCTION = ?.no);
    CREATE OPERATOR ?.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = ?.yes);
    CREATE OPERATOR ?.<= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = ?.yes);
    CREATE OPERATOR ?.>= (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = ?.yes)";

#[tokio::test]
async fn row_constraint_holds_under_all_settings() {
    let t = Tenants::as_a().await;
    let own = own_schema(&t).await;
    t.login.batch_execute(&format!("{SHADOWS}{ACCEPT_ALL}").replace('?', &own)).await.unwrap();
    let path = format!("SET search_path = {own}, pg_catalog");
    let before = t.all().await;
    let long = "x".repeat(1025);
    for setting in [path.as_str(), "SET standard_conforming_strings = off", "RESET ALL"] {
        t.login.batch_execute(&format!("{setting}; SET cubbyhole.tenant = 'a'")).await.unwrap();
        // The rows belong to the current tenant, so row security permits them.
        for (name, key) in
            [("a:\\x", "k"), ("a:x\\", "k"), (&*format!("a:{long}"), "k"), ("a:x", &*long)]
        {
            let (code, message) = t.rejection(&insert("a", name, key)).await;
            assert_eq!(code, "23514", "{setting} {name}: {message}");
        }
        for tenant in ["", "b", "a:x"] {
            t.assert_rejected(&insert(tenant, "a:x", "new")).await;
        }
        for instant in ["-1", "253402300800000"] {
            let changed = format!("UPDATE @.entries SET updated_at = {instant}");
            assert_eq!(t.rejection(&changed).await.0, "23514", "{setting} {instant}");
        }
    }
    assert_eq!(t.all().await, before);
    // Valid rows are accepted.
    for name in ["a", "a:", "a:x\\:y\\\\:z", "a:\n%"] {
        assert_eq!(t.rows(&insert("a", name, "right")).await, 1, "{name}");
    }
}

#[tokio::test]
async fn sweep_cannot_be_tricked_into_removing_live_entries() {
    let t = Tenants::as_a().await;
    let own = own_schema(&t).await;
    t.schema.execute(&t.schema.row("b:x", "expiring", Some(9_999_999_999_999))).await;
    let before = t.all().await;
    for place in [own.as_str(), "pg_temp"] {
        let equal = "
            CREATE FUNCTION ?.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
            CREATE OPERATOR ?.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ?.always)";
        let shadows = format!("{SHADOWS}{equal}").replace('?', place);
        t.login.batch_execute(&shadows).await.unwrap();
        for path in [format!("{place}, pg_catalog, {}", t.schema.name), place.to_owned()] {
            t.login.batch_execute(&format!("SET search_path = {path}")).await.unwrap();
            t.schema.execute(&t.schema.row("b:x", "gone", Some(1))).await;
            assert_eq!(t.one::<i64>("SELECT @.evict(1000)").await, 1, "{path}");
            assert_eq!(t.all().await, before, "{path}");
        }
    }
    // Session settings have no effect either.
    for setting in ["cubbyhole.tenant = 'b'", "row_security = off", "TimeZone = '-167'"] {
        t.login.batch_execute(&format!("RESET search_path; SET {setting}")).await.unwrap();
        let swept = t.login.query_one(&t.sql("SELECT @.evict(1000)"), &[]).await;
        let swept = swept.map_or(0, |row| row.get::<_, i64>(0));
        assert_eq!((swept, t.all().await), (0, before.clone()), "{setting}");
    }
    t.login.batch_execute("RESET row_security").await.unwrap();
    assert_eq!(t.rejection("SELECT @.evict(-1)").await.0, "2201W");
}
