//! `jobs`: each job is done once, also that of the worker that died.

use cubbyhole::{Clock, SystemClock};

use crate::support::{Outcome, Place, all, on_each_place, value};

const JOBS: usize = 20;
/// How long a lease lasts.
const LEASE_MS: u64 = 2000;

fn check(place: &Place) -> Outcome {
    // The servers are on this machine and have its clock.
    let before = SystemClock.now().as_millis();
    let printed = place.run(env!("CARGO_BIN_EXE_jobs"))?;
    let count = |start: &str, end: &str| {
        printed.iter().filter(|line| line.contains(start) && line.ends_with(end)).count()
    };
    assert_eq!(count("20 jobs were done", ""), 1, "{printed:#?}");
    assert_eq!(count("dora: claimed job 0000 and died", ""), 1, "{printed:#?}");
    assert_eq!(count(": job 0000 comes back, attempt 2", ""), 1, "{printed:#?}");

    place.look(async |ctx, store| {
        let left = all(ctx, store, "acme:mail:jobs").await?;
        // Neither jobs nor leases are left beside them.
        assert_eq!(left.len(), JOBS);
        let came_back = left[0].meta.created_at.as_millis();
        assert!(came_back >= before + LEASE_MS, "a lease that lasts was taken: {printed:#?}");
        for (number, done) in left.iter().enumerate() {
            assert_eq!(done.key, format!("done:{number:04}"));
            assert_eq!(done.meta.expires_at, None);
            let record = &value(done)?["done"];
            assert!(["anna", "ben", "cleo"].iter().any(|name| record["worker"] == *name));

            // Every claim ended in one of three ways, and one of them in success. On a machine that
            // stands still for two seconds a worker that lives loses its lease, and says so.
            let job = format!("job {number:04}");
            let (mailed, lost) = (count(": mailed ", &job), count(": lost ", &job));
            let died = usize::from(number == 0);
            assert_eq!(mailed, 1, "{job}: {printed:#?}");
            assert_eq!(record["attempts"], mailed + lost + died, "{job}: {printed:#?}");
        }
        Ok(())
    })
}

on_each_place!(check);
