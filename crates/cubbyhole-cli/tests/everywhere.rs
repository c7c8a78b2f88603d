//! Every command on every backend.

#[cfg(test)]
#[path = "support/postgres.rs"]
mod postgres;
#[cfg(test)]
#[path = "support/redis.rs"]
mod redis;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Child, Command, Output, Stdio};

    use cubbyhole::{Backend, ErrorKind, ExecutionContext, OpenOptions};
    use cubbyhole_conformance::read_only::{answers, check_refusals};
    use tempfile::TempDir;

    use crate::postgres::Schema;
    use crate::redis::{Kind, Prefix};
    use crate::support::{Outcome, program, tool};

    /// One store on each backend.
    struct Stores {
        folder: TempDir,
        schema: Schema,
        single: Prefix,
        cluster: Prefix,
    }

    impl Stores {
        fn new() -> Outcome<Self> {
            let schema = Schema::new()?;
            schema.grant_operator()?;
            Ok(Self {
                folder: tempfile::tempdir()?,
                schema,
                single: Prefix::new(Kind::Single)?,
                cluster: Prefix::new(Kind::Cluster)?,
            })
        }

        fn file(&self, name: &str) -> String {
            self.folder.path().join(name).display().to_string()
        }

        /// The PostgreSQL store has fewer connections than the tool has concurrent calls.
        fn all(&self) -> [String; 4] {
            [
                format!("redb:{}", self.file("store.redb")),
                format!("{}&pool_size=2", self.schema.store),
                self.single.store.clone(),
                self.cluster.store.clone(),
            ]
        }
    }

    /// Every layer that does not refuse commands, with keys in the same store.
    const LAYERS: &str = r#"
        limit = { value_bytes = "64KiB", rate = 1000, concurrency = 100 }
        ttl = { default = "30d", max = "90d" }
        cache = true
        timeout = { read = "30s", write = "30s", walk = "30s" }
        retry = true
        compression = true
        encryption = { key_file = "keys" }
    "#;

    impl Stores {
        /// Writes a configuration with a layered profile for each store, and returns the profiles as
        /// `FILE#PROFILE`. The profile `owner` is the PostgreSQL store of its owner.
        fn layered(&self) -> Outcome<[String; 4]> {
            let stores = self.all();
            let file = self.file("config.toml");
            let mut text = String::new();
            let owner = self.owner_of_schema();
            for (name, store) in
                ["0", "1", "2", "3", "owner"].iter().zip(stores.iter().chain([&owner]))
            {
                text.push_str(&format!(
                    "[profiles.{name}]\nstore = \"{store}\"\n[profiles.{name}.layers]{LAYERS}\n"
                ));
            }
            std::fs::write(&file, text)?;
            let made = tool(&["key", "generate", &self.file("keys")])?;
            assert!(made.status.success(), "{made:?}");
            Ok(["0", "1", "2", "3"].map(|name| format!("{file}#{name}")))
        }

        fn owner_of_schema(&self) -> String {
            format!("{}&allow_unbound_role=on", self.schema.admin_store)
        }

        /// On PostgreSQL only the owner can compact, which is a superuser here.
        fn owner(&self, store: &str) -> String {
            match store.strip_suffix("#1") {
                Some(file) => format!("{file}#owner"),
                None if store.starts_with(&self.schema.store) => self.owner_of_schema(),
                None => store.to_owned(),
            }
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Runs the tool with a store: a URL, or the profile `FILE#PROFILE`.
    fn call(store: &str, arguments: &[&str]) -> Outcome<Output> {
        match store.split_once('#') {
            Some((file, profile)) => {
                tool(&[&["--config", file, "--profile", profile], arguments].concat())
            }
            None => tool(&[&["--store", store], arguments].concat()),
        }
    }

    /// Runs the tool, which must succeed, and returns its output.
    fn stdout_of(store: &str, arguments: &[&str]) -> Outcome<String> {
        let output = call(store, arguments)?;
        assert!(output.status.success(), "{store} {arguments:?}: {output:?}");
        Ok(text(&output.stdout))
    }

    fn json(store: &str, arguments: &[&str]) -> Outcome<serde_json::Value> {
        Ok(serde_json::from_str(&stdout_of(store, &[arguments, &["--json"]].concat())?)?)
    }

    fn code(store: &str, arguments: &[&str]) -> Outcome<Option<i32>> {
        Ok(call(store, arguments)?.status.code())
    }

    /// Lines of an import. Every second entry has an expiry in the far future, and every fourth also
    /// an idle TTL.
    fn lines(entries: usize) -> String {
        (0..entries)
            .map(|number| {
                let agent = number % 40;
                let expiry = match number % 4 {
                    0 => r#","expires_at":"2999-01-01T00:00:00Z","idle_ttl":"1d""#,
                    2 => r#","expires_at":"2999-01-01T00:00:00Z""#,
                    _ => "",
                };
                format!(
                    "{{\"namespace\":[\"acme\",\"agent-{agent}\"],\"key\":\"turn {number:05}\",\
                     \"value\":{{\"text\":\"% _ * ? [ : é {number}\"}}{expiry}}}\n"
                )
            })
            .collect()
    }

    /// The tool fills the store, and the library opens it read-only.
    #[test]
    fn read_only_store_refuses_writes_on_every_backend() -> Outcome {
        let stores = Stores::new()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        for url in &stores.all() {
            stdout_of(url, &["put", "acme:agent-7", "name", "\"Ada\"", "--ttl", "1h"])?;
            for key in ["a", "b", "c", "d"] {
                stdout_of(url, &["put", "acme", key, "1"])?;
            }
            let open = |options: OpenOptions| {
                runtime.block_on(async move { options.open(&ExecutionContext::new(), url).await })
            };
            let close =
                |store: &dyn Backend| runtime.block_on(store.close(&ExecutionContext::new()));
            let store = open(OpenOptions::new())?;
            let expected = runtime.block_on(answers(&store))?;
            close(&store)?;
            let store = open(OpenOptions::new().with_read_only(true))?;
            assert_eq!(runtime.block_on(answers(&store))?, expected, "{url}");
            runtime.block_on(check_refusals(&store, "2".into()))?;
            let compact = runtime.block_on(store.compact(&ExecutionContext::new()));
            let kind = compact.map_err(|error| error.kind()).err();
            assert_eq!(kind, Some(ErrorKind::PermissionDenied), "{url}");
            close(&store)?;
        }
        Ok(())
    }

    #[test]
    fn every_command_works_on_every_backend() -> Outcome {
        let stores = Stores::new()?;
        run_every_command(&stores, &stores.all())
    }

    #[test]
    fn every_command_works_through_all_layers_on_every_backend() -> Outcome {
        let stores = Stores::new()?;
        let layered = stores.layered()?;
        run_every_command(&stores, &layered)?;
        for (store, url) in layered.iter().zip(&stores.all()) {
            stdout_of(store, &["put", "acme:a", "k", "s3cret"])?;
            assert!(!stdout_of(url, &["export", "acme"])?.contains("s3cret"), "{url}");
        }
        stdout_of(&layered[0], &["key", "rotate", &stores.file("keys")])?;
        for store in &layered {
            let counts = json(store, &["reencrypt", "acme"])?;
            assert_eq!((&counts["rewritten"], &counts["new_data_keys"]), (&1.into(), &1.into()));
            assert_eq!(stdout_of(store, &["get", "acme:a", "k"])?, "s3cret");
            assert_eq!(json(store, &["key", "shred", "acme", "--yes"])?["data_keys"], 2, "{store}");
            assert_eq!(code(store, &["get", "acme:a", "k"])?, Some(6), "{store}");
            assert_eq!(json(store, &["reencrypt", "--all"])?["shredded"], 1, "{store}");
        }
        Ok(())
    }

    fn run_every_command(stores: &Stores, all: &[String; 4]) -> Outcome {
        for store in all {
            stdout_of(store, &["put", "acme:agent-7", "name", "\"Ada\"", "--ttl", "1h"])?;
            stdout_of(store, &["put", "acme:agent-7", "gone", "1", "--ttl", "1ms"])?;
            stdout_of(store, &["put", "acme", "counter", "1", "--json-value"])?;
            stdout_of(store, &["put", "globex", "counter", "2"])?;
            assert_eq!(code(store, &["put", "acme", "counter", "2", "--if-absent"])?, Some(3));
            assert_eq!(stdout_of(store, &["get", "acme:agent-7", "name"])?, "\"Ada\"");
            assert_eq!(code(store, &["get", "acme:agent-7", "gone"])?, Some(1));
            assert_eq!(stdout_of(store, &["list", "acme:agent-7"])?, "name\n");
            assert_eq!(stdout_of(store, &["tenants"])?, "acme\nglobex\n");
            assert_eq!(stdout_of(store, &["namespaces", "acme"])?, "acme\nacme:agent-7\n");
            stdout_of(store, &["touch", "acme:agent-7", "name", "--persist"])?;
            stdout_of(store, &["put", "acme:s", "s-1", "1", "--idle-ttl", "30m"])?;
            let session = json(store, &["get", "acme:s", "s-1", "--refresh"])?;
            assert_eq!(session["idle_ttl"], "30m", "{store}");
            let version = session["version"].as_str().ok_or("no version")?;
            let touch = ["touch", "acme:s", "s-1", "--idle-ttl", "1h", "--if-version", version];
            stdout_of(store, &touch)?;
            stdout_of(store, &["put", "acme:s", "s-1", "2", "--if-present"])?;
            assert_eq!(code(store, &touch)?, Some(3), "{store}");
            assert_eq!(code(store, &["delete", "acme:s", "s-2", "--if-present"])?, Some(3));
            stdout_of(store, &["put", "acme:s", "t", "3"])?;
            assert_eq!(code(store, &["delete", "acme:s", "--prefix", "s-"])?, Some(2));
            let deleted = json(store, &["delete", "acme:s", "--prefix", "s-", "--yes"])?;
            assert_eq!((&deleted["removed"], &deleted["left"]), (&1.into(), &0.into()));
            assert_eq!(stdout_of(store, &["take", "acme:s", "t"])?, "3");
            assert_eq!(json(store, &["evict"])?["evicted"], 1, "{store}");
            let usage = stdout_of(store, &["usage", "acme", "--json"])?;
            let total: serde_json::Value =
                serde_json::from_str(usage.lines().last().ok_or("no total")?)?;
            assert_eq!((&total["entries"], &total["expired"]), (&2.into(), &0.into()), "{usage}");
            for name in ["all.jsonl", "all.jsonl.zst"] {
                let file = stores.file(name);
                stdout_of(store, &["export", "--all", &file])?;
                stdout_of(store, &["import", &file])?;
                assert_eq!(stdout_of(store, &["list", "acme"])?, "counter\n");
            }
            assert_eq!(stdout_of(store, &["take", "globex", "counter"])?, "2");
            stdout_of(store, &["delete", "acme", "counter"])?;
            let diagnosis = json(store, &["doctor"])?;
            assert_ne!(diagnosis["verdict"], "problem", "{diagnosis}");
            stdout_of(&stores.owner(store), &["compact"])?;
            stdout_of(store, &["demo"])?;
            stdout_of(store, &["erase", "acme", "--dry-run"])?;
            assert_eq!(code(store, &["erase", "acme"])?, Some(2));
            assert_eq!(json(store, &["erase", "acme", "--yes"])?["removed"], 1, "{store}");
            assert_eq!(code(store, &["export", "acme"])?, Some(1));
        }
        // Migration needs a role that can change the schema.
        stdout_of(&stores.schema.admin_store, &["migrate"])?;
        for store in [&all[0], &all[2], &all[3]] {
            stdout_of(store, &["migrate"])?;
        }
        Ok(())
    }

    #[test]
    fn copy_within_one_store_gives_another_prefix() -> Outcome {
        const ENTRIES: usize = 500;
        let stores = Stores::new()?;
        let data = stores.file("data.jsonl");
        std::fs::write(&data, lines(ENTRIES))?;
        for store in &stores.all() {
            stdout_of(store, &["import", &data])?;
            let exported = |prefix: &str| stdout_of(store, &["export", prefix]);
            let before = exported("acme")?;
            let copy = ["copy", "acme", "--to", store, "--as", r"glo\:bex:x", "--verify"];
            let copied = json(store, &copy)?;
            assert_eq!((&copied["copied"], &copied["skipped"]), (&ENTRIES.into(), &0.into()));
            assert_eq!(copied["verified"]["equal"], true, "{copied}");
            let again = json(store, &copy)?;
            assert_eq!((&again["copied"], &again["skipped"]), (&0.into(), &ENTRIES.into()));
            let expected = before.replace(r#"["acme","#, r#"["glo:bex","x","#);
            assert_eq!(exported(r"glo\:bex")?, expected, "{store}");
            // The same store by another URL has the same versions.
            let other_url = match store.split_once(':').map_or("", |(scheme, _)| scheme) {
                "postgres" => format!("{store}&connect_timeout=9"),
                "redb" => format!("{store}?durability=relaxed"),
                _ => format!("{store}&connections=2"),
            };
            for to in [store, &other_url] {
                let copy = call(store, &["copy", "acme", "--to", to, "--as", "acme:agent-1"])?;
                assert_eq!(copy.status.code(), Some(2), "{to}: {copy:?}");
                assert!(text(&copy.stderr).contains("acme and acme:agent-1"), "{copy:?}");
            }
            assert_eq!(exported("acme")?, before, "{store}");
        }
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn evict_service_sweeps_until_it_is_stopped() -> Outcome {
        use std::io::{BufRead, BufReader, Read};

        let stores = Stores::new()?;
        for store in &stores.all() {
            stdout_of(store, &["put", "acme", "gone", "1", "--ttl", "1ms"])?;
            let mut service = start(store, &["evict", "--every", "20ms", "--json"])?;
            let mut lines = BufReader::new(service.stdout.take().ok_or("no stdout")?).lines();
            let mut evicted = 0;
            // The entry may expire after the first sweep has begun.
            for _ in 0..3 {
                let line = lines.next().ok_or("it ended")??;
                let sweep: serde_json::Value = serde_json::from_str(&line)?;
                evicted += sweep["evicted"].as_u64().ok_or("no number")?;
                assert!(sweep["next_seconds"].as_f64().is_some_and(|next| next < 0.1), "{sweep}");
            }
            assert_eq!(evicted, 1, "{store}");
            let pid = service.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
            let mut stderr = String::new();
            service.stderr.take().ok_or("no stderr")?.read_to_string(&mut stderr)?;
            assert_eq!((service.wait()?.code(), stderr.as_str()), (Some(0), ""), "{store}");
        }
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn evict_service_retries_while_the_server_is_down() -> Outcome {
        use std::io::{BufRead, BufReader};

        // No server listens on port 1.
        let mut service = start("redis://127.0.0.1:1", &["evict", "--every", "10ms"])?;
        let mut lines = BufReader::new(service.stderr.take().ok_or("no stderr")?).lines();
        for wait in ["20ms", "40ms", "80ms", "160ms", "160ms"] {
            let line = lines.next().ok_or("it ended")??;
            assert!(line.ends_with(&format!("; again in {wait}")), "{line}");
        }
        let pid = service.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status()?.success());
        let last = lines.map_while(Result::ok).last().ok_or("no last line")?;
        assert!(
            last.ends_with("stopped after 0 sweeps; 0 expired entries removed by completed sweeps"),
            "{last}"
        );
        assert_eq!(service.wait()?.code(), Some(0));
        // A missing file is not retried.
        assert_eq!(code("redb:/no/such/file", &["evict", "--every", "10ms"])?, Some(5));
        Ok(())
    }

    #[test]
    fn copy_round_trips_through_every_backend() -> Outcome {
        const ENTRIES: usize = 1500;
        let stores = Stores::new()?;
        let data = stores.file("data.jsonl");
        std::fs::write(&data, lines(ENTRIES))?;
        let all = stores.all();
        let back = format!("redb:{}", stores.file("back.redb"));
        stdout_of(&all[0], &["import", &data])?;
        let ring = all.iter().chain([&back]).collect::<Vec<_>>();
        let mut digests = Vec::new();
        for pair in ring.windows(2) {
            let trial = json(pair[0], &["copy", "--all", "--to", pair[1], "--dry-run"])?;
            assert_eq!(trial["copied"], ENTRIES, "{pair:?}");
            let copied = json(pair[0], &["copy", "--all", "--to", pair[1], "--verify"])?;
            assert_eq!((&copied["copied"], &copied["skipped"]), (&ENTRIES.into(), &0.into()));
            assert_eq!(copied["verified"]["equal"], true, "{copied}");
            let again = json(pair[0], &["copy", "acme", "--to", pair[1]])?;
            assert_eq!((&again["copied"], &again["skipped"]), (&0.into(), &ENTRIES.into()));
            digests.push(copied["verified"]["target"]["sha256"].clone());
        }
        digests.dedup();
        assert_eq!(digests.len(), 1, "{digests:?}");
        let (first, last) =
            (stdout_of(&all[0], &["export", "acme"])?, stdout_of(&back, &["export", "acme"])?);
        assert_eq!(first, last);
        Ok(())
    }

    fn start(store: &str, arguments: &[&str]) -> Outcome<Child> {
        let mut command = program::tool();
        program::isolate(&mut command, Path::new(env!("CARGO_TARGET_TMPDIR")));
        Ok(command
            .args([&["--store", store], arguments].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    #[test]
    fn killed_copy_is_completed_by_the_next_copy() -> Outcome {
        const ENTRIES: usize = 6000;
        let stores = Stores::new()?;
        let data = stores.file("data.jsonl");
        std::fs::write(&data, lines(ENTRIES))?;
        let all = stores.all();
        stdout_of(&all[0], &["import", &data])?;
        for target in &all[1..] {
            let mut copy = start(&all[0], &["copy", "acme", "--to", target])?;
            // Kill the copy once the target has entries. The assertions also hold if it has all of
            // them.
            while json(target, &["usage", "acme", "--depth", "0"])?["entries"] == 0 {
                assert!(copy.try_wait()?.is_none_or(|ended| ended.success()), "it failed");
            }
            copy.kill()?;
            copy.wait()?;
            let copied = json(&all[0], &["copy", "acme", "--to", target, "--verify"])?;
            let skipped = copied["skipped"].as_u64().ok_or("no number")?;
            assert!(skipped > 0, "{copied}");
            assert_eq!(copied["copied"], ENTRIES as u64 - skipped, "{copied}");
            assert_eq!(copied["verified"]["equal"], true, "{copied}");
        }
        Ok(())
    }
}
