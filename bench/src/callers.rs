//! Several callers at once, each of which makes one operation after the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Runtime;

use crate::Result;
use crate::harness::{Case, Settings};

/// One operation at a place. Boxed alike for all that are compared; beside a round trip it is
/// nothing.
pub type Work<P> = Arc<dyn Fn(P) -> Doing + Send + Sync>;
type Doing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Work as a value, from what performs it.
pub fn work<P, F>(perform: impl Fn(P) -> F + Send + Sync + 'static) -> Work<P>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    Arc::new(move |place| Box::pin(perform(place)))
}

/// Callers that make so many operations each, at places that `draw` gives; cases that draw alike go
/// through the same places, other ones each turn. An operation takes the time that passes from one
/// to the next, whoever made them.
pub fn case<P: 'static>(
    runtime: &Runtime,
    callers: u32,
    draw: impl Fn(&mut fastrand::Rng) -> P + Clone + Send + 'static,
    work: Work<P>,
) -> Case<'_> {
    let mut turn = 0;
    Case::new(move |count| {
        turn += 1;
        let start = Instant::now();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for caller in 0..callers {
                let (draw, work) = (draw.clone(), Arc::clone(&work));
                let seed = turn * u64::from(callers) + u64::from(caller);
                let mut random = fastrand::Rng::with_seed(seed);
                tasks.push(tokio::spawn(async move {
                    for _ in 0..count {
                        let doing = work(draw(&mut random));
                        doing.await?;
                    }
                    Result::<()>::Ok(())
                }));
            }
            for task in tasks {
                task.await??;
            }
            Result::<()>::Ok(())
        })?;
        Ok(start.elapsed() / callers)
    })
}

/// For cases of so many callers, so that a turn of many takes as long as a turn of one: thrice the
/// usual, because a scheduler has moods that last longer than that.
pub fn settings(settings: &Settings, callers: u32) -> Settings {
    Settings { turn: 3 * settings.turn / callers, ..*settings }
}

/// `16 callers`.
pub fn count(callers: u32) -> String {
    format!("{callers} {}", if callers == 1 { "caller" } else { "callers" })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::harness::interleave;

    #[test]
    fn each_caller_makes_all_operations_of_a_turn() {
        let runtime = Runtime::new().unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&done);
        let work = work(move |()| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        });
        let settings = Settings { rounds: 1, turn: Duration::ZERO, warm_up: Duration::ZERO };
        let mut cases = [case(&runtime, 16, |_| (), work)];
        interleave(&settings, &mut cases).unwrap();
        // One to warm up and one that is measured, of one operation for each.
        assert_eq!(done.load(Ordering::Relaxed), 32);
    }
}
