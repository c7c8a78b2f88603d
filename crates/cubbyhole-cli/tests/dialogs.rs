//! Imports and exports real data on every backend: 5,311 questions and answers in 28 languages.
//!
//! The data is not part of the repository. Without it, these tests are reported as ignored.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Output;

use cubbyhole::{ExecutionContext, GetOptions, Namespace, OpenOptions};
use libtest_mimic::{Arguments, Failed, Trial};
use postgres::Schema;
use redis::{Kind, Prefix};
use serde::Deserialize;
use serde_json::value::RawValue;
use support::{Outcome, tool};
use tempfile::TempDir;

const ENTRIES: usize = 5311;
const NAMESPACES: usize = 237;
/// The first line of an export.
const HEADER: &str = r#"{"format":"cubbyhole-export","version":1}"#;

type MakeTarget = fn() -> Outcome<Target>;
type Case = fn(&Imported) -> Outcome;
/// The bytes of each value by namespace and key.
type Contents = BTreeMap<(Namespace, String), String>;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dialogs.jsonl");
    let present = data.is_file();
    let cases: [(&str, Case); 6] = [
        ("usage_counts_every_entry", usage_counts_every_entry),
        ("export_equals_the_imported_data", export_equals_the_imported_data),
        ("every_key_is_found_by_its_exact_text", every_key_is_found_by_its_exact_text),
        ("tool_finds_keys_by_their_exact_text", tool_finds_keys_by_their_exact_text),
        ("prefix_lists_only_its_namespaces", prefix_lists_only_its_namespaces),
        ("importing_twice_changes_versions_only", importing_twice_changes_versions_only),
    ];
    let targets: [(&str, MakeTarget); 4] = [
        ("file", || Ok(Target::File(tempfile::tempdir()?))),
        ("postgres", in_postgres),
        ("redis", || Ok(Target::Redis(Prefix::new(Kind::Single)?))),
        ("redis_cluster", || Ok(Target::Redis(Prefix::new(Kind::Cluster)?))),
    ];
    let mut trials = Vec::new();
    for (name, case) in cases {
        for (target_name, target) in targets {
            let data = data.clone();
            let run = move || {
                let failed = |error: Box<dyn Error>| Failed::from(error.to_string());
                let imported = Imported::new(target().map_err(failed)?, data).map_err(failed)?;
                case(&imported).map_err(failed)
            };
            let kind = if present { "" } else { "../shared/data/dialogs.jsonl is missing" };
            let trial = Trial::test(format!("{target_name}::{name}"), run);
            trials.push(trial.with_ignored_flag(!present).with_kind(kind));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn in_postgres() -> Outcome<Target> {
    let schema = Schema::new()?;
    schema.grant_operator()?;
    Ok(Target::Postgres(schema))
}

/// The backend and the resources of a store.
enum Target {
    File(TempDir),
    Postgres(Schema),
    Redis(Prefix),
}

/// A separate store with the imported data.
struct Imported {
    target: Target,
    url: String,
    data: PathBuf,
}

impl Imported {
    fn new(target: Target, data: PathBuf) -> Outcome<Self> {
        let url = match &target {
            Target::File(folder) => format!("redb:{}", folder.path().join("d.redb").display()),
            Target::Postgres(schema) => schema.store.clone(),
            Target::Redis(prefix) => prefix.store.clone(),
        };
        let imported = Self { target, url, data };
        imported.import()?;
        Ok(imported)
    }

    fn import(&self) -> Outcome {
        let data = self.data.to_str().ok_or("the path is not UTF-8")?;
        let message = self.call(&["import", data])?.stderr;
        let message = String::from_utf8(message)?;
        let expected = format!("imported {ENTRIES} entries in {NAMESPACES} namespaces in ");
        let complete = message.contains("(0 skipped, 0 already expired)");
        check(message.starts_with(&expected) && complete, &message)
    }

    /// Runs the tool, which must succeed.
    fn call(&self, arguments: &[&str]) -> Outcome<Output> {
        let mut all = vec!["--store", &self.url];
        all.extend(arguments);
        let output = tool(&all)?;
        check(output.status.success(), &format!("{arguments:?}: {output:?}"))?;
        Ok(output)
    }

    fn stdout(&self, arguments: &[&str]) -> Outcome<String> {
        Ok(String::from_utf8(self.call(arguments)?.stdout)?)
    }
}

fn check(holds: bool, message: &str) -> Outcome {
    if holds { Ok(()) } else { Err(message.to_owned().into()) }
}

#[derive(Deserialize)]
struct Line {
    namespace: Namespace,
    key: String,
    value: Box<RawValue>,
}

fn contents(text: &str) -> Outcome<Contents> {
    let mut contents = Contents::new();
    for line in text.lines().filter(|line| *line != HEADER) {
        let Line { namespace, key, value } = serde_json::from_str(line)?;
        contents.insert((namespace, key), value.get().to_owned());
    }
    Ok(contents)
}

fn expected(imported: &Imported) -> Outcome<Contents> {
    let contents = contents(&std::fs::read_to_string(&imported.data)?)?;
    check(contents.len() == ENTRIES, "the data has another number of entries")?;
    Ok(contents)
}

fn usage_counts_every_entry(imported: &Imported) -> Outcome {
    let expected = expected(imported)?;
    let bytes: usize = expected.iter().map(|((_, key), value)| key.len() + value.len()).sum();
    let usage = imported.stdout(&["usage", "corpus", "--json"])?;
    check(usage.lines().count() == NAMESPACES + 1, &usage)?;
    let total = usage.lines().last().unwrap_or_default();
    let line = format!(
        "{{\"prefix\":\"corpus\",\"namespaces\":{NAMESPACES},\"entries\":{ENTRIES},\
         \"bytes\":{bytes},\"next_expiry\":null,"
    );
    check(total.starts_with(&line) && total.ends_with("\"expired\":0}"), total)
}

fn export_equals_the_imported_data(imported: &Imported) -> Outcome {
    let exported = imported.stdout(&["export", "corpus"])?;
    check(exported.lines().count() == ENTRIES + 1, "the export has another number of lines")?;
    check(contents(&exported)? == expected(imported)?, "the export differs from the import")
}

fn every_key_is_found_by_its_exact_text(imported: &Imported) -> Outcome {
    let expected = expected(imported)?;
    // Uses the library, because 5,311 processes would take minutes.
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let ctx = ExecutionContext::new();
        let store = OpenOptions::new().with_create(false).open(&ctx, &imported.url).await?;
        for ((namespace, key), value) in &expected {
            let entry = store.get_entry(&ctx, namespace, key, GetOptions::new()).await?;
            let got = entry.ok_or_else(|| format!("{namespace} {key} is missing"))?.value;
            check(got == value.as_bytes(), &format!("{namespace} {key} has another value"))?;
        }
        store.close(&ctx).await?;
        Ok(())
    })
}

