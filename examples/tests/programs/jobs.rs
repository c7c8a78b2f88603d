//! `jobs`: each job is done once, including the job of the crashed worker.

use cubbyhole::{Clock, SystemClock};

use crate::support::{
    TestResult, TestStore, on_each_store, on_each_store_with_layers, scan_all, value,
};

const JOBS: usize = 20;
/// The TTL of a lease.
const LEASE_MS: u64 = 2000;

fn check(test_store: &TestStore) -> TestResult {
    // The servers run on this machine and use its clock.
    let before = SystemClock.now().as_millis();
    let printed = test_store.run(env!("CARGO_BIN_EXE_jobs"))?;
    let count = |start: &str, end: &str| {
        printed.iter().filter(|line| line.contains(start) && line.ends_with(end)).count()
    };
    assert_eq!(count("20 jobs done", ""), 1, "{printed:#?}");
    assert_eq!(count("dora: claimed job 0000 and crashed", ""), 1, "{printed:#?}");
    assert_eq!(count(": retrying job 0000, attempt 2", ""), 1, "{printed:#?}");

    test_store.with_store(async |ctx, store| {
        let remaining = scan_all(ctx, store, "acme:mail:jobs").await?;
        // Only results remain: no jobs and no leases.
        assert_eq!(remaining.len(), JOBS);
        let retried = remaining[0].meta.created_at.as_millis();
        assert!(retried >= before + LEASE_MS, "a live lease was taken over: {printed:#?}");
        for (number, done) in remaining.iter().enumerate() {
            assert_eq!(done.key, format!("done:{number:04}"));
            assert_eq!(done.meta.expires_at.is_some(), test_store.has_layers());
            let record = &value(done)?["done"];
            assert!(["anna", "ben", "cleo"].iter().any(|name| record["worker"] == *name));

            // Every claim ends with a mail, a lost lease or a crash, and one ends with a mail. If
            // the machine pauses for two seconds, a live worker loses its lease and prints a line.
            let job = format!("job {number:04}");
            let (mailed, lost) = (count(": mailed ", &job), count(": lost ", &job));
            let crashed = usize::from(number == 0);
            assert_eq!(mailed, 1, "{job}: {printed:#?}");
            assert_eq!(record["attempts"], mailed + lost + crashed, "{job}: {printed:#?}");
        }
        Ok(())
    })
}

on_each_store!(check);
on_each_store_with_layers!(check);
