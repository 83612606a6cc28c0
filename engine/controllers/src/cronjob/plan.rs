//! From a cron job and its jobs to what should be done next: a pure function.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use shipway_driver::EventKind;

use super::due::Times;
use super::history::{self, Told, is_over};
use super::make;

/// What to do.
pub(super) struct Plan {
    /// The jobs to delete: those that are kept no longer, and those that make room for the next.
    pub(super) delete: Vec<Arc<Job>>,
    /// The job to start, and the time for which.
    pub(super) start: Option<(Job, Timestamp)>,
    pub(super) status: CronJobStatus,
    pub(super) events: Vec<Told>,
    pub(super) again: Option<Duration>,
}

/// What should be done. `jobs` are all that the cron job controls.
pub(super) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let (status, events) = history::status(cron, jobs);
    let mut plan = Plan { delete: history::surplus(cron, jobs), start: None, status, events, again: None };
    if cron.metadata.deletion_timestamp.is_some() || cron.spec.suspend == Some(true) {
        return plan;
    }
    match Times::of(&cron.spec) {
        Ok(times) => plan.schedule(cron, jobs, &times, now),
        Err((reason, message)) => plan.warn(reason, message),
    }
    plan
}

impl Plan {
    fn warn(&mut self, reason: &'static str, message: String) {
        self.events.push((EventKind::Warning, reason, message));
    }

    fn schedule(&mut self, cron: &CronJob, jobs: &[Arc<Job>], times: &Times, now: Timestamp) {
        self.again = times.wait(cron, now);
        let Some((at, are_many)) = times.due(cron, now) else {
            if times.is_never(now) {
                let message = format!("invalid schedule: {} : it names no time within five years", cron.spec.schedule);
                self.warn("InvalidSchedule", message);
            }
            return;
        };
        if are_many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.to_owned());
        }
        let policy = cron.spec.concurrency_policy.as_deref();
        let active = self.status.active.as_deref().unwrap_or_default();
        if policy == Some("Forbid") && !active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.events.push((EventKind::Normal, "JobAlreadyActive", message.to_owned()));
            return;
        }
        if policy == Some("Replace") {
            let is_active = |job: &&Arc<Job>| active.iter().any(|reference| reference.uid == job.metadata.uid);
            let goes = jobs.iter().filter(|job| !is_over(job)).filter(is_active);
            self.delete.extend(goes.filter(|job| job.name_any() != make::name(&cron.name_any(), at)).cloned());
        }
        self.start = Some((make::job(cron, at, &times.zone), at));
    }
}
