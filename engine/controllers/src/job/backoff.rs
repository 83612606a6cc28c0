//! How long a job waits before it makes a pod anew: ten seconds after a failure, twice as long after each further one
//! without a success between, and never longer than six minutes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::pods::finished_at;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(6);

/// The failures of a job since its last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: u32,
    last: Option<Timestamp>,
}

impl Record {
    /// The record after these pods ended too.
    pub(super) fn after<'a>(
        self,
        succeeded: impl Iterator<Item = &'a Pod>,
        failed: impl Iterator<Item = &'a Pod>,
    ) -> Self {
        let success = succeeded.map(finished_at).max();
        let before = if success.is_some() { Self::default() } else { self };
        let since = failed.map(finished_at).filter(|at| success.is_none_or(|success| *at > success));
        since.fold(before, |record, at| Self {
            failures: record.failures.saturating_add(1),
            last: record.last.max(Some(at)),
        })
    }

    /// What is left of the wait; none when it is over.
    pub(super) fn left(self, now: Timestamp) -> Option<Duration> {
        left(self.failures, self.last?, now)
    }
}

/// What is left of the wait after so many failures.
pub(super) fn left(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doubled = FIRST.checked_mul(1 << failures.checked_sub(1)?.min(16)).unwrap_or(LONGEST);
    let over = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    doubled.min(LONGEST).checked_sub(over).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(second: i64) -> Pod {
        let at = Timestamp::from_second(second).unwrap();
        let state = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": at}}});
        serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [state]}})).unwrap()
    }

    fn wait(record: Record, second: i64) -> Option<u64> {
        record.left(Timestamp::from_second(second).unwrap()).map(|left| left.as_secs())
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_six_minutes() {
        let mut record = Record::default();
        assert_eq!(wait(record, 0), None);
        for expected in [10, 20, 40, 80, 160, 320, 360, 360] {
            record = record.after([].into_iter(), [ended(1000)].iter());
            assert_eq!(wait(record, 1000), Some(expected));
        }
        assert_eq!((wait(record, 1359), wait(record, 1360)), (Some(1), None));
    }

    #[test]
    fn a_success_forgets_the_failures_before_it() {
        let failed = Record::default().after([].into_iter(), [ended(10), ended(30), ended(20)].iter());
        assert_eq!(wait(failed, 30), Some(40), "from the last end");
        assert_eq!(wait(failed.after([ended(35)].iter(), [].into_iter()), 35), None);
        let mixed = failed.after([ended(40)].iter(), [ended(39), ended(41)].iter());
        assert_eq!(wait(mixed, 41), Some(10));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_lengthen_the_wait() {
        let failed = Record::default().after([].into_iter(), [ended(1000)].iter());
        assert_eq!(wait(failed, 10), Some(10));
    }
}
