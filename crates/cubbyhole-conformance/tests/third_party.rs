//! The suite over a store of somebody else's: the one of the documentation of `Store`, with TTLs.
//! It implements the four required methods; all that is asked of those holds, and everything else
//! is reported as ignored.

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

type Place = (Namespace, String);

#[derive(Default)]
struct MapStore {
    map: Mutex<BTreeMap<Place, (String, Option<Timestamp>)>>,
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

/// Nothing of `EntryStore` passes by chance, and of the core trait only that is ignored which this
/// store says it lacks: a suite that ignored everything would be green too.
fn ignored_is_what_it_lacks() -> std::result::Result<(), Failed> {
    let suite = Suite::new(Mine::default)?;
    for case in suite.cases() {
        let lacking = match (suite.run_case(case.name()), case.level()) {
            (Some(Verdict::Failed(message)), _) => return Err(message.into()),
            (Some(Verdict::Ignored(reason)), Level::Core) => {
                let reasons = [
                    "enumerate",
                    "value sizes",
                    "honours its context",
                    "set back",
                    "cannot be closed",
                ];
                reasons.iter().any(|known| reason.contains(known))
            }
            (Some(Verdict::Passed), Level::Core) | (Some(Verdict::Ignored(_)), Level::Entry) => {
                true
            }
            _ => false,
        };
        if !lacking {
            return Err(
                format!("{}: ignored without need, or passed by chance", case.name()).into()
            );
        }
    }
    Ok(())
}

fn main() -> std::io::Result<ExitCode> {
    let mut trials = Suite::new(Mine::default)?.trials();
    trials.push(Trial::test("ignored_is_what_it_lacks", ignored_is_what_it_lacks));
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
