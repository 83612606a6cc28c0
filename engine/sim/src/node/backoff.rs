//! How long a container waits before it is started again: at once, then 10 s doubling to 5 min, as documented
//! (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy).

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
/// A container that ran this long is taken to be well again.
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// The waits of one container.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff(Duration);

impl Backoff {
    /// The wait after a run of this length.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        let wait = if ran >= FORGIVEN_AFTER { Duration::ZERO } else { self.0 };
        self.0 = if wait.is_zero() { FIRST } else { (wait * 2).min(LONGEST) };
        wait
    }
}
