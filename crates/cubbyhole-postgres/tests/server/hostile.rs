//! Random rows that the owner of the table inserts directly. The constraint must accept exactly the
//! valid rows, and every call must read them correctly. `PROPTEST_CASES` sets the number of cases.

use std::cell::Cell;
use std::collections::BTreeMap;

use cubbyhole_core::limits::{MAX_KEY_BYTES, check_key};
use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, Expiry, GetOptions, Namespace, NamespacePrefix,
    PutOptions, ScanOptions, Store, Timestamp, TypedExt,
};
use cubbyhole_postgres::PostgresStore;
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio_postgres::Client;

use crate::support::Schema;

/// Runs a quarter of the usual cases, because each case needs a server.
const DIVISOR: u32 = 4;

/// Failures are printed and shrunk, without a regression file in the source tree.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = usual.cases.div_ceil(DIVISOR);
    ProptestConfig { failure_persistence: None, cases, ..usual }
}

#[derive(Debug, Clone)]
struct Row {
    namespace: String,
    /// `None` for the tenant of the namespace.
    tenant: Option<String>,
    key: String,
    version: u128,
    instants: (i64, i64, Option<i64>),
    value: Vec<u8>,
}

fn name() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        6 => prop::sample::select(vec![':', '\\', 'a', 'b']),
        1 => prop::sample::select(vec!['\n', '\r', '\u{1}', '\u{7f}', '%', '_', '\'', ';', '\u{2028}']),
        1 => any::<char>().prop_filter("PostgreSQL text cannot contain NUL", |c| *c != '\0'),
    ];
    let short = prop::collection::vec(c, 0..7).prop_map(String::from_iter);
    let long =
        (1020..1030_usize).prop_map(|length| "a:".repeat(length / 2) + &"b".repeat(length % 2));
    prop_oneof![8 => short, 1 => long]
}

fn instant() -> impl Strategy<Value = i64> {
    let last = i64::try_from(Timestamp::MAX.as_millis()).unwrap();
    let edges = prop::sample::select(vec![0, 1, last, last + 1, -1, i64::MAX, i64::MIN]);
    prop_oneof![1 => edges, 3 => 0..=last]
}

fn row() -> impl Strategy<Value = Row> {
    let tenant = prop_oneof![6 => Just(None), 1 => name().prop_map(Some)];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        Just(b"[1,2]".to_vec()),
        Just(vec![b'['; 10_000]),
    ];
    let instants = (instant(), instant(), prop::option::of(instant()));
    (name(), tenant, name(), any::<u128>(), instants, value).prop_map(
        |(namespace, tenant, key, version, instants, value)| Row {
            namespace,
            tenant,
            key,
            version,
            instants,
            value,
        },
    )
}

impl Row {
    /// Whether the contract allows this entry.
    fn is_valid(&self) -> bool {
        let good = |at: i64| u64::try_from(at).is_ok_and(|at| Timestamp::from_millis(at).is_ok());
        let (created, updated, expires) = self.instants;
        let owned = |ns: Namespace| {
            self.tenant.as_ref().is_none_or(|tenant| ns.tenant().as_rendered() == tenant)
        };
        Namespace::parse(&self.namespace).is_ok_and(owned)
            && check_key(&self.key).is_ok()
            && good(created)
            && good(updated)
            && expires.is_none_or(good)
    }

    /// Inserts or replaces the row. Returns whether the table accepted it.
    async fn insert(&self, schema: &Schema, admin: &Client) -> bool {
        let own = Namespace::parse(&self.namespace).map(|ns| ns.tenant().as_rendered().to_owned());
        let tenant = self.tenant.clone().unwrap_or_else(|| own.unwrap_or_else(|_| "a".to_owned()));
        let version = format!("{:032x}", self.version);
        let sql = format!(
            "INSERT INTO {}.entries
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
             VALUES ($1, $2, $3, $4::text::uuid, $5, $6, $7, $8)
             ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value,
                version = excluded.version, created_at = excluded.created_at,
                updated_at = excluded.updated_at, expires_at = excluded.expires_at",
            schema.name
        );
        let (created, updated, expires) = self.instants;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
            &self.namespace,
            &self.key,
            &tenant,
            &version,
            &created,
            &updated,
            &expires,
            &self.value,
        ];
        match admin.execute(&sql, &values).await {
            Ok(rows) => rows == 1,
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                // A violated constraint, or an index row that is too large.
                let known = code.as_deref().is_some_and(|code| ["23514", "54000"].contains(&code));
                assert!(known, "{self:?}: {error:?}");
                false
            }
        }
    }

    fn is_live(&self) -> bool {
        // Rows expire in the past or long after this test.
        let now = 1_700_000_000_000_i64..4_000_000_000_000;
        self.instants.2.is_none_or(|at| at >= now.end)
    }

    fn expires_near(&self) -> bool {
        self.instants.2.is_some_and(|at| (1_700_000_000_000..4_000_000_000_000).contains(&at))
    }
}

/// The expected rows by namespace and key.
type Table = BTreeMap<(String, String), Row>;

