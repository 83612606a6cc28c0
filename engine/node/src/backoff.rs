//! How long to wait before the next try: at once, then 10 s doubling to 5 min, as documented for restarted containers
//! and for images (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy).

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
/// A container that ran this long is taken to be well again.
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// The waits of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// One that begins with a wait instead of an immediate try.
    pub(crate) fn eager() -> Self {
        Self { next: FIRST }
    }

    /// One for steps of the node's own that usually succeed at the second try: 1 s doubling.
    pub(crate) fn short() -> Self {
        Self { next: Duration::from_secs(1) }
    }

    /// The wait after one more failure.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = if wait.is_zero() { FIRST } else { (wait * 2).min(LONGEST) };
        wait
    }

    /// The wait after a run of this length.
    pub(crate) fn wait_after_run(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN_AFTER {
            self.next = Duration::ZERO;
        }
        self.wait()
    }

    /// Continues where `restarts` earlier restarts had led.
    pub(crate) fn after_restarts(restarts: u32) -> Self {
        let mut backoff = Self::default();
        for _ in 0..restarts.min(8) {
            backoff.wait();
        }
        backoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.wait_after_run(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forgive_earlier_crashes() {
        let mut backoff = Backoff::after_restarts(5);
        assert_eq!(backoff.wait_after_run(Duration::from_secs(601)), Duration::ZERO);
        assert_eq!(backoff.wait_after_run(Duration::from_secs(1)), FIRST);
    }
}
