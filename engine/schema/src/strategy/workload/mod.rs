//! What runs pods from a template: a selector, a count, and what all of them share.

mod replication;
mod set;

use serde_json::{Value, json};

use super::metadata::label_selector;
use super::rules::{Declared, Fill, Rule, check_at, fixed, not_negative, required};
use super::{checks, pod, rules};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

pub(crate) use replication::{CONTROLLER_REVISION, POD_TEMPLATE, REPLICATION_CONTROLLER};
pub(crate) use set::{DAEMON_SET, STATEFUL_SET};

/// `apps/v1` `Deployment`
pub(crate) static DEPLOYMENT: Declared = Declared {
    defaults: &[
        ("spec.replicas", Fill::Number(1)),
        ("spec.revisionHistoryLimit", Fill::Number(10)),
        ("spec.progressDeadlineSeconds", Fill::Number(600)),
        ("spec.strategy", Fill::Object),
        ("spec.strategy.type", Fill::Text("RollingUpdate")),
    ],
    fill: |object| {
        fill_template(object);
        if let Some(strategy) = lookup::at_mut(object, "spec.strategy")
            && lookup::text(strategy, "type") == "RollingUpdate"
        {
            lookup::fill(strategy, "rollingUpdate", json!({}));
            lookup::fill(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
            lookup::fill(&mut strategy["rollingUpdate"], "maxSurge", "25%");
        }
    },
    rules: &[required("spec")],
    more: |object, old, errors| {
        let path = Path::Root.field("spec");
        let spec = &object["spec"];
        shared(spec, old, &path, errors);
        rollout(&spec["strategy"], &path.field("strategy"), errors);
        let ready = lookup::integer(spec, "minReadySeconds").unwrap_or(0);
        if let Some(deadline) = lookup::integer(spec, "progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
            let detail = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid(&path.field("progressDeadlineSeconds"), &deadline.into(), detail));
        }
    },
    status_rules: COUNTS,
    ..Declared::SPECIFIED
};

/// `apps/v1` `ReplicaSet`
pub(crate) static REPLICA_SET: Declared = Declared {
    status: Some(|| json!({ "replicas": 0 })),
    defaults: &[("spec.replicas", Fill::Number(1))],
    fill: fill_template,
    rules: &[required("spec")],
    more: |object, old, errors| shared(&object["spec"], old, &Path::Root.field("spec"), errors),
    status_rules: COUNTS,
    ..Declared::SPECIFIED
};

/// What counts pods.
const COUNTS: &[Rule] = &[
    not_negative("status.replicas"),
    not_negative("status.readyReplicas"),
    not_negative("status.availableReplicas"),
    not_negative("status.updatedReplicas"),
    not_negative("status.currentReplicas"),
    not_negative("status.unavailableReplicas"),
    not_negative("status.fullyLabeledReplicas"),
    not_negative("status.terminatingReplicas"),
    not_negative("status.observedGeneration"),
    not_negative("status.collisionCount"),
    rules::with("status", fewer_than_all),
];

/// No part of the pods is more than all of them.
fn fewer_than_all(status: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let count = |field: &str| lookup::integer(status, field).unwrap_or(0);
    let mut compare = |field: &str, other: &str, detail: &str| {
        if count(field) > count(other) {
            errors.push(FieldError::invalid(&path.field(field), &count(field).into(), detail));
        }
    };
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        compare(field, "replicas", "cannot be greater than status.replicas");
    }
    compare("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas");
}

/// Fills in the pod template of a workload.
pub(super) fn fill_template(object: &mut Value) {
    if let Some(template) = lookup::at_mut(object, "spec.template.spec") {
        pod::fill_spec(template);
    }
}

/// What holds for every workload that keeps its pods running.
fn shared(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        return;
    }
    let numbers = [
        not_negative("replicas"),
        not_negative("minReadySeconds"),
        not_negative("revisionHistoryLimit"),
        not_negative("progressDeadlineSeconds"),
    ];
    check_at(&numbers, spec, None, path, errors);
    selector(spec, path, errors);
    check_at(&[fixed("selector")], spec, old.map(|old| &old["spec"]), path, errors);
    template(spec, path, errors);
}

fn selector(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("selector");
    let Some(selector) = lookup::at(spec, "selector") else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    label_selector(selector, &path, errors);
    let says_nothing = lookup::entries(selector, "matchLabels").next().is_none()
        && lookup::list(selector, "matchExpressions").is_empty();
    if says_nothing {
        errors.push(FieldError::invalid(&path, selector, "empty selector is invalid for deployment"));
    }
}

/// Checks a template whose labels the selector has to pick.
fn template(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("template");
    let Some(template) = lookup::at(spec, "template") else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    let metadata = path.field("metadata");
    let labels = lookup::at(template, "metadata.labels").unwrap_or(&Value::Null);
    if lookup::at(spec, "selector").is_some_and(|selector| checks::passes_over(selector, labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&metadata.field("labels"), labels, detail));
    }
    lasting_template(template, &path, errors);
}

