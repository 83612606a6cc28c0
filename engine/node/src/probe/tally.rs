//! Counting successes and failures against a probe's thresholds. Pure.

use k8s_openapi::api::core::v1::Probe;

/// How often in a row before the verdict changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) success: u32,
    pub(super) failure: u32,
}

impl Limits {
    pub(super) fn of(probe: &Probe) -> Self {
        let limit = |value: Option<i32>, default| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        Self { success: limit(probe.success_threshold, 1), failure: limit(probe.failure_threshold, 3) }
    }
}

/// The verdict so far and how far it is from changing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    limits: Limits,
    verdict: bool,
    last: bool,
    in_a_row: u32,
}

impl Tally {
    pub(super) fn new(limits: Limits, verdict: bool) -> Self {
        Self { limits, verdict, last: verdict, in_a_row: 0 }
    }

    /// Counts one result; says the new verdict when it changes.
    pub(super) fn count(&mut self, success: bool) -> Option<bool> {
        self.in_a_row = if self.last == success { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = success;
        let limit = if success { self.limits.success } else { self.limits.failure };
        if success == self.verdict || self.in_a_row < limit {
            return None;
        }
        self.verdict = success;
        Some(success)
    }

    /// Whether it failed often enough in a row, whatever the verdict was before.
    pub(super) fn failed(&self) -> bool {
        !self.last && self.in_a_row >= self.limits.failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(success: u32, failure: u32, begin: bool, results: &str) -> Vec<Option<bool>> {
        let mut tally = Tally::new(Limits { success, failure }, begin);
        results.chars().map(|result| tally.count(result == '+')).collect()
    }

    #[test]
    fn a_verdict_changes_after_enough_results_in_a_row() {
        assert_eq!(verdicts(1, 3, false, "-+"), [None, Some(true)]);
        assert_eq!(verdicts(2, 3, false, "+-++"), [None, None, None, Some(true)]);
        assert_eq!(verdicts(1, 3, true, "--+---"), [None, None, None, None, None, Some(false)]);
        assert_eq!(verdicts(1, 1, true, "--+"), [Some(false), None, Some(true)]);
    }

    #[test]
    fn a_startup_probe_fails_after_its_threshold() {
        let mut tally = Tally::new(Limits { success: 1, failure: 2 }, false);
        tally.count(false);
        assert!(!tally.failed());
        tally.count(false);
        assert!(tally.failed());
    }
}
