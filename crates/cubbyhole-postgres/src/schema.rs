//! The schema in the database: its migrations, its version and its roles.

/// A step from one version of the schema to the next.
pub(crate) struct Migration {
    pub(crate) name: &'static str,
    sql: &'static str,
}

/// The migrations in order: the first one creates version 1, the second one version 2. A released
/// migration must not change.
pub(crate) const MIGRATIONS: [Migration; 3] = [
    Migration { name: "entries", sql: include_str!("../migrations/0001_entries.sql") },
    Migration { name: "backlog", sql: include_str!("../migrations/0002_backlog.sql") },
    Migration { name: "idle_ttl", sql: include_str!("../migrations/0003_idle_ttl.sql") },
];

/// The version of the schema that this build reads and writes.
pub(crate) const LATEST_VERSION: i32 = MIGRATIONS.len() as i32;

/// Suffixes of the names of the schema's roles. None of the roles can log in.
const ROLES: [&str; 5] = ["app", "sweeper", "enumerator", "operator", "auditor"];

/// Suffixes of the roles that own `SECURITY DEFINER` functions. They have no members.
pub(crate) const FUNCTION_OWNERS: [&str; 2] = ["sweeper", "enumerator"];

impl Migration {
    /// The SQL with the quoted names of the schema and its roles. [`Config`](crate::Config) limits
    /// the name of the schema to letters, digits and `_`.
    pub(crate) fn sql(&self, schema: &str) -> String {
        let mut sql = self.sql.replace("@schema@", &format!("\"{schema}\""));
        for role in ROLES {
            sql = sql.replace(&format!("@{role}@"), &format!("\"{schema}_{role}\""));
        }
        sql
    }
}

/// SQL that creates the roles, the schema and the table of its versions where they are missing.
pub(crate) fn preparation(schema: &str) -> String {
    let mut sql = String::new();
    for role in ROLES {
        // Roles are global to the server: a concurrent migration of another database may have
        // just created this one.
        sql += &format!(
            "DO $$ BEGIN IF to_regrole('{schema}_{role}') IS NULL THEN \
             CREATE ROLE \"{schema}_{role}\" NOLOGIN; END IF; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;\n"
        );
    }
    sql + &format!(
        "CREATE SCHEMA IF NOT EXISTS \"{schema}\";\n\
         CREATE TABLE IF NOT EXISTS \"{schema}\".migrations (\
         version integer PRIMARY KEY, name text NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT now());\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_in_migrations_is_replaced() {
        for migration in &MIGRATIONS {
            assert!(!migration.sql("s").contains('@'), "{}", migration.name);
        }
    }
}
