//! The tool on PostgreSQL: what an operator does there.

#[cfg(test)]
#[path = "support/postgres.rs"]
mod places;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::process::Output;

    use crate::places::{PASSWORD, Schema};
    use crate::support::{Outcome, tool};

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Runs the tool on the application's store, and looks for the password in what it says.
    fn call(schema: &Schema, arguments: &[&str]) -> Outcome<Output> {
        let mut all = vec!["--store", &schema.store];
        all.extend(arguments);
        let output = tool(&all)?;
        assert!(!text(&output.stdout).contains(PASSWORD), "{output:?}");
        assert!(!text(&output.stderr).contains(PASSWORD), "{output:?}");
        Ok(output)
    }

    #[test]
    fn entries_are_put_got_listed_and_taken() -> Outcome {
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
    fn migrating_again_says_that_there_is_nothing_to_do() -> Outcome {
        let schema = Schema::new()?;
        let again = tool(&["migrate", "--store", &schema.admin_store])?;
        assert!(again.status.success() && again.stdout.is_empty(), "{again:?}");
        assert!(text(&again.stderr).contains("up to date"), "{again:?}");
        // The application's role may not, and need not.
        let denied = call(&schema, &["migrate"])?;
        assert!(denied.status.success(), "{denied:?}");
        Ok(())
    }

    #[test]
    fn tenants_are_listed_once_the_role_may() -> Outcome {
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
    fn the_doctor_sees_a_role_that_opening_refuses() -> Outcome {
        let schema = Schema::new()?;
        let sound = call(&schema, &["doctor"])?;
        assert!(sound.status.success(), "{sound:?}");
        let refused = tool(&["--store", &schema.admin_store, "get", "acme", "k"])?;
        assert_eq!(refused.status.code(), Some(6), "{refused:?}");
        assert!(text(&refused.stderr).contains("GRANT"), "{refused:?}");
        let looked = tool(&["--store", &schema.admin_store, "doctor"])?;
        assert_eq!(looked.status.code(), Some(6), "{looked:?}");
        let found = text(&looked.stdout);
        let line = found.lines().find(|line| line.contains("role")).unwrap_or_default();
        assert!(line.starts_with("problem"), "{found}");
        assert!(found.contains("ok       schema"), "{found}");
        Ok(())
    }

    #[test]
    fn the_demo_runs() -> Outcome {
        let schema = Schema::new()?;
        let demo = call(&schema, &["demo"])?;
        assert!(demo.status.success(), "{demo:?}");
        Ok(())
    }

    #[test]
    fn a_server_that_is_not_there_is_unavailable() -> Outcome {
        let url = format!("postgres://app:{PASSWORD}@127.0.0.1:1/state");
        let missing = tool(&["--store", &url, "get", "acme", "k"])?;
        assert_eq!(missing.status.code(), Some(5), "{missing:?}");
        assert!(!text(&missing.stderr).contains(PASSWORD), "{missing:?}");
        Ok(())
    }
}
