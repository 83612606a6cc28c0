//! One thread, one runtime, one virtual clock.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::thread;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::interpose::{Inside, set_elapsed};

/// Enough for what is deep in a debug build.
const STACK: usize = 16 << 20;
/// 2030-01-01T00:00:00Z: when every simulation begins.
const BEGINNING: i64 = 1_893_456_000;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `work` to its end on a thread that is inside a simulation; panics if it does.
///
/// The thread is fresh, so that whatever draws its seed once a thread draws it from this simulation.
pub(crate) fn run<T: Send>(seed: u64, work: impl AsyncFnOnce() -> T + Send) -> T {
    let simulate = || {
        let _inside = Inside::enter(seed, Timestamp::from_second(BEGINNING).expect("a moment of this century"));
        // Seeded by the clock and the number of the thread otherwise.
        fastrand::seed(seed);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).on_thread_unpark(follow).build();
        let runtime = runtime.expect("a runtime without input and output needs nothing of the kernel");
        runtime.block_on(async {
            BEGAN.set(Some(Instant::now()));
            work().await
        })
    };
    let outcome = thread::scope(|scope| {
        let thread = thread::Builder::new().name("simulation".into()).stack_size(STACK).spawn_scoped(scope, simulate);
        thread.expect("the kernel gives a thread").join()
    });
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Sets the clocks of the C library to the runtime's, which may have moved while everybody waited.
fn follow() {
    if let Some(began) = BEGAN.get() {
        set_elapsed(began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hours_pass_at_once_on_every_clock() {
        let real = std::time::Instant::now();
        let (before, after, monotonic) = run(1, async || {
            let (before, monotonic) = (Timestamp::now(), std::time::Instant::now());
            tokio::time::sleep(Duration::from_hours(3)).await;
            (before, Timestamp::now(), monotonic.elapsed())
        });
        assert_eq!(before.as_second(), BEGINNING);
        assert_eq!(after.as_second() - before.as_second(), 3 * 3600);
        assert_eq!(monotonic.as_secs(), 3 * 3600);
        assert!(real.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_panic_inside_is_one_outside() {
        let outcome = std::panic::catch_unwind(|| {
            run(1, async || {
                tokio::task::yield_now().await;
                panic!("as told");
            })
        });
        assert!(outcome.is_err());
    }
}
