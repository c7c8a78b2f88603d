//! The suite on every layer over memory.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cached;
mod compressed;
mod encrypted;
mod layer;
mod limited;
mod retry;
mod scoped;
mod timeout;
mod ttl_policy;

use std::process::ExitCode;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};

fn main() -> std::io::Result<ExitCode> {
    let mut trials = Vec::new();
    trials.extend(layer::trials::<scoped::Scope>("scoped")?);
    trials.extend(layer::trials::<ttl_policy::NoLimits>("ttl_policy_without_limits")?);
    trials.extend(layer::trials::<ttl_policy::HugeLimits>("ttl_policy_with_huge_limits")?);
    trials.extend(layer::trials::<limited::LargeLimits>("limited")?);
    trials.extend(layer::trials::<timeout::EveryClass>("timeout")?);
    trials.extend(layer::trials::<retry::Plain>("retry")?);
    trials.extend(retry::trials_over_faults()?);
    trials.extend(layer::trials::<retry::NoFaults>("faulty")?);
    trials.extend(layer::trials::<cached::CachedLayer>("cached")?);
    trials.extend(layer::trials::<compressed::Compressed>("compressed")?);
    trials.extend(layer::trials::<encrypted::KeysInStore>("encrypted")?);
    trials.extend(layer::trials::<encrypted::KeysApart>("encrypted_apart")?);
    trials.extend(layer::full_stack()?);
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
