//! What a job's failure policy says about a failed pod.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::pods::{containers, init_containers};

/// What becomes of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It counts towards the limits.
    Count,
    /// It does not count.
    Ignore,
    /// The pod's index is not tried again.
    FailIndex,
    /// The job is over, for this reason.
    FailJob(String),
}

impl Ruling {
    pub(super) fn counts(&self) -> bool {
        *self != Self::Ignore
    }
}

/// The first rule that fits decides; where none does, the failure counts.
pub(super) fn ruling(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Ruling {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let fitting = rules.iter().enumerate().find_map(|(at, rule)| Some((at, rule, fits(rule, pod)?)));
    match fitting {
        Some((_, rule, _)) if rule.action == "Ignore" => Ruling::Ignore,
        Some((_, rule, _)) if rule.action == "FailIndex" => Ruling::FailIndex,
        Some((at, rule, what)) if rule.action == "FailJob" => {
            Ruling::FailJob(format!("{what} matching FailJob rule at index {at}"))
        }
        _ => Ruling::Count,
    }
}

/// Whether the rule is about what happened to the pod; in words.
fn fits(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    match (&rule.on_exit_codes, &rule.on_pod_conditions) {
        (Some(codes), _) => exit(codes, pod),
        (None, Some(patterns)) => condition(patterns, pod),
        (None, None) => None,
    }
}

fn exit(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let asked = |name: &str| codes.container_name.as_deref().is_none_or(|asked| asked == name);
    let wanted = codes.operator == "In";
    containers(pod).chain(init_containers(pod)).filter(|container| asked(&container.name)).find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        // A success is no failure, whatever the values are.
        let fits = code != 0 && codes.values.contains(&code) == wanted;
        let of = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        fits.then(|| format!("Container {} for pod {of} failed with exit code {code}", container.name))
    })
}

fn condition(patterns: &[PodFailurePolicyOnPodConditionsPattern], pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| {
        let mut patterns = patterns.iter();
        patterns.any(|it| it.type_ == condition.type_ && it.status.as_deref().unwrap_or("True") == condition.status)
    })?;
    Some(format!("Pod {}/{} has condition {}", pod.namespace().unwrap_or_default(), pod.name_any(), found.type_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(codes: &[(&str, i32)], init: &[(&str, i32)], conditions: &Value) -> Pod {
        let ended = |all: &[(&str, i32)]| -> Vec<Value> {
            all.iter()
                .map(|(name, code)| {
                    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                        "state": {"terminated": {"exitCode": code}}})
                })
                .collect()
        };
        let status = json!({"phase": "Failed", "containerStatuses": ended(codes),
            "initContainerStatuses": ended(init), "conditions": conditions});
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": status})).unwrap()
    }

    fn says(rules: &Value, pod: &Pod) -> Ruling {
        ruling(Some(&serde_json::from_value(json!({"rules": rules})).unwrap()), pod)
    }

    fn on(action: &str, operator: &str, values: &[i32]) -> Value {
        json!({"action": action, "onExitCodes": {"operator": operator, "values": values}})
    }

    #[test]
    fn exit_codes_choose_the_first_rule_that_fits() {
        let failed = pod(&[("main", 42), ("side", 0)], &[], &json!([]));
        let fail_job = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        let table = [
            (json!([]), Ruling::Count),
            (json!([on("Ignore", "In", &[1, 42])]), Ruling::Ignore),
            (json!([on("FailIndex", "In", &[42])]), Ruling::FailIndex),
            (json!([on("Count", "In", &[42]), on("Ignore", "In", &[42])]), Ruling::Count),
            (json!([on("Ignore", "In", &[1]), on("FailJob", "In", &[42])]), Ruling::FailJob(fail_job.to_owned())),
            (json!([on("Ignore", "NotIn", &[42])]), Ruling::Count),
            (json!([on("Ignore", "NotIn", &[1])]), Ruling::Ignore),
        ];
        for (rules, expected) in table {
            assert_eq!(says(&rules, &failed), expected, "{rules}");
        }
        assert!(ruling(None, &failed).counts());
    }

    #[test]
    fn a_rule_may_ask_for_one_container_and_looks_at_init_containers_too() {
        let named = |name: &str| {
            json!([{"action": "Ignore", "onExitCodes":
            {"containerName": name, "operator": "In", "values": [3]}}])
        };
        let failed = pod(&[("main", 1)], &[("setup", 3)], &json!([]));
        assert_eq!(says(&named("setup"), &failed), Ruling::Ignore);
        assert_eq!(says(&named("main"), &failed), Ruling::Count);
        let fine = pod(&[("main", 0)], &[], &json!([]));
        assert_eq!(says(&json!([on("Ignore", "NotIn", &[1])]), &fine), Ruling::Count, "a success fits no rule");
    }

    #[test]
    fn conditions_choose_a_rule_too() {
        let lost = pod(&[], &[], &json!([{"type": "DisruptionTarget", "status": "True"}]));
        let rule = |action: &str, kind: &str, status: &str| {
            json!([{"action": action,
            "onPodConditions": [{"type": kind, "status": status}]}])
        };
        assert_eq!(says(&rule("Ignore", "DisruptionTarget", "True"), &lost), Ruling::Ignore);
        assert_eq!(says(&rule("Ignore", "DisruptionTarget", "False"), &lost), Ruling::Count);
        assert_eq!(says(&rule("Ignore", "Other", "True"), &lost), Ruling::Count);
        let over = "Pod n/p has condition DisruptionTarget matching FailJob rule at index 0";
        assert_eq!(says(&rule("FailJob", "DisruptionTarget", "True"), &lost), Ruling::FailJob(over.to_owned()));
    }
}
