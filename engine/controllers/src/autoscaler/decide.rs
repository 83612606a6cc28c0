//! How many replicas there shall be: from what the metrics ask for, within the bounds, not too fast and not trembling. Pure
//! but for what the autoscaler remembers.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerSpec;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{ABLE, Conditions, LIMITED};
use super::memory::{Direction, Memory, Rules};
use super::replicas::Tolerance;

/// Between which numbers it moves, and how fast.
pub(super) struct Bounds {
    pub(super) least: i32,
    most: i32,
    up: Rules,
    down: Rules,
}

/// What the metrics ask for, and which of them asks for the most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) replicas: i32,
    pub(super) metric: String,
}

/// How many there shall be, and why there shall be another number than now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) replicas: i32,
    pub(super) reason: String,
}

impl Bounds {
    pub(super) fn of(spec: &HorizontalPodAutoscalerSpec) -> Self {
        let behavior = spec.behavior.clone().unwrap_or_default();
        Self {
            least: spec.min_replicas.unwrap_or(1),
            most: spec.max_replicas,
            up: Rules::of(Direction::Up, behavior.scale_up.as_ref()),
            down: Rules::of(Direction::Down, behavior.scale_down.as_ref()),
        }
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        Tolerance { down: self.down.tolerance, up: self.up.tolerance }
    }

    /// What is to be done about a number out of the bounds, whatever the metrics say.
    pub(super) fn enforced(&self, current: i32) -> Option<Decision> {
        let (replicas, reason) = if current > self.most {
            (self.most, "Current number of replicas above Spec.MaxReplicas")
        } else if current < self.least {
            (self.least, "Current number of replicas below Spec.MinReplicas")
        } else {
            return None;
        };
        Some(Decision { replicas, reason: reason.to_owned() })
    }

    /// What is to be done about what the metrics ask for.
    pub(super) fn decide(
        &self,
        current: i32,
        wanted: &Wanted,
        memory: &mut Memory,
        (conditions, now): (&mut Conditions, Timestamp),
    ) -> Decision {
        let stable = memory.stabilized((current, wanted.replicas), (&self.up, &self.down), now);
        let (reason, message) = match wanted.replicas {
            same if same == stable => ("ReadyForNewScale", "recommended size matches current size"),
            more if more >= current => (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            ),
            _ => (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            ),
        };
        conditions.set(ABLE, true, reason, message);
        let (replicas, held) = self.limited(current, stable, memory, now);
        let (reason, message) =
            held.unwrap_or(("DesiredWithinRange", "the desired count is within the acceptable range"));
        conditions.set(LIMITED, held.is_some(), reason, message);
        let reason = if replicas > current {
            format!("{} above target", wanted.metric)
        } else {
            "All metrics below target".to_owned()
        };
        Decision { replicas, reason }
    }

    /// The number as far as bounds and policies let it go, and what holds it back.
    fn limited(
        &self,
        current: i32,
        desired: i32,
        memory: &Memory,
        now: Timestamp,
    ) -> (i32, Option<(&'static str, &'static str)>) {
        if desired > current {
            let limit = memory.limit(current, &self.up, now);
            let held = if self.most > limit {
                ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
            } else {
                ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
            };
            let most = self.most.min(limit);
            if desired > most {
                return (most, Some(held));
            }
        } else if desired < current {
            let limit = memory.limit(current, &self.down, now);
            let held = if self.least < limit {
                ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
            } else {
                ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
            };
            let least = self.least.max(limit);
            if desired < least {
                return (least, Some(held));
            }
        }
        (desired, None)
    }
}

#[cfg(test)]
mod tests;
