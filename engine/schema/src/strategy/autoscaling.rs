//! Autoscalers, in both of their versions.

use serde_json::{Value, json};

use super::Strategy as _;
use super::checks;
use super::rules::{
    Declared, Fill, Generations, between, check_at, not_negative, one_of, positive, required, required_as, text, with,
};
use crate::convert;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `autoscaling/v2` `HorizontalPodAutoscaler`
pub(crate) static AUTOSCALER: Declared = Declared {
    status: Some(|| json!({ "currentMetrics": null, "desiredReplicas": 0 })),
    generations: Generations::None,
    defaults: &[("spec.minReplicas", Fill::Number(1))],
    fill: |object| {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if lookup::list(spec, "metrics").is_empty() {
            let target = json!({ "type": "Utilization", "averageUtilization": 80 });
            lookup::set(
                spec,
                "metrics",
                json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }]),
            );
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) {
            fill_behavior(behavior);
        }
    },
    rules: &[
        required("spec"),
        between("spec.minReplicas", 1, i64::MAX),
        with("spec", bounds),
        with("spec.scaleTargetRef", target_ref),
        with("spec.metrics[]", metric),
        with("spec.behavior.scaleUp", scaling),
        with("spec.behavior.scaleDown", scaling),
    ],
    status_rules: &[not_negative("status.currentReplicas"), not_negative("status.desiredReplicas")],
    ..Declared::SPECIFIED
};

/// `autoscaling/v1` `HorizontalPodAutoscaler`
pub(crate) static AUTOSCALER_V1: Declared = Declared {
    status: Some(|| json!({ "currentReplicas": 0, "desiredReplicas": 0 })),
    generations: Generations::None,
    defaults: &[("spec.minReplicas", Fill::Number(1))],
    fill: |object| {
        let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let measured = annotations.and_then(|annotations| annotations.get(convert::METRICS)).is_some();
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object() && !measured) else { return };
        lookup::fill(spec, "targetCPUUtilizationPercentage", 80);
    },
    rules: &[
        required("spec"),
        between("spec.minReplicas", 1, i64::MAX),
        with("spec", bounds),
        with("spec.scaleTargetRef", target_ref),
        positive("spec.targetCPUUtilizationPercentage"),
    ],
    more: as_second,
    status_rules: &[not_negative("status.currentReplicas"), not_negative("status.desiredReplicas")],
    ..Declared::SPECIFIED
};

/// What the first version says in annotations is judged as what the second one makes of it.
fn as_second(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if errors.is_empty() {
        let second = |value: &Value| convert::autoscaler(value.clone(), "autoscaling/v2");
        errors.extend(AUTOSCALER.validate(&second(object), old.map(second).as_ref()));
    }
}

/// Whoever says something about a direction gets what is usual for the rest.
fn fill_behavior(behavior: &mut Value) {
    let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    let directions = [
        ("scaleUp", Some(0), json!([{ "type": "Pods", "value": 4, "periodSeconds": 15 }, percent])),
        ("scaleDown", None, json!([percent])),
    ];
    for (name, window, policies) in directions {
        lookup::fill(behavior, name, json!({}));
        let rules = &mut behavior[name];
        if let Some(window) = window {
            lookup::fill(rules, "stabilizationWindowSeconds", window);
        }
        lookup::fill_zero(rules, "selectPolicy", "Max");
        if lookup::list(rules, "policies").is_empty() {
            lookup::fill(rules, "policies", policies);
        }
    }
}

fn bounds(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (least, most) = (lookup::integer(spec, "minReplicas"), lookup::integer(spec, "maxReplicas").unwrap_or(0));
    let path = path.field("maxReplicas");
    if most < 1 {
        errors.push(FieldError::invalid(&path, &most.into(), "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        errors.push(FieldError::invalid(&path, &most.into(), "must be greater than or equal to `minReplicas`"));
    }
}

fn target_ref(target: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules =
        [required("kind"), text("kind", checks::path_segment), required("name"), text("name", checks::path_segment)];
    check_at(&rules, target, None, path, errors);
}

/// The sources of a metric: its type, and the field that describes it.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn metric(metric: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kind = lookup::text(metric, "type");
    let types: Vec<&str> = METRICS.iter().map(|(kind, _)| *kind).collect();
    let Some((_, field)) = METRICS.iter().find(|(name, _)| *name == kind) else {
        let path = path.field("type");
        errors.push(match kind {
            "" => FieldError::required(&path, "must specify a metric source type"),
            other => FieldError::not_supported(&path, &other.into(), &types),
        });
        return;
    };
    for (_, other) in METRICS.iter().filter(|(_, other)| other != field && lookup::at(metric, other).is_some()) {
        let detail = "must populate the given metric source only";
        errors.push(FieldError::forbidden(&path.field(other), detail));
    }
    let Some(source) = lookup::at(metric, field) else {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.field(field), detail));
        return;
    };
    let path = path.field(field);
    let named = if matches!(kind, "Resource" | "ContainerResource") { "name" } else { "metric.name" };
    let mut rules = vec![required_as(named, "must specify a metric name"), with("target", target)];
    if named == "metric.name" {
        rules.push(required("metric"));
    }
    match kind {
        "ContainerResource" => rules.push(required("container")),
        "Object" => rules.push(with("describedObject", target_ref)),
        _ => {}
    }
    check_at(&rules, source, None, &path, errors);
}

