//! The conditions of a job.

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub(super) const SUSPENDED: &str = "Suspended";

/// The condition of that kind, where it holds.
pub(crate) fn holding<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition that says how the job ended.
pub(crate) fn finished(status: &JobStatus) -> Option<&JobCondition> {
    holding(status, "Complete").or_else(|| holding(status, "Failed"))
}

/// Has the condition say so; whether that is new. One that was never there need not say that it does not hold.
pub(super) fn say(status: &mut JobStatus, kind: &str, holds: bool, words: (&str, &str), now: Timestamp) -> bool {
    let text = if holds { "True" } else { "False" };
    let known = status.conditions.iter().flatten().position(|condition| condition.type_ == kind);
    if known.is_none() && !holds {
        return false;
    }
    let new = JobCondition {
        type_: kind.to_owned(),
        status: text.to_owned(),
        reason: Some(words.0.to_owned()),
        message: Some(words.1.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    match known.and_then(|at| conditions.get_mut(at)) {
        Some(old) if (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message) => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}