/// Checks a template whose pods are always restarted.
fn lasting_template(template: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    pod::validate_template(template, path, errors);
    let spec = path.field("spec");
    let policy = lookup::text(template, "spec.restartPolicy");
    if !matches!(policy, "" | "Always") {
        errors.push(FieldError::not_supported(&spec.field("restartPolicy"), &policy.into(), &["Always"]));
    }
    if lookup::at(template, "spec.activeDeadlineSeconds").is_some() {
        let detail = "activeDeadlineSeconds in a workload that always restarts its pods is not supported";
        errors.push(FieldError::forbidden(&spec.field("activeDeadlineSeconds"), detail));
    }
}

fn rollout(strategy: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rolling = path.field("rollingUpdate");
    match lookup::text(strategy, "type") {
        "Recreate" if lookup::at(strategy, "rollingUpdate").is_some() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(&rolling, detail));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let amount = |field: &str| strategy["rollingUpdate"].get(field).unwrap_or(&Value::Null);
            let (unavailable, surge) = (amount("maxUnavailable"), amount("maxSurge"));
            share(unavailable, &rolling.field("maxUnavailable"), errors);
            share(surge, &rolling.field("maxSurge"), errors);
            let none = |value: &Value| *value == 0 || *value == "0%";
            if none(unavailable) && none(surge) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&rolling.field("maxUnavailable"), unavailable, detail));
            }
            if unavailable.as_str().and_then(checks::percent).is_some_and(|percent| percent > 100) {
                let detail = "must not be greater than 100%";
                errors.push(FieldError::invalid(&rolling.field("maxUnavailable"), unavailable, detail));
            }
        }
        other => {
            let known = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported(&path.field("type"), &other.into(), &known));
        }
    }
}

/// A count, or a share of the pods.
fn share(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Err(problem) = checks::share(value) {
        errors.push(FieldError::invalid(path, value, &problem));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::strategy::testing::{admit, errors, valid};

    fn deployment(spec: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
            "spec": {
                "selector": { "matchLabels": { "app": "a" } },
                "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": "x:1" }] } },
            },
        });
        for (name, value) in spec.as_object().expect("fields of a spec") {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_deployment_rolls_by_a_quarter() {
        let made = valid(deployment(&json!({})));
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(
            made["spec"]["strategy"],
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "25%", "maxSurge": "25%" } })
        );
        assert_eq!(made["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(made["spec"]["progressDeadlineSeconds"], 600);
        assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let made = valid(deployment(&json!({ "replicas": 0, "strategy": { "type": "Recreate" } })));
        assert_eq!(made["spec"]["replicas"], 0);
        assert_eq!(made["spec"]["strategy"], json!({ "type": "Recreate" }));
    }

    #[test]
    fn the_selector_picks_the_template_and_stays() {
        let found = errors(deployment(&json!({ "selector": { "matchLabels": { "app": "b" } } })));
        assert_eq!(
            found,
            [
                r#"spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`"#
            ]
        );
        assert_eq!(errors(deployment(&json!({ "selector": null }))), ["spec.selector: Required value"]);
        let old = valid(deployment(&json!({})));
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["more"] = json!("x");
        new["spec"]["template"]["metadata"]["labels"]["more"] = json!("x");
        assert_eq!(
            admit(new, Some(&old)).1,
            [r#"spec.selector: Invalid value: {"matchLabels":{"app":"a","more":"x"}}: field is immutable"#]
        );
    }

    #[test]
    fn errors_of_the_template_carry_the_whole_path() {
        let template = json!({
            "metadata": { "labels": { "app": "a" } },
            "spec": { "containers": [{ "name": "c" }], "restartPolicy": "Never", "activeDeadlineSeconds": 5 },
        });
        let found = errors(deployment(&json!({ "template": template })));
        assert_eq!(
            found,
            [
                "spec.template.spec.containers[0].image: Required value",
                r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in a workload that always restarts its pods is not supported",
            ]
        );
    }

    #[test]
    fn numbers_of_a_rollout_are_checked() {
        let rolling = |unavailable: Value, surge: Value| {
            let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } });
            errors(deployment(&json!({ "strategy": strategy })))
        };
        assert_eq!(
            rolling(json!(0), json!("0%")),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
        );
        assert_eq!(rolling(json!("half"), json!(-1)).len(), 2);
        assert_eq!(rolling(json!("101%"), json!(1)).len(), 1);
        let found =
            errors(deployment(&json!({ "replicas": -1, "minReadySeconds": 600, "strategy": { "type": "Other" } })));
        assert_eq!(
            found,
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                r#"spec.strategy.type: Unsupported value: "Other": supported values: "Recreate", "RollingUpdate""#,
                "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            ]
        );
    }

    #[test]
    fn a_status_is_never_taken_from_a_writer() {
        let mut object = deployment(&json!({}));
        object["status"] = json!({ "replicas": 7 });
        let made = valid(object);
        assert_eq!(made["status"], json!({}));
        let mut new = made.clone();
        new["status"] = json!({ "replicas": 9 });
        assert_eq!(admit(new, Some(&made)).0["status"], json!({}));
    }

    #[test]
    fn a_replica_set_is_filled_like_a_deployment() {
        let mut object = deployment(&json!({}));
        object["kind"] = json!("ReplicaSet");
        let made = valid(object);
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(made["status"], json!({ "replicas": 0 }));
        assert!(made["spec"].get("strategy").is_none());
    }
}