fn target(target: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        required_as("type", "must specify a metric target type"),
        one_of("type", &["AverageValue", "Utilization", "Value"]),
        positive("averageUtilization"),
        with("value", above_nought),
        with("averageValue", above_nought),
    ];
    check_at(&rules, target, None, path, errors);
    let needed = match lookup::text(target, "type") {
        "AverageValue" => "averageValue",
        "Utilization" => "averageUtilization",
        "Value" => "value",
        _ => return,
    };
    if lookup::at(target, needed).is_none() {
        errors.push(FieldError::required(&path.field(needed), "must set what the target type names"));
    }
}

fn above_nought(amount: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if super::pod::nanos(amount).is_some_and(|amount| amount <= 0) {
        errors.push(FieldError::invalid(path, amount, "must be positive"));
    }
}

fn scaling(rules: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let checks = [
        between("stabilizationWindowSeconds", 0, 3600),
        one_of("selectPolicy", &["Disabled", "Max", "Min"]),
        required_as("policies", "must specify at least one Policy"),
        required("policies[].type"),
        one_of("policies[].type", &["Pods", "Percent"]),
        positive("policies[].value"),
        between("policies[].periodSeconds", 1, 1800),
    ];
    check_at(&checks, rules, None, path, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{errors, fields, valid};

    fn scaler(version: &str, spec: &Value) -> Value {
        let mut object = json!({
            "apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
            "spec": { "maxReplicas": 3, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" } },
        });
        for (name, value) in spec.as_object().into_iter().flatten() {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_scaler_watches_the_processor_unless_told_otherwise() {
        let made = valid(scaler("v2", &json!({ "behavior": { "scaleDown": { "selectPolicy": "Min" } } })));
        assert_eq!(made["spec"]["minReplicas"], 1);
        assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(made["spec"]["behavior"]["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        assert_eq!(made["spec"]["behavior"]["scaleDown"]["selectPolicy"], "Min");
        let first = valid(scaler("v1", &json!({})));
        assert_eq!(
            (&first["spec"]["minReplicas"], &first["spec"]["targetCPUUtilizationPercentage"]),
            (&json!(1), &json!(80))
        );
    }

    #[test]
    fn what_the_first_version_says_in_annotations_is_judged_too() {
        let annotated = |metrics: Value, behavior: Value| {
            let mut object = scaler("v1", &json!({}));
            object["metadata"]["annotations"] = json!({ convert::METRICS: metrics.to_string(), "autoscaling.alpha.kubernetes.io/behavior": behavior.to_string() });
            object
        };
        let pods = json!([{ "type": "Pods", "pods": { "metricName": "hits", "targetAverageValue": "10" } }]);
        let calm = json!({ "scaleDown": { "stabilizationWindowSeconds": 60, "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 15 }] } });
        let good = valid(annotated(pods.clone(), calm.clone()));
        assert_eq!(good["spec"].get("targetCPUUtilizationPercentage"), None);
        let restless = json!({ "scaleDown": { "stabilizationWindowSeconds": 4000, "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 15 }] } });
        assert_eq!(fields(&errors(annotated(pods, restless))), ["spec.behavior.scaleDown.stabilizationWindowSeconds"]);
        let nameless = json!([{ "type": "Resource", "resource": { "targetAverageUtilization": 0 } }]);
        assert_eq!(
            fields(&errors(annotated(nameless, calm))),
            ["spec.metrics[0].resource.name", "spec.metrics[0].resource.target.averageUtilization"]
        );
    }

    #[test]
    fn what_is_wrong_with_a_scaler_is_named() {
        let wrong = scaler(
            "v2",
            &json!({
                "minReplicas": 5, "scaleTargetRef": { "kind": "a/b", "name": "" },
                "metrics": [{ "type": "Pods" }, { "type": "Weather" }, { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization" } } }],
                "behavior": { "scaleUp": { "policies": [{ "type": "Pods", "value": 0, "periodSeconds": 9000 }] } },
            }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.maxReplicas",
                "spec.scaleTargetRef.kind",
                "spec.scaleTargetRef.name",
                "spec.metrics[0].pods",
                "spec.metrics[1].type",
                "spec.metrics[2].resource.target.averageUtilization",
                "spec.behavior.scaleUp.policies[0].value",
                "spec.behavior.scaleUp.policies[0].periodSeconds",
            ]
        );
        let wrong = scaler("v1", &json!({ "minReplicas": 0, "targetCPUUtilizationPercentage": 0 }));
        assert_eq!(fields(&errors(wrong)), ["spec.minReplicas", "spec.targetCPUUtilizationPercentage"]);
    }
}
