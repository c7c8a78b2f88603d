//! Writes and reads real data with the library: 5,311 questions and answers in 28 languages.
//!
//! The data is in `shared/data`, next to the checkout. Without it, the tests are reported as
//! ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cubbyhole::{
    Backend, Batch, Bytes, EntryStore, ExecutionContext, Namespace, NamespacePrefix, Result,
    ScanOptions, Store, TypedExt,
};
use libtest_mimic::{Arguments, Failed, Trial};

type Dialogs = BTreeMap<(Namespace, String), Vec<String>>;

fn main() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dialogs.jsonl");
    let text = std::fs::read_to_string(&path).ok().map(Arc::<str>::from);
    let trial = |name: &str, in_file: bool| {
        let Some(text) = text.clone() else {
            let name = format!("{name} (the data is missing)");
            return Trial::test(name, || Ok(())).with_ignored_flag(true);
        };
        Trial::test(name, move || run(&text, in_file))
    };
    let trials = vec![trial("dialogs::in_memory", false), trial("dialogs::in_a_file", true)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn run(text: &str, in_file: bool) -> std::result::Result<(), Failed> {
    let dialogs = parse(text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let url = match in_file {
        true => format!("redb:{}", folder.path().join("dialogs.redb").display()),
        false => "memory:".to_owned(),
    };
    runtime.block_on(async {
        let ctx = ExecutionContext::new();
        let mut store = cubbyhole::open(&ctx, &url).await?;
        write(&ctx, &store, &dialogs).await?;
        if in_file {
            // Reads the data from a reopened file.
            store.close(&ctx).await?;
            store = cubbyhole::open(&ctx, &url).await?;
        }
        check(&ctx, &store, &dialogs).await?;
        // Writing the data again must not change it.
        write(&ctx, &store, &dialogs).await?;
        check(&ctx, &store, &dialogs).await
    })?;
    Ok(())
}

fn parse(text: &str) -> std::result::Result<Dialogs, Failed> {
    #[derive(serde::Deserialize)]
    struct Line {
        namespace: Namespace,
        key: String,
        value: Vec<String>,
    }
    let line = |line: &str| {
        let line: Line = serde_json::from_str(line)?;
        Ok(((line.namespace, line.key), line.value))
    };
    text.lines().map(line).collect()
}

async fn write(ctx: &ExecutionContext, store: &Arc<dyn Backend>, dialogs: &Dialogs) -> Result<()> {
    let store = Arc::clone(store).typed::<Vec<String>>();
    let mut batches: BTreeMap<&Namespace, Batch<Vec<String>>> = BTreeMap::new();
    for ((ns, key), value) in dialogs {
        let batch = batches.remove(ns).unwrap_or_default();
        batches.insert(ns, batch.put(key, value.clone()));
    }
    for (ns, batch) in batches {
        store.write(ctx, ns, batch).await?;
    }
    Ok(())
}

async fn check(ctx: &ExecutionContext, bytes: &Arc<dyn Backend>, dialogs: &Dialogs) -> Result<()> {
    let store = Arc::clone(bytes).typed::<Vec<String>>();
    let corpus = NamespacePrefix::parse("corpus")?;
    let usage = store.usage(ctx, &corpus).await?;
    assert_eq!((usage.entries, usage.namespaces), (5_311, 237));

    // Every key is found by its exact text.
    for ((ns, key), value) in dialogs {
        assert_eq!(store.get(ctx, ns, key).await?.as_ref(), Some(value), "{ns} {key:?}");
    }
    // Every listing is complete and exact.
    let namespaces: BTreeSet<&Namespace> = dialogs.keys().map(|(ns, _)| ns).collect();
    let listed = store.list_namespaces(ctx, &corpus).await?;
    assert_eq!(listed.iter().collect::<Vec<_>>(), namespaces.iter().copied().collect::<Vec<_>>());
    for ns in &listed {
        let expected: Vec<&String> = dialogs
            .range((ns.clone(), String::new())..)
            .take_while(|((n, _), _)| n == ns)
            .map(|((_, key), _)| key)
            .collect();
        assert_eq!(store.list(ctx, ns, None).await?.iter().collect::<Vec<_>>(), expected, "{ns}");
    }
    let english = NamespacePrefix::parse("corpus:english")?;
    let expected: Vec<Namespace> = listed
        .into_iter()
        .filter(|ns| ns.segments().next().is_some_and(|s| s == "english"))
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(store.list_namespaces(ctx, &english).await?, expected);
    // Pages have the same data.
    let mut scanned = 0;
    for ns in &expected {
        let mut options = ScanOptions::new().with_limit(7);
        loop {
            let page = bytes.scan(ctx, ns, options.clone()).await?;
            for item in page.items {
                let value = &dialogs[&(ns.clone(), item.key.clone())];
                let stored: Bytes =
                    item.value.ok_or_else(|| cubbyhole::Error::internal("no value"))??;
                assert_eq!(
                    serde_json::from_slice::<Vec<String>>(&stored).ok().as_ref(),
                    Some(value)
                );
                scanned += 1;
            }
            let Some(next) = page.next else { break };
            options = options.with_after(next);
        }
    }
    assert_eq!(scanned, dialogs.keys().filter(|(ns, _)| english.matches(ns)).count());
    Ok(())
}
