//! Checks the schema: its version, the role that uses it, its policies and its functions.

use cubbyhole_core::{Diagnosis, ErrorKind, Result, Verdict};

use super::report::{problem, query};
use crate::connection::Connection;
use crate::inspect::{self, Inspection};
use crate::rows::column;
use crate::schema::LATEST_VERSION;

pub(super) fn check_schema(diagnosis: &mut Diagnosis, found: &Inspection, schema: &str) {
    match found.check_version(schema) {
        Ok(()) => {
            let version = found.version.unwrap_or(0);
            diagnosis.ok("schema", format!("`{schema}`, version {version}"));
        }
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::Unsupported => "use a newer build",
                ErrorKind::PermissionDenied => "grant the role the privileges of the application",
                _ => "run `cubbyhole migrate` as an administrator",
            };
            problem(diagnosis, "schema", &error, advice);
        }
    }
}

pub(super) fn check_role(diagnosis: &mut Diagnosis, found: &Inspection, schema: &str) {
    let role = &found.role;
    if let Some(reason) = found.bypass_reason() {
        let finding = format!("the role `{role}` bypasses row security: {reason}");
        diagnosis.found(Verdict::Problem, "role", finding, inspect::app_role_advice(schema));
        return;
    }
    let membership = match found.row_security {
        Some(_) => found.check_membership(schema),
        // Without a schema there is no role to be a member of.
        None => Ok(()),
    };
    match membership {
        Ok(()) if found.is_operator => {
            diagnosis.ok("role", format!("`{role}`, subject to row security; may list tenants"));
        }
        Ok(()) => diagnosis.ok("role", format!("`{role}`, subject to row security")),
        Err(error) => {
            problem(diagnosis, "role", &error, "grant it the privileges of the application");
        }
    }
}

/// The policies of the schema: name, role, command, `USING` and `WITH CHECK`. `@` is replaced by
/// the schema.
const POLICIES: [[&str; 5]; 4] = [
    ["tenant", "@_app", "ALL", OF_TENANT, OF_TENANT],
    ["audit", "@_auditor", "SELECT", OF_TENANT, ""],
    ["sweep", "@_sweeper", "ALL", "COALESCE(expires_at <= @.clock(), false)", "false"],
    ["enumerate", "@_enumerator", "SELECT", "true", ""],
];
const OF_TENANT: &str = "@.tenant_of(namespace) = current_setting('cubbyhole.tenant'::text, true)";

pub(super) async fn check_policies(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    found: &Inspection,
    schema: &str,
) -> Result<()> {
    if let Err(error) = found.check_row_security(schema) {
        problem(diagnosis, "row security", &error, "enable and force it");
        return Ok(());
    }
    // PostgreSQL qualifies names that are not in the `search_path`. The schema never is.
    let select = "SELECT policyname::text AS name, array_to_string(roles, ',') AS roles, cmd, \
                  coalesce(qual, '') AS using_expr, coalesce(with_check, '') AS check_expr \
                  FROM pg_policies WHERE schemaname = $1 AND tablename = 'entries' \
                  AND permissive = 'PERMISSIVE'";
    let rows = query(connection, select, Some(schema)).await?;
    let normalised = |text: &str| text.replace(['(', ')', '"', ' '], "");
    let mut missing: Vec<[String; 5]> = POLICIES
        .iter()
        .map(|policy| policy.map(|part| normalised(&part.replace('@', schema))))
        .collect();
    let mut unexpected = Vec::new();
    for row in &rows {
        let mut policy = Vec::with_capacity(5);
        for name in ["name", "roles", "cmd", "using_expr", "check_expr"] {
            policy.push(normalised(&column::<String>(row, name)?));
        }
        match missing.iter().position(|known| *known == policy[..]) {
            Some(index) => drop(missing.remove(index)),
            None => unexpected.push(format!("`{}` for {}", policy[0], policy[1])),
        }
    }
    if unexpected.is_empty() && missing.is_empty() {
        diagnosis.ok("row security", "enabled and forced, with the four policies of the schema");
        return Ok(());
    }
    let mut finding = Vec::new();
    if !unexpected.is_empty() {
        finding.push(format!("unexpected or changed policies: {}", unexpected.join(", ")));
    }
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|[name, ..]| format!("`{name}`")).collect();
        finding.push(format!("missing policies: {}", names.join(", ")));
    }
    diagnosis.found(
        Verdict::Problem,
        "row security",
        finding.join("; "),
        "policies are combined with OR, so an additional one can show a tenant the rows of another: \
         drop it, and create missing ones as in `migrations/0001_entries.sql`",
    );
    Ok(())
}

/// Checks the owners of the `SECURITY DEFINER` functions. The functions run with the privileges of
/// their owners. Each owner must therefore be the role that the schema defines for that function,
/// without other privileges.
pub(super) async fn check_owners(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    found: &Inspection,
    schema: &str,
) -> Result<()> {
    let select = "SELECT p.proname::text AS name, r.rolname::text AS owner, \
                  r.rolsuper OR r.rolbypassrls OR r.rolcanlogin AS privileged \
                  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                  JOIN pg_roles r ON r.oid = p.proowner \
                  WHERE n.nspname = $1 AND p.prosecdef ORDER BY p.proname";
    let rows = query(connection, select, Some(schema)).await?;
    let mut findings = Vec::new();
    for row in &rows {
        let (name, owner): (String, String) = (column(row, "name")?, column(row, "owner")?);
        let expected = match name.as_str() {
            "evict" | "backlog" => format!("{schema}_sweeper"),
            "tenants" => format!("{schema}_enumerator"),
            _ => String::new(),
        };
        if owner != expected || column(row, "privileged")? {
            findings.push(format!("`{name}` is owned by `{owner}`"));
        }
    }
    // Other versions of the schema may have other functions. `check_schema` reports the version.
    let is_complete =
        rows.len() == 3 || found.version.is_some_and(|version| version != LATEST_VERSION);
    if !is_complete && findings.is_empty() {
        findings.push(format!("there are {} instead of 3", rows.len()));
    }
    if findings.is_empty() {
        diagnosis.ok("functions", "the functions across tenants run as their own roles");
    } else {
        diagnosis.found(
            Verdict::Problem,
            "functions",
            format!("unexpected SECURITY DEFINER functions or owners: {}", findings.join(", ")),
            "make `<schema>_sweeper` the owner of `evict` and `backlog`, and `<schema>_enumerator` the \
             owner of `tenants`; these roles must not be able to log in; drop any other such function",
        );
    }
    Ok(())
}
