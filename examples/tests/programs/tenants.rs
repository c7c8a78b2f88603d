//! `tenants`: quotas, default TTLs, encrypted values, and a tenant that is erased by shredding.

use std::sync::Arc;

use cubbyhole::layers::{Encrypted, KeyFile};
use cubbyhole::{
    EntryStore, ErrorKind, Namespace, NamespacePrefix, RecursiveScanOptions, Store, TenantId,
};
use cubbyhole_examples::KEY_FILE_VARIABLE;

use crate::support::{ENVELOPE, Place, TestResult, TestStore, on_each_store};

/// The tenants that the program does not erase.
const KEPT: [&str; 2] = ["acme", "globex"];
/// A part of values that must not be stored unencrypted.
const PLAINTEXT: &[u8] = b"secret plan";

fn check(test_store: &TestStore) -> TestResult {
    // The tenant that the first run erased does not affect the second run.
    let erased = [run(test_store)?, run(test_store)?];
    check_stored(test_store, &erased)?;
    check_decrypted(test_store, &erased)?;
    if let Place::File = test_store.place {
        let file = std::fs::read(test_store.folder().join("store.redb"))?;
        assert!(!contains(&file, PLAINTEXT), "the file contains a plain value");
        assert!(contains(&file, ENVELOPE));
    }
    Ok(())
}

on_each_store!(check);

/// Runs the program and checks its output. Returns the tenant that it has erased.
fn run(test_store: &TestStore) -> TestResult<String> {
    let mut command = test_store.command(env!("CARGO_BIN_EXE_tenants"));
    // Tests both ways to name the key file.
    match test_store.place {
        Place::File => command.arg(test_store.url()).env(KEY_FILE_VARIABLE, test_store.key_file()),
        _ => command.arg(test_store.url()).arg(test_store.key_file()),
    };
    let output = command.output()?;
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout)?;
    let printed: Vec<&str> = printed.lines().collect();
    let expected = [
        "three tenants wrote a note under the same name",
        "acme reads its own note and reaches no other tenant",
        "the note expires in 30 days, although no TTL was set",
        "the backend has ",
        "globex used up its quota: ",
        "acme goes on meanwhile",
        "globex goes on after a pause",
        "trial-",
        "acme still reads its note",
        "globex still reads its note",
    ];
    assert_eq!(printed.len(), expected.len(), "{printed:#?}");
    for (printed, expected) in printed.iter().zip(expected) {
        assert!(printed.starts_with(expected), "`{printed}` instead of `{expected}`");
    }
    let erased = printed[7].split_once(" was erased: ").ok_or("no tenant was erased")?;
    Ok(erased.0.to_owned())
}

fn check_stored(test_store: &TestStore, erased: &[String]) -> TestResult {
    test_store.with_raw_store(async |ctx, store| {
        let mut values = 0;
        for tenant in KEPT.into_iter().chain(erased.iter().map(String::as_str)) {
            let options = RecursiveScanOptions::new().with_limit(100);
            let prefix = NamespacePrefix::from(TenantId::new(tenant)?);
            for (ns, item) in store.scan_recursive(ctx, &prefix, options).await?.items {
                let value = item.value.ok_or("the item has no value")??;
                assert!(value.starts_with(ENVELOPE), "{ns}, {}: not encrypted", item.key);
                assert!(!contains(&value, PLAINTEXT), "{ns}, {}: not encrypted", item.key);
                assert!(item.meta.expires_at.is_some(), "{ns}, {}: no TTL", item.key);
                values += 1;
            }
        }
        // A plan of each tenant, and an idea of `acme` and of `globex`.
        assert_eq!(values, 6);
        Ok(())
    })
}

/// Reads the plans in another process than the program, with the same key file.
fn check_decrypted(test_store: &TestStore, erased: &[String]) -> TestResult {
    test_store.with_raw_store(async |ctx, store| {
        let keys = KeyFile::open(test_store.key_file())?;
        let store = Encrypted::new(store.clone(), Arc::new(keys));
        let notes = |tenant: &str| Namespace::new(TenantId::new(tenant)?).with_scope("notes");
        for tenant in KEPT {
            let plan = store.get(ctx, &notes(tenant)?, "plan").await?;
            let expected = format!("\"the secret plan of {tenant}\"");
            assert_eq!(plan.as_deref(), Some(expected.as_bytes()));
        }
        for tenant in erased {
            let plan = store.get(ctx, &notes(tenant)?, "plan").await;
            assert_eq!(plan.map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
        }
        Ok(())
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
