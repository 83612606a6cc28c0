//! Whether a job is over, and how it ended.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::conditions::{holding, say};
use super::failure::Ruling;
use super::look::Look;
use super::pods::{phase, restarts};
use super::success;

/// How a job ends, from the moment when that is known; it is over when the last of its pods is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) is_success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

/// The conditions that announce a verdict while pods are still there.
const ANNOUNCED: [&str; 2] = ["SuccessCriteriaMet", "FailureTarget"];

impl Verdict {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { is_success: false, reason: reason.to_owned(), message: message.into() }
    }

    fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self { is_success: true, reason: reason.to_owned(), message: message.into() }
    }

    fn announced(is_success: bool, condition: &JobCondition) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self { is_success, reason: text(&condition.reason), message: text(&condition.message) }
    }

    /// Says in the status how the job will end.
    pub(super) fn announce(&self, status: &mut JobStatus, now: Timestamp) {
        let kind = if self.is_success { ANNOUNCED[0] } else { ANNOUNCED[1] };
        if holding(status, kind).is_none() {
            say(status, kind, true, (&self.reason, &self.message), now);
        }
    }

    /// Says in the status how the job ended.
    pub(super) fn conclude(&self, status: &mut JobStatus, now: Timestamp) {
        say(status, if self.is_success { "Complete" } else { "Failed" }, true, (&self.reason, &self.message), now);
        let now = Some(now.into());
        status.start_time = status.start_time.take().or_else(|| now.clone());
        status.completion_time = now.filter(|_| self.is_success);
    }
}

/// What was announced already or what follows now: the rules in the order in which they are asked.
pub(super) fn verdict(look: &Look<'_>) -> Option<Verdict> {
    let announced = |at: usize| Some(Verdict::announced(at == 0, holding(&look.status, ANNOUNCED[at])?));
    announced(0)
        .or_else(|| announced(1))
        .or_else(|| of_failure_policy(look))
        .or_else(|| of_backoff_limit(look))
        .or_else(|| of_deadline(look))
        .or_else(|| of_failed_indexes(look))
        .or_else(|| of_success_policy(look))
}

/// Enough completions, and nobody at work any more.
pub(super) fn completion(look: &Look<'_>) -> Option<Verdict> {
    // Without a number it is enough that one pod says that the work is done.
    let wanted = look.spec.completions.map_or(1, |count| usize::try_from(count).unwrap_or(0));
    let done = look.succeeded >= wanted && look.active.is_empty();
    done.then(|| Verdict::succeeded("CompletionsReached", "Reached expected number of succeeded pods"))
}

fn of_failure_policy(look: &Look<'_>) -> Option<Verdict> {
    look.spec.pod_failure_policy.as_ref()?;
    look.pods.iter().filter(|pod| look.has_failed(pod)).find_map(|pod| match look.ruling(pod) {
        Ruling::FailJob(message) => Some(Verdict::failed("PodFailurePolicy", message)),
        _ => None,
    })
}

fn of_backoff_limit(look: &Look<'_>) -> Option<Verdict> {
    let limit = look.spec.backoff_limit.unwrap_or(6);
    let failed = look.failed > usize::try_from(limit).unwrap_or(0);
    (failed || restarts_exceed(look, limit.into()))
        .then(|| Verdict::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
}

/// Containers that are started again in their pod count as failures while the pod is there.
fn restarts_exceed(look: &Look<'_>, limit: i64) -> bool {
    let in_place = look.spec.template.spec.as_ref().is_some_and(|it| it.restart_policy.as_deref() == Some("OnFailure"));
    let alive = look.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    in_place && alive.map(|pod| restarts(pod)).sum::<i64>() >= limit.max(1)
}

fn of_deadline(look: &Look<'_>) -> Option<Verdict> {
    let left = time_left(look)?;
    left.is_zero().then(|| Verdict::failed("DeadlineExceeded", "Job was active longer than specified deadline"))
}

/// How long the job may still run; nothing where that is not limited.
pub(super) fn time_left(look: &Look<'_>) -> Option<Duration> {
    let allowed = SignedDuration::from_secs(look.spec.active_deadline_seconds?);
    let over = look.now.duration_since(look.started()?);
    Some(Duration::try_from(allowed.saturating_sub(over)).unwrap_or_default())
}

fn of_failed_indexes(look: &Look<'_>) -> Option<Verdict> {
    let indexed = look.indexed.as_ref()?;
    let failed = indexed.failed.as_ref()?.total();
    let most = look.spec.max_failed_indexes.map(|most| usize::try_from(most).unwrap_or(0));
    if most.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Verdict::failed("MaxFailedIndexesExceeded", message));
    }
    let all = failed + indexed.succeeded.total() >= indexed.completions as usize;
    (failed > 0 && all).then(|| Verdict::failed("FailedIndexes", "Job has failed indexes"))
}

fn of_success_policy(look: &Look<'_>) -> Option<Verdict> {
    let indexed = look.indexed.as_ref()?;
    let message = success::met(look.spec.success_policy.as_ref(), &indexed.succeeded, indexed.completions)?;
    Some(Verdict::succeeded("SuccessPolicy", message))
}
