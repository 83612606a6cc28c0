//! The conditions of an autoscaler: whether it can scale, whether its metrics can be had, whether it is held back.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition as Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub(super) const ABLE: &str = "AbleToScale";
pub(super) const ACTIVE: &str = "ScalingActive";
pub(super) const LIMITED: &str = "ScalingLimited";

/// The conditions as they become.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    all: Vec<Condition>,
    now: Timestamp,
}

impl Conditions {
    pub(super) fn new(before: Vec<Condition>, now: Timestamp) -> Self {
        // Objects carry whole seconds.
        Self { all: before, now: Timestamp::from_second(now.as_second()).unwrap_or(now) }
    }

    /// Says how one is now; its time is that of its last turn.
    pub(super) fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let at = self.all.iter().position(|one| one.type_ == kind).unwrap_or_else(|| {
            self.all.push(Condition { type_: kind.to_owned(), ..Condition::default() });
            self.all.len() - 1
        });
        let one = &mut self.all[at];
        if one.status != status {
            status.clone_into(&mut one.status);
            one.last_transition_time = Some(Time(self.now));
        }
        one.reason = Some(reason.to_owned());
        one.message = Some(message.into());
    }

    pub(super) fn into_all(self) -> Vec<Condition> {
        self.all
    }
}
