//! The tool on PostgreSQL.

#[cfg(test)]
#[path = "support/postgres.rs"]
mod fixture;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use cubbyhole_testkit::PostgresServer;
    use cubbyhole_testkit::shared::PASSWORD;
    use tempfile::TempDir;

    use crate::fixture::Schema;
    use crate::support::{Outcome, tool, tool_with};

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Runs the tool as the application's role. Its output must not contain the password.
    fn call(schema: &Schema, arguments: &[&str]) -> Outcome<Output> {
        let mut all = vec!["--store", &schema.store];
        all.extend(arguments);
        let output = tool(&all)?;
        assert!(!text(&output.stdout).contains(PASSWORD), "{output:?}");
        assert!(!text(&output.stderr).contains(PASSWORD), "{output:?}");
        Ok(output)
    }

    #[test]
    fn put_get_list_and_take_work() -> Outcome {
        let schema = Schema::new()?;
        let put = call(&schema, &["put", "acme:agent-7", "name", "Ada", "--ttl", "1h"])?;
        assert!(put.status.success(), "{put:?}");
        assert_eq!(text(&call(&schema, &["get", "acme:agent-7", "name", "-vvv"])?.stdout), "Ada");
        assert_eq!(text(&call(&schema, &["list", "acme:agent-7"])?.stdout), "name\n");
        assert_eq!(text(&call(&schema, &["namespaces", "acme"])?.stdout), "acme:agent-7\n");
        let lost = call(&schema, &["put", "acme:agent-7", "name", "Bob", "--if-absent"])?;
        assert_eq!(lost.status.code(), Some(3), "{lost:?}");
        assert_eq!(text(&call(&schema, &["take", "acme:agent-7", "name"])?.stdout), "Ada");
        assert_eq!(call(&schema, &["get", "acme:agent-7", "name"])?.status.code(), Some(1));
        assert!(call(&schema, &["evict"])?.status.success());
        Ok(())
    }

    #[test]
    fn repeated_migration_changes_nothing() -> Outcome {
        let schema = Schema::new()?;
        let again = tool(&["migrate", "--store", &schema.admin_store])?;
        assert!(again.status.success() && again.stdout.is_empty(), "{again:?}");
        assert!(text(&again.stderr).contains("up to date"), "{again:?}");
        // The application's role cannot migrate, and does not need to if the schema is current.
        let denied = call(&schema, &["migrate"])?;
        assert!(denied.status.success(), "{denied:?}");
        Ok(())
    }

    #[test]
    fn listing_tenants_needs_the_operator_role() -> Outcome {
        let schema = Schema::new()?;
        for tenant in ["globex", "acme"] {
            assert!(call(&schema, &["put", tenant, "k", "v"])?.status.success());
        }
        let denied = call(&schema, &["tenants"])?;
        assert_eq!(denied.status.code(), Some(6), "{denied:?}");
        assert!(text(&denied.stderr).contains("_operator"), "{denied:?}");
        schema.grant_operator()?;
        assert_eq!(text(&call(&schema, &["tenants"])?.stdout), "acme\nglobex\n");
        Ok(())
    }

    #[test]
    fn doctor_reports_a_role_that_opening_refuses() -> Outcome {
        let schema = Schema::new()?;
        let sound = call(&schema, &["doctor"])?;
        assert!(sound.status.success(), "{sound:?}");
        let refused = tool(&["--store", &schema.admin_store, "get", "acme", "k"])?;
        assert_eq!(refused.status.code(), Some(6), "{refused:?}");
        assert!(text(&refused.stderr).contains("GRANT"), "{refused:?}");
        let diagnosed = tool(&["--store", &schema.admin_store, "doctor"])?;
        assert_eq!(diagnosed.status.code(), Some(6), "{diagnosed:?}");
        let found = text(&diagnosed.stdout);
        let line = found.lines().find(|line| line.contains("role")).unwrap_or_default();
        assert!(line.starts_with("problem"), "{found}");
        assert!(found.contains("ok       schema"), "{found}");
        Ok(())
    }

    #[test]
    fn demo_succeeds() -> Outcome {
        let schema = Schema::new()?;
        let demo = call(&schema, &["demo"])?;
        assert!(demo.status.success(), "{demo:?}");
        Ok(())
    }

    #[test]
    fn role_without_a_free_connection_slot_is_unavailable() -> Outcome {
        let libpq = Libpq::new()?;
        libpq.server.psql("ALTER ROLE service CONNECTION LIMIT 0")?;
        let set = [("PGUSER", "service"), ("PGPASSWORD", PASSWORD)];
        let refused = libpq.run("postgres://", &["get", "acme", "k"], &set)?;
        assert_eq!(refused.status.code(), Some(5), "{refused:?}");
        assert!(text(&refused.stderr).contains("connection slot"), "{refused:?}");
        Ok(())
    }

    /// A server, and a user with a home folder and libpq's environment.
    struct Libpq {
        server: PostgresServer,
        home: TempDir,
    }

    impl Libpq {
        /// Creates the schema and the role `service` in a database of that name.
        fn new() -> Outcome<Self> {
            let server = PostgresServer::start()?;
            let libpq = Self { server, home: TempDir::new()? };
            libpq.server.psql("CREATE DATABASE service")?;
            let (_, rest) = libpq.server.url().split_once("postgres:").unwrap_or_default();
            let (_, password) = rest.split_once(':').unwrap_or_default();
            let (password, _) = password.split_once('@').unwrap_or_default();
            let admin =
                [("PGUSER", "postgres"), ("PGPASSWORD", password), ("PGDATABASE", "service")];
            let migrated = libpq.run("postgres://", &["migrate"], &admin)?;
            assert!(migrated.status.success(), "{migrated:?}");
            libpq.server.psql(&format!(
                "CREATE ROLE service LOGIN PASSWORD '{PASSWORD}' IN ROLE cubbyhole_app"
            ))?;
            Ok(libpq)
        }

        /// Runs the tool with the socket and the port of the server in its environment. `variables`
        /// override these, and later ones override earlier ones.
        fn run(
            &self,
            url: &str,
            arguments: &[&str],
            variables: &[(&str, &str)],
        ) -> Outcome<Output> {
            let port = self.server.port().to_string();
            let home = self.home.path().to_str().ok_or("not UTF-8")?;
            let socket = self.server.socket_folder().to_str().ok_or("not UTF-8")?;
            let mut all = vec![("HOME", home), ("PGHOST", socket), ("PGPORT", &port)];
            all.extend(variables);
            let mut call = vec!["--store", url];
            call.extend(arguments);
            let output = tool_with(&call, &all)?;
            let output_text = text(&output.stdout) + &text(&output.stderr);
            assert!(!output_text.contains(PASSWORD), "{output_text}");
            Ok(output)
        }

        fn write(&self, name: &str, content: &str) -> Outcome<PathBuf> {
            let file = self.home.path().join(name);
            fs::write(&file, content)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            Ok(file)
        }
    }

    #[test]
    fn libpq_environment_names_server_user_and_password() -> Outcome {
        let libpq = Libpq::new()?;
        let set = [("PGUSER", "service"), ("PGPASSWORD", PASSWORD)];
        let put = libpq.run("postgres://", &["put", "acme", "k", "v"], &set)?;
        assert!(put.status.success(), "{put:?}");
        // Over TCP, and with the database of the URL.
        let tcp = [set[0], set[1], ("PGHOST", "127.0.0.1")];
        let got = libpq.run("postgres:///service", &["get", "acme", "k"], &tcp)?;
        assert_eq!(text(&got.stdout), "v", "{got:?}");
        // With the socket in the URL.
        let url = "postgres://service@/service";
        let folder = libpq.server.socket_folder().display().to_string();
        let got = libpq.run(&format!("{url}?host={folder}"), &["get", "acme", "k"], &set)?;
        assert_eq!(text(&got.stdout), "v", "{got:?}");
        let encoded = format!("postgres://service@{}/service", folder.replace('/', "%2F"));
        let got = libpq.run(&encoded, &["get", "acme", "k"], &set[1..])?;
        assert_eq!(text(&got.stdout), "v", "{got:?}");
        let doctor = libpq.run("postgres://", &["doctor"], &set)?;
        assert!(doctor.status.success(), "{doctor:?}");
        let refused =
            libpq.run("postgres://", &["get", "acme", "k"], &[set[0], ("PGPASSWORD", "no")])?;
        assert_eq!(refused.status.code(), Some(6), "{refused:?}");
        assert!(text(&refused.stderr).contains("PGPASSWORD"), "{refused:?}");
        let unsafe_if_ignored = [set[0], set[1], ("PGREQUIREAUTH", "scram-sha-256")];
        let refused = libpq.run("postgres://", &["get", "acme", "k"], &unsafe_if_ignored)?;
        assert!(!refused.status.success(), "{refused:?}");
        assert!(text(&refused.stderr).contains("PGREQUIREAUTH"), "{refused:?}");
        Ok(())
    }

    #[test]
    fn password_file_and_service_file_are_read() -> Outcome {
        let libpq = Libpq::new()?;
        let get = ["get", "acme", "k"];
        let without = libpq.run("postgres://service@", &get, &[])?;
        assert_eq!(without.status.code(), Some(6), "{without:?}");
        assert!(text(&without.stderr).contains(".pgpass"), "{without:?}");

        let port = libpq.server.port();
        let host = libpq.server.socket_folder().display().to_string();
        let lines = format!("127.0.0.1:*:*:*:wrong\n{host}:{port}:service:service:{PASSWORD}\n");
        let passwords = libpq.write(".pgpass", &lines)?;
        let put = libpq.run("postgres://service@", &["put", "acme", "k", "v"], &[])?;
        assert!(put.status.success(), "{put:?}");
        // The wrong password of the other line is refused, and the message names the file.
        let wrong = libpq.run("postgres://service@127.0.0.1/", &get, &[])?;
        assert_eq!(wrong.status.code(), Some(6), "{wrong:?}");
        assert!(text(&wrong.stderr).contains(".pgpass"), "{wrong:?}");
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o644))?;
        let ignored = libpq.run("postgres://service@", &get, &[])?;
        assert_eq!(ignored.status.code(), Some(6), "{ignored:?}");
        assert!(text(&ignored.stderr).contains("chmod 0600"), "{ignored:?}");
        fs::remove_file(passwords)?;

        let section = format!("[prod]\nhost=127.0.0.1\nuser=service\npassword={PASSWORD}\n");
        libpq.write(".pg_service.conf", &section)?;
        let got = libpq.run("postgres:///?service=prod", &get, &[])?;
        assert_eq!(text(&got.stdout), "v", "{got:?}");
        let got = libpq.run("postgres://", &get, &[("PGSERVICE", "prod")])?;
        assert_eq!(text(&got.stdout), "v", "{got:?}");
        let unknown = libpq.run("postgres://", &get, &[("PGSERVICE", "test")])?;
        assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
        assert!(text(&unknown.stderr).contains("[test]"), "{unknown:?}");
        Ok(())
    }

    #[test]
    fn url_without_host_uses_a_socket() -> Outcome {
        // No server listens on the first port.
        let missing = tool_with(
            &["--store", "postgres:///state", "get", "acme", "k"],
            &[("PGPORT", "1"), ("PGHOST", "")],
        )?;
        assert_eq!(missing.status.code(), Some(5), "{missing:?}");
        assert!(text(&missing.stderr).contains("/.s.PGSQL.1"), "{missing:?}");
        Ok(())
    }

    /// Runs `pg_dump` as a role that bypasses row security, and restores into a new database.
    #[test]
    fn restored_dump_is_a_working_store() -> Outcome {
        let libpq = Libpq::new()?;
        let as_service = [("PGUSER", "service"), ("PGPASSWORD", PASSWORD)];
        for tenant in ["acme", "globex"] {
            let put = libpq.run("postgres://", &["put", tenant, "k", tenant], &as_service)?;
            assert!(put.status.success(), "{put:?}");
        }
        let dump = libpq.home.path().join("state.dump").display().to_string();
        // The application's role cannot dump, because row security hides rows from it.
        let socket = libpq.server.socket_folder().display().to_string();
        let port = libpq.server.port().to_string();
        let own = ["-h", &socket, "-p", &port, "-U", "service", "-Fc", "-f", &dump, "service"];
        let refused = Command::new("pg_dump").args(own).env("PGPASSWORD", PASSWORD).output()?;
        assert!(!refused.status.success(), "{refused:?}");

        let one_tenant = ["-h", &socket, "-p", &port, "-U", "service", "--enable-row-security"];
        let one_tenant = Command::new("pg_dump")
            .args(one_tenant)
            .args(["-n", "cubbyhole", "service"])
            .env("PGPASSWORD", PASSWORD)
            .env("PGOPTIONS", "-c cubbyhole.tenant=acme")
            .output()?;
        assert!(one_tenant.status.success(), "{one_tenant:?}");
        let one_tenant = text(&one_tenant.stdout);
        assert!(
            one_tenant.contains("acme\tk\tacme") && !one_tenant.contains("globex"),
            "{one_tenant}"
        );

        let (address, _) = libpq.server.url().rsplit_once('/').unwrap_or_default();
        let dumped = Command::new("pg_dump")
            .args(["-Fc", "-f", &dump, &format!("{address}/service")])
            .output()?;
        assert!(dumped.status.success(), "{dumped:?}");
        libpq.server.psql("CREATE DATABASE restored")?;
        let restored = Command::new("pg_restore")
            .args(["--exit-on-error", "-d", &format!("{address}/restored"), &dump])
            .output()?;
        assert!(restored.status.success(), "{restored:?}");
        let in_restored = [as_service[0], as_service[1], ("PGDATABASE", "restored")];
        for tenant in ["acme", "globex"] {
            let got = libpq.run("postgres://", &["get", tenant, "k"], &in_restored)?;
            assert_eq!(text(&got.stdout), tenant, "{got:?}");
        }
        let doctor = libpq.run("postgres://", &["doctor"], &in_restored)?;
        assert!(doctor.status.success(), "{doctor:?}");
        assert!(!text(&doctor.stdout).contains("problem"), "{doctor:?}");
        Ok(())
    }

    #[test]
    fn unreachable_server_is_unavailable() -> Outcome {
        let url = format!("postgres://app:{PASSWORD}@127.0.0.1:1/state");
        let missing = tool(&["--store", &url, "get", "acme", "k"])?;
        assert_eq!(missing.status.code(), Some(5), "{missing:?}");
        assert!(!text(&missing.stderr).contains(PASSWORD), "{missing:?}");
        Ok(())
    }
}
