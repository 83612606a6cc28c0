//! What a Deployment or StatefulSet says about sleeping, and what is written into it. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_driver::matching::Labels;

/// Asks for sleep: after how long without a new connection, as `90s`, `10m` or `1h30m`.
pub(crate) const SLEEP_AFTER: &str = "shipway.io/sleep-after";
/// Says that it sleeps, and how many replicas it had.
pub(crate) const SLEPT_WITH: &str = "shipway.io/slept-with";
/// Less would have it wake and sleep in turns.
const SHORTEST: Duration = Duration::from_secs(1);

/// Which kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
}

/// Kind, namespace and name.
pub(crate) type Id = (Kind, String, String);

/// A workload as far as sleeping goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// The labels of its pods.
    pub(crate) labels: Labels,
    pub(crate) replicas: i32,
    pub(crate) sleep_after: Option<Duration>,
    pub(crate) slept_with: Option<i32>,
}

impl Workload {
    /// Reads a Deployment; nothing when it has nothing to do with sleeping.
    pub(crate) fn of_deployment(object: &Deployment) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        Self::read(object, spec.replicas, spec.template.metadata.as_ref()?.labels.as_ref()?)
    }

    /// Reads a StatefulSet; nothing when it has nothing to do with sleeping.
    pub(crate) fn of_stateful_set(object: &StatefulSet) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        Self::read(object, spec.replicas, spec.template.metadata.as_ref()?.labels.as_ref()?)
    }

    fn read(object: &impl ResourceExt, replicas: Option<i32>, labels: &Labels) -> Option<Self> {
        let annotation = |name: &str| object.annotations().get(name);
        let sleep_after = annotation(SLEEP_AFTER).and_then(|text| duration(text));
        let slept_with = annotation(SLEPT_WITH).and_then(|text| text.parse().ok()).filter(|count| *count > 0);
        let ends = object.meta().deletion_timestamp.is_some();
        let concerns = !ends && (sleep_after.is_some() || slept_with.is_some());
        concerns.then(|| Self { labels: labels.clone(), replicas: replicas.unwrap_or(1), sleep_after, slept_with })
    }

    /// Whether it sleeps.
    pub(crate) fn sleeps(&self) -> bool {
        self.replicas == 0 && self.slept_with.is_some()
    }

    /// Whether the service leads to its pods.
    pub(crate) fn is_behind(&self, service: &Service) -> bool {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| {
            !selector.is_empty() && selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
        })
    }

    /// What puts it to sleep.
    pub(crate) fn lulled(&self) -> Value {
        let annotations = json!({ SLEPT_WITH: self.replicas.to_string() });
        json!({"metadata": {"annotations": annotations}, "spec": {"replicas": 0}})
    }

    /// What wakes it; what somebody else woke only loses the mark.
    pub(crate) fn woken(&self) -> Value {
        let annotations = json!({ SLEPT_WITH: null });
        match self.slept_with.filter(|_| self.replicas == 0) {
            Some(count) => json!({"metadata": {"annotations": annotations}, "spec": {"replicas": count}}),
            None => json!({"metadata": {"annotations": annotations}}),
        }
    }
}

/// Drops what nobody here reads, and nearly all of what has nothing to do with sleeping.
pub(crate) fn slim_deployment(object: &mut Deployment) {
    object.status = None;
    if Workload::of_deployment(object).is_none() {
        object.spec = None;
    }
}

/// The same for a StatefulSet.
pub(crate) fn slim_stateful_set(object: &mut StatefulSet) {
    object.status = None;
    if Workload::of_stateful_set(object).is_none() {
        object.spec = None;
    }
}

/// Reads hours, minutes and seconds, in this order.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds, mut any) = (text.trim(), 0_u64, false);
    for (unit, factor) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
            (rest, any) = (after, true);
        }
    }
    let duration = Duration::from_secs(seconds);
    (any && rest.is_empty() && duration >= SHORTEST).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(annotations: &Value, replicas: i32) -> Deployment {
        let template = json!({"metadata": {"labels": {"app": "web", "tier": "a"}}});
        let spec = json!({"replicas": replicas, "selector": {}, "template": template});
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
    }

    #[test]
    fn durations_are_read() {
        let seconds = |text| duration(text).map(|it| it.as_secs());
        assert_eq!(["90s", "10m", "1h30m", "2h5s"].map(seconds), [Some(90), Some(600), Some(5400), Some(7205)]);
        for wrong in ["", "10", "s", "0s", "5m1h", "-1s", "1.5h", "99999999999999999999h", "1d"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_workload_that_sleeps_remembers_its_size() {
        let awake = Workload::of_deployment(&deployment(&json!({SLEEP_AFTER: "1m"}), 3)).unwrap();
        assert!(!awake.sleeps());
        assert_eq!(awake.lulled()["metadata"]["annotations"][SLEPT_WITH], "3");
        let asleep = Workload::of_deployment(&deployment(&json!({SLEEP_AFTER: "1m", SLEPT_WITH: "3"}), 0)).unwrap();
        assert!(asleep.sleeps());
        assert_eq!(asleep.woken()["spec"]["replicas"], 3);
        // Somebody scaled it by hand meanwhile.
        let scaled = Workload::of_deployment(&deployment(&json!({SLEEP_AFTER: "1m", SLEPT_WITH: "3"}), 5)).unwrap();
        assert!(!scaled.sleeps() && scaled.woken().get("spec").is_none());
        assert!(Workload::of_deployment(&deployment(&json!({}), 0)).is_none());
        assert!(Workload::of_deployment(&deployment(&json!({SLEEP_AFTER: "soon"}), 1)).is_none());
    }

    #[test]
    fn a_service_is_its_when_it_selects_its_pods() {
        let workload = Workload::of_deployment(&deployment(&json!({SLEEP_AFTER: "1m"}), 1)).unwrap();
        let service =
            |selector: Value| serde_json::from_value(json!({"metadata": {}, "spec": {"selector": selector}})).unwrap();
        assert!(workload.is_behind(&service(json!({"app": "web"}))));
        assert!(!workload.is_behind(&service(json!({"app": "web", "tier": "b"}))));
        assert!(!workload.is_behind(&service(json!({}))));
    }
}
