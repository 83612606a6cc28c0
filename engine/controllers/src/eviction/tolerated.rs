//! How long a pod may stay on a node with these taints. Pure.

use k8s_openapi::api::core::v1::{Pod, Taint};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use shipway_driver::matching::tolerates;

/// How long a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    ForEver,
    Until(Timestamp),
}

/// `taints` are those of effect `NoExecute`, and since when they are there. Of each taint the first toleration that takes it
/// counts; of all times the shortest. A pod that came later than a taint has its time from then on.
pub(super) fn stay(pod: &Pod, taints: &[(Taint, Timestamp)]) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let arrived = arrived(pod);
    let mut end: Option<Timestamp> = None;
    for (taint, since) in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Stay::Until(Timestamp::UNIX_EPOCH);
        };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let begin = arrived.map_or(*since, |arrived| arrived.max(*since));
        let until = begin.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
        end = Some(end.map_or(until, |end| end.min(until)));
    }
    end.map_or(Stay::ForEver, Stay::Until)
}

fn arrived(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(tolerations: &Value, created: Option<&str>) -> Pod {
        let metadata = json!({"name": "p", "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "tolerations": tolerations}}))
            .unwrap()
    }

    fn taints(all: &[(&str, &str, i64)]) -> Vec<(Taint, Timestamp)> {
        let taint = |key: &str, value: &str| {
            serde_json::from_value(json!({"key": key, "value": value, "effect": "NoExecute"})).unwrap()
        };
        all.iter().map(|(key, value, at)| (taint(key, value), second(*at))).collect()
    }

    fn second(at: i64) -> Timestamp {
        Timestamp::from_second(at).unwrap()
    }

    #[test]
    fn every_taint_must_be_tolerated_and_the_shortest_time_counts() {
        let now = Stay::Until(Timestamp::UNIX_EPOCH);
        let until = |at| Stay::Until(second(at));
        let table = [
            (json!([]), &[][..], Stay::ForEver),
            (json!([]), &[("a", "", 10)], now),
            (json!([{"operator": "Exists"}]), &[("a", "", 10), ("b", "x", 10)], Stay::ForEver),
            (json!([{"key": "a", "operator": "Exists"}]), &[("a", "", 10), ("b", "", 10)], now),
            (json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]), &[("a", "", 10)], now),
            (json!([{"key": "a", "value": "x"}]), &[("a", "x", 10)], Stay::ForEver),
            (json!([{"key": "a", "value": "y"}]), &[("a", "x", 10)], now),
            (json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]), &[("a", "", 10)], until(15)),
            (json!([{"key": "a", "operator": "Exists", "tolerationSeconds": -5}]), &[("a", "", 10)], until(10)),
            (
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 50},
                    {"key": "b", "operator": "Exists", "tolerationSeconds": 5}]),
                &[("a", "", 10), ("b", "", 20)],
                until(25),
            ),
            (
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 5},
                    {"key": "b", "operator": "Exists"}]),
                &[("a", "", 10), ("b", "", 20)],
                until(15),
            ),
            (json!([{"key": "a", "operator": "Gt", "value": "3"}]), &[("a", "4", 0)], Stay::ForEver),
            (json!([{"key": "a", "operator": "Lt", "value": "3"}]), &[("a", "4", 0)], now),
        ];
        for (tolerations, given, expected) in table {
            assert_eq!(stay(&pod(&tolerations, None), &taints(given)), expected, "{tolerations} {given:?}");
        }
    }

    #[test]
    fn a_pod_that_came_later_than_the_taint_has_all_of_its_time() {
        let pod = pod(&json!([{"operator": "Exists", "tolerationSeconds": 5}]), Some("1970-01-01T00:01:40Z"));
        assert_eq!(stay(&pod, &taints(&[("a", "", 10)])), Stay::Until(second(105)));
    }

    #[test]
    fn the_longest_time_does_not_overflow() {
        let pod = pod(&json!([{"operator": "Exists", "tolerationSeconds": i64::MAX}]), None);
        assert_eq!(stay(&pod, &taints(&[("a", "", 10)])), Stay::Until(Timestamp::MAX));
    }
}