fn tool_finds_keys_by_their_exact_text(imported: &Imported) -> Outcome {
    // Each get is a process, which is slower on a server.
    let most = if matches!(imported.target, Target::File(_)) { 40 } else { 10 };
    let hostile = |key: &str| key.contains(['%', '"', ':', '*', '\'']) || key.starts_with('-');
    let expected = expected(imported)?;
    let picked: Vec<_> = expected.iter().filter(|((_, key), _)| hostile(key)).take(most).collect();
    check(picked.len() == most, "the data has fewer such keys")?;
    for ((namespace, key), value) in picked {
        let got = imported.stdout(&["get", "--", namespace.as_str(), key])?;
        check(&got == value, &format!("{namespace} {key}: {got}"))?;
    }
    Ok(())
}

fn prefix_lists_only_its_namespaces(imported: &Imported) -> Outcome {
    let expected: BTreeSet<String> = expected(imported)?
        .into_keys()
        .filter(|(namespace, _)| namespace.segments().next().as_deref() == Some("english"))
        .map(|(namespace, _)| namespace.to_string())
        .collect();
    check(expected.len() > 1, "the data has no English namespaces")?;
    let listed = imported.stdout(&["namespaces", "corpus:english"])?;
    let lines: Vec<&str> = listed.lines().collect();
    check(lines == expected.iter().collect::<Vec<_>>(), &listed)
}

fn importing_twice_changes_versions_only(imported: &Imported) -> Outcome {
    let ask = ["list", "corpus:english:ai", "--values", "--json"];
    let read = |text: String| -> Outcome<Vec<serde_json::Value>> {
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let before = (imported.stdout(&["export", "--all"])?, read(imported.stdout(&ask)?)?);
    imported.import()?;
    let after = (imported.stdout(&["export", "--all"])?, read(imported.stdout(&ask)?)?);
    check(before.0 == after.0, "the contents changed")?;
    check(!before.1.is_empty() && before.1.len() == after.1.len(), "the listing changed")?;
    for (before, after) in before.1.iter().zip(&after.1) {
        check(before["version"] != after["version"], "a version is unchanged")?;
        check(before["created_at"] == after["created_at"], "created_at changed")?;
    }
    Ok(())
}