async fn assert_reads(store: &PostgresStore, table: &Table) {
    for ((rendered, key), row) in table {
        let name = ns(rendered);
        let expected = row.is_live().then(|| row.value.clone());
        let read = store.get(&ctx(), &name, key).await.unwrap();
        assert_eq!(read.map(|value| value.to_vec()), expected, "{row:?}");
        let entry = store.get_entry(&ctx(), &name, key, GetOptions::new()).await.unwrap();
        let shown = entry.map(|entry| {
            assert_eq!(entry.meta.version.to_bytes(), row.version.to_be_bytes());
            assert_eq!(entry.meta.created_at.as_millis(), row.instants.0.unsigned_abs());
            assert_eq!(entry.meta.updated_at.as_millis(), row.instants.1.unsigned_abs());
            entry.value.to_vec()
        });
        assert_eq!(shown, expected);
        let many = store.get_many(&ctx(), &name, &[key, key], GetOptions::new()).await.unwrap();
        assert!(many.iter().all(|one| one.as_ref().unwrap().is_some() == expected.is_some()));
        let listed = store.list(&ctx(), &name, None).await.unwrap();
        let page = store.scan(&ctx(), &name, ScanOptions::new()).await.unwrap();
        let keys: Vec<&String> = page.items.iter().map(|item| &item.key).collect();
        assert_eq!(keys, listed.iter().collect::<Vec<_>>());
        assert_eq!(listed.contains(key), expected.is_some(), "{row:?}");
        let prefix = NamespacePrefix::from(&name);
        let under = store.scan_namespaces(&ctx(), &prefix, None, 100).await.unwrap().items;
        assert!(under.iter().all(|found| prefix.matches(found)));
        assert_eq!(under.contains(&name), !listed.is_empty());
        assert!(store.usage(&ctx(), &prefix).await.unwrap().entries >= listed.len() as u64);
        let tenants = store.scan_tenants(&ctx(), None, 100).await.unwrap().items;
        assert!(expected.is_none() || tenants.contains(&name.tenant()), "{row:?}");
    }
}

/// Checks that a value of another type is an error of that item and does not affect other items.
async fn assert_typed_reads(store: &std::sync::Arc<PostgresStore>, table: &Table) {
    let typed = std::sync::Arc::clone(store).typed::<Vec<u8>>();
    for (rendered, key) in table.keys() {
        let page = typed.scan(&ctx(), &ns(rendered), ScanOptions::new()).await.unwrap();
        for item in &page.items {
            let Some(row) = table.get(&(rendered.clone(), item.key.clone())) else { continue };
            let expected =
                serde_json::from_slice::<Vec<u8>>(&row.value).map_err(|_| ErrorKind::Codec);
            let found = item.value.as_ref().unwrap().as_ref().map_err(Error::kind);
            assert_eq!(found, expected.as_ref().map_err(|kind| *kind), "{rendered} {key}");
        }
    }
}

async fn assert_writes(store: &PostgresStore, table: &Table) {
    for (number, ((rendered, key), row)) in table.iter().enumerate() {
        let name = ns(rendered);
        let live = row.is_live();
        let slide = GetOptions::new().with_extended_ttl(PATIENCE);
        assert_eq!(store.get_entry(&ctx(), &name, key, slide).await.unwrap().is_some(), live);
        let touched = store
            .touch(&ctx(), &name, key, Expiry::After(PATIENCE), Condition::Always)
            .await
            .unwrap();
        assert_eq!(touched, live, "{row:?}");
        match number % 3 {
            0 => assert_eq!(store.take(&ctx(), &name, key).await.unwrap().is_some(), live),
            1 => store.delete(&ctx(), &name, key).await.unwrap(),
            _ => {
                let batch = Batch::new().delete(key.clone());
                store.write(&ctx(), &name, batch).await.unwrap();
            }
        }
        let options = PutOptions::new();
        store.put_with_options(&ctx(), &name, key, bytes("new"), options).await.unwrap();
        assert_eq!(store.get(&ctx(), &name, key).await.unwrap().unwrap(), bytes("new"));
    }
}

#[test]
fn rows_accepted_by_the_constraint_are_readable() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (schema, store, admin) = runtime.block_on(async {
        let schema = Schema::new().await;
        schema.grant_operator().await;
        let (store, admin) = (schema.open().await, schema.admin().await);
        (schema, std::sync::Arc::new(store), admin)
    });
    let (accepted, rejected) = (Cell::new(0_u32), Cell::new(0_u32));
    let rows = prop::collection::vec(row(), 1..5);
    let outcome = TestRunner::new(cases()).run(&rows, |rows| {
        runtime.block_on(async {
            schema.execute(&format!("DELETE FROM {}.entries", schema.name)).await;
            let mut table = Table::new();
            for row in rows.into_iter().filter(|row| !row.expires_near()) {
                let is_accepted = row.insert(&schema, &admin).await;
                assert!(
                    !is_accepted || row.is_valid(),
                    "the table accepts an invalid row: {row:?}"
                );
                let long = row.namespace.len() + row.key.len() > MAX_KEY_BYTES;
                assert!(
                    is_accepted || !row.is_valid() || long,
                    "the table rejects a valid row: {row:?}"
                );
                let count = if is_accepted { &accepted } else { &rejected };
                count.set(count.get() + 1);
                if is_accepted {
                    table.insert((row.namespace.clone(), row.key.clone()), row);
                }
            }
            assert_reads(&store, &table).await;
            assert_typed_reads(&store, &table).await;
            assert_writes(&store, &table).await;
            store.evict_expired(&ctx()).await.unwrap();
            for (rendered, key) in table.keys() {
                assert_eq!(store.get(&ctx(), &ns(rendered), key).await.unwrap().unwrap(), "new");
            }
            for (rendered, key) in table.keys() {
                let under = NamespacePrefix::from(ns(rendered).tenant());
                store.erase(&ctx(), &under, 1000).await.unwrap();
                assert_eq!(store.list(&ctx(), &ns(rendered), None).await.unwrap().len(), 0);
                store.put(&ctx(), &ns(rendered), key, bytes("new")).await.unwrap();
            }
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (accepted, rejected) = (accepted.get(), rejected.get());
    assert!(accepted > 0 && rejected > 0, "{accepted} accepted, {rejected} rejected");
    // Dropping connections requires a runtime.
    let _entered = runtime.enter();
    drop((store, admin, schema));
}
