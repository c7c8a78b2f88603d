//! The suite on a store of a third party: a store that implements only the four required methods,
//! like the example in the documentation of `Store`, with TTLs. The cases of these methods pass,
//! and all other cases are reported as ignored.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::{Arguments, Failed, Trial, run};
use cubbyhole_conformance::{Capabilities, Harness, Level, Suite, Verdict};
use cubbyhole_core::{
    Clock, EntryStore, ExecutionContext, Expiry, ManualClock, Namespace, PutOptions, Result, Store,
    Timestamp, async_trait, limits,
};

type EntryKey = (Namespace, String);

#[derive(Default)]
struct MapStore {
    map: Mutex<BTreeMap<EntryKey, (String, Option<Timestamp>)>>,
    clock: ManualClock,
}

#[async_trait]
impl Store<String> for MapStore {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: String,
        options: PutOptions,
    ) -> Result<()> {
        ctx.begin().await?;
        limits::check_key(key)?;
        let expiry = options.ttl_only()?.map_or(Expiry::Never, Expiry::After);
        let expires_at = expiry.resolve(self.clock.now())?;
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert((ns.clone(), key.to_owned()), (value, expires_at));
        Ok(())
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<String>> {
        ctx.begin().await?;
        limits::check_key(key)?;
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let found = map.get(&(ns.clone(), key.to_owned()));
        Ok(found.filter(|(_, end)| self.is_live(*end)).map(|(value, _)| value.clone()))
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        ctx.begin().await?;
        limits::check_key(key)?;
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.remove(&(ns.clone(), key.to_owned()));
        Ok(())
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        ctx.begin().await?;
        limits::check_prefix(prefix)?;
        let prefix = prefix.unwrap_or("");
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map
            .range((ns.clone(), prefix.to_owned())..)
            .take_while(|((n, k), _)| n == ns && k.starts_with(prefix))
            .filter(|(_, (_, end))| self.is_live(*end))
            .map(|((_, k), _)| k.clone())
            .collect())
    }
}

impl EntryStore<String> for MapStore {}

impl MapStore {
    fn is_live(&self, end: Option<Timestamp>) -> bool {
        end.is_none_or(|end| self.clock.now() < end)
    }
}

#[derive(Default)]
struct Mine(ManualClock);

#[async_trait]
impl Harness for Mine {
    type Value = String;

    async fn store(&self) -> Arc<dyn EntryStore<String>> {
        Arc::new(MapStore { clock: self.0.clone(), ..MapStore::default() })
    }

    async fn advance(&self, duration: Duration) {
        self.0.advance(duration);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::core_only()
    }
}

/// Checks that every case of `EntryStore` is ignored, and that a case of `Store` is ignored only
/// for a capability that this store lacks. Otherwise a suite that ignored all cases would pass.
fn only_missing_capabilities_are_ignored() -> std::result::Result<(), Failed> {
    let suite = Suite::new(Mine::default)?;
    for case in suite.cases() {
        let is_expected = match (suite.run_case(case.name()), case.level()) {
            (Some(Verdict::Failed(message)), _) => return Err(message.into()),
            (Some(Verdict::Ignored(reason)), Level::Core) => {
                let reasons = [
                    "list namespaces",
                    "value sizes",
                    "honours its context",
                    "set back",
                    "closed store",
                ];
                reasons.iter().any(|known| reason.contains(known))
            }
            (Some(Verdict::Passed), Level::Core) | (Some(Verdict::Ignored(_)), Level::Entry) => {
                true
            }
            _ => false,
        };
        if !is_expected {
            let name = case.name();
            return Err(format!("{name} must not pass, or must not be ignored").into());
        }
    }
    Ok(())
}

fn main() -> std::io::Result<ExitCode> {
    let mut trials = Suite::new(Mine::default)?.trials();
    trials.push(Trial::test(
        "only_missing_capabilities_are_ignored",
        only_missing_capabilities_are_ignored,
    ));
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
