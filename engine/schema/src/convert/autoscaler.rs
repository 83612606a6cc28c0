//! Autoscalers: what the first version has no field for stands in annotations there, under the names and in the form
//! that every reader of that version expects.

use serde_json::{Map, Value, json};

use crate::lookup;

/// What is measured beside the processor.
pub(crate) const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// An autoscaler in the version that is named.
pub(crate) fn autoscaler(mut value: Value, api_version: &str) -> Value {
    if lookup::text(&value, "apiVersion") == api_version || !value.is_object() {
        return value;
    }
    lookup::set(&mut value, "apiVersion", api_version);
    if api_version.ends_with("/v1") {
        to_first(&mut value);
    } else {
        to_second(&mut value);
    }
    value
}

fn to_first(value: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = value.get_mut("spec").filter(|spec| spec.is_object()) {
        if let Some(Value::Array(mut metrics)) = lookup::remove(spec, "metrics") {
            let processor = metrics.iter().position(is_processor_share);
            if let Some(metric) = processor.map(|at| metrics.remove(at)) {
                let share = &metric["resource"]["target"]["averageUtilization"];
                lookup::set(spec, "targetCPUUtilizationPercentage", share.clone());
            }
            if !metrics.is_empty() {
                notes.push((METRICS, metrics.into_iter().map(|metric| older(metric, "target", "target")).collect()));
            }
        }
        notes.extend(lookup::remove(spec, "behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = value.get_mut("status").filter(|status| status.is_object()) {
        if let Some(Value::Array(mut metrics)) = lookup::remove(status, "currentMetrics") {
            let processor = metrics.iter().position(is_current_processor);
            if let Some(metric) = processor.map(|at| metrics.remove(at)) {
                let share = &metric["resource"]["current"]["averageUtilization"];
                lookup::set(status, "currentCPUUtilizationPercentage", share.clone());
            }
            if !metrics.is_empty() {
                let metrics = metrics.into_iter().map(|metric| older(metric, "current", "current"));
                notes.push((CURRENT_METRICS, metrics.collect()));
            }
        }
        notes.extend(lookup::remove(status, "conditions").map(|conditions| (CONDITIONS, conditions)));
        lookup::fill(status, "currentReplicas", 0);
    }
    annotate(value, notes);
}

fn annotate(value: &mut Value, notes: Vec<(&str, Value)>) {
    let annotations = value.get_mut("metadata").filter(|metadata| metadata.is_object());
    let Some(metadata) = annotations.filter(|_| !notes.is_empty()) else { return };
    if let Some(annotations) = lookup::make_object(metadata, "annotations") {
        annotations.extend(notes.into_iter().map(|(name, note)| (name.to_owned(), note.to_string().into())));
    }
}

fn to_second(value: &mut Value) {
    let [metrics, current, conditions, behavior] =
        [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].map(|name| take_note(value, name));
    if let Some(spec) = value.get_mut("spec").filter(|spec| spec.is_object()) {
        let mut all: Vec<Value> = list(metrics).into_iter().map(|metric| newer(metric, "target", "target")).collect();
        if let Some(share) = lookup::remove(spec, "targetCPUUtilizationPercentage").filter(|share| !share.is_null()) {
            let target = json!({ "type": "Utilization", "averageUtilization": share });
            all.push(json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
        }
        if !all.is_empty() {
            lookup::set(spec, "metrics", all);
        }
        if let Some(behavior) = behavior.filter(Value::is_object) {
            lookup::set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = value.get_mut("status").filter(|status| status.is_object()) {
        // The first version always writes it.
        if lookup::integer(status, "currentReplicas") == Some(0) {
            lookup::remove(status, "currentReplicas");
        }
        let mut all: Vec<Value> = list(current).into_iter().map(|metric| newer(metric, "current", "current")).collect();
        if let Some(share) = lookup::remove(status, "currentCPUUtilizationPercentage").filter(|share| !share.is_null())
        {
            all.push(json!({ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": share } } }));
        }
        lookup::set(status, "currentMetrics", if all.is_empty() { Value::Null } else { all.into() });
        if let Some(conditions) = conditions.filter(Value::is_array) {
            lookup::set(status, "conditions", conditions);
        }
    }
}

/// What an annotation says, and the annotation gone; what nobody can read is dropped.
fn take_note(value: &mut Value, name: &str) -> Option<Value> {
    let metadata = value.get_mut("metadata")?;
    let note = lookup::remove(metadata.get_mut("annotations")?, name)?;
    if metadata["annotations"].as_object().is_some_and(Map::is_empty) {
        lookup::remove(metadata, "annotations");
    }
    serde_json::from_str(note.as_str()?).ok()
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// The one metric for which the first version has a field.
fn is_processor_share(metric: &Value) -> bool {
    let source = &metric["resource"];
    metric["type"] == "Resource"
        && source["name"] == "cpu"
        && source["target"]["averageUtilization"].is_number()
        && only(&source["target"], &["type", "averageUtilization"])
}

fn is_current_processor(metric: &Value) -> bool {
    let source = &metric["resource"];
    metric["type"] == "Resource"
        && source["name"] == "cpu"
        && source["current"]["averageUtilization"].is_number()
        && only(&source["current"], &["averageUtilization"])
}

fn only(object: &Value, fields: &[&str]) -> bool {
    object.as_object().is_some_and(|object| object.keys().all(|key| fields.contains(&key.as_str())))
}

/// The first version's names of amounts, by metric type; `X` stands for what is measured: a target or the present.
const AMOUNTS: [(&str, &[(&str, &str)]); 5] = [
    (
        "resource",
        &[("averageUtilization", "XAverageUtilization"), ("averageValue", "XAverageValue"), ("value", "XValue")],
    ),
    (
        "containerResource",
        &[("averageUtilization", "XAverageUtilization"), ("averageValue", "XAverageValue"), ("value", "XValue")],
    ),
    ("pods", &[("averageValue", "XAverageValue"), ("value", "XValue"), ("averageUtilization", "XAverageUtilization")]),
    ("object", &[("value", "XValue"), ("averageValue", "averageValue"), ("averageUtilization", "XAverageUtilization")]),
    (
        "external",
        &[("value", "XValue"), ("averageValue", "XAverageValue"), ("averageUtilization", "XAverageUtilization")],
    ),
];

/// The name of an amount: `targetValue`.
fn amount_name(pattern: &str, measured: &str) -> String {
    match pattern.strip_prefix('X') {
        Some(rest) => format!("{measured}{rest}"),
        None => pattern.to_owned(),
    }
}

/// A metric in the form that the first version's annotation has: amounts beside each other instead of in an object.
fn older(mut metric: Value, holder: &str, measured: &str) -> Value {
    for (kind, amounts) in AMOUNTS {
        let Some(source) = metric.get_mut(kind).filter(|source| source.is_object()) else { continue };
        let Some(Value::Object(held)) = lookup::remove(source, holder) else { continue };
        if let Some(named) = lookup::remove(source, "metric") {
            rename(
                source,
                &named,
                if kind == "external" { ["metricName", "metricSelector"] } else { ["metricName", "selector"] },
            );
        }
        if let Some(target) = lookup::remove(source, "describedObject") {
            lookup::set(source, "target", target);
        }
        for (name, pattern) in amounts {
            if let Some(amount) = held.get(*name) {
                lookup::set(source, &amount_name(pattern, measured), amount.clone());
            }
        }
        // The form has no place for the type, which follows from the amount where there is but one.
        if let Some(kind) = held.get("type").filter(|kind| type_of(&held) != **kind) {
            lookup::set(source, "targetType", kind.clone());
        }
    }
    metric
}

fn rename(source: &mut Value, named: &Value, [name, selector]: [&str; 2]) {
    for (from, to) in [("name", name), ("selector", selector)] {
        if let Some(value) = named.get(from) {
            lookup::set(source, to, value.clone());
        }
    }
}

/// The type that a target's amounts speak for.
fn type_of(held: &Map<String, Value>) -> &'static str {
    if held.contains_key("averageUtilization") {
        "Utilization"
    } else if held.contains_key("averageValue") {
        "AverageValue"
    } else {
        "Value"
    }
}

/// The way back.
fn newer(mut metric: Value, holder: &str, measured: &str) -> Value {
    for (kind, amounts) in AMOUNTS {
        let Some(source) = metric.get_mut(kind).filter(|source| source.is_object()) else { continue };
        let mut held = Map::new();
        for (name, pattern) in amounts {
            if let Some(amount) = lookup::remove(source, &amount_name(pattern, measured)) {
                held.insert((*name).to_owned(), amount);
            }
        }
        let given = lookup::remove(source, "targetType");
        if holder == "target" {
            held.insert("type".to_owned(), given.unwrap_or_else(|| type_of(&held).into()));
        }
        let mut named = Map::new();
        for (from, to) in [("metricName", "name"), ("metricSelector", "selector"), ("selector", "selector")] {
            if let Some(value) = lookup::remove(source, from) {
                named.insert(to.to_owned(), value);
            }
        }
        if !named.is_empty() {
            lookup::set(source, "metric", named);
        }
        if kind == "object"
            && let Some(target) = lookup::remove(source, "target")
        {
            lookup::set(source, "describedObject", target);
        }
        lookup::set(source, holder, held);
    }
    metric
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scaler(metrics: &Value, behavior: Option<Value>) -> Value {
        let mut value = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
            "spec": { "maxReplicas": 3, "metrics": metrics },
            "status": { "currentReplicas": 1, "desiredReplicas": 1, "currentMetrics": null,
                        "conditions": [{ "type": "AbleToScale", "status": "True" }] },
        });
        if let Some(behavior) = behavior {
            value["spec"]["behavior"] = behavior;
        }
        value
    }

    fn processor(share: i64) -> Value {
        json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": share } } })
    }

    #[test]
    fn the_processors_share_has_a_field_of_its_own() {
        let first = autoscaler(scaler(&json!([processor(70)]), None), "autoscaling/v1");
        assert_eq!(first["apiVersion"], "autoscaling/v1");
        assert_eq!(first["spec"], json!({ "maxReplicas": 3, "targetCPUUtilizationPercentage": 70 }));
        let annotations = &first["metadata"]["annotations"];
        assert_eq!(annotations.as_object().map(Map::len), Some(1));
        assert_eq!(annotations[CONDITIONS], r#"[{"type":"AbleToScale","status":"True"}]"#);
        assert!(first["status"].get("conditions").is_none());
    }

    #[test]
    fn other_metrics_are_written_as_the_first_version_writes_them() {
        let metrics = json!([
            { "type": "Pods", "pods": { "metric": { "name": "hits", "selector": {} }, "target": { "type": "AverageValue", "averageValue": "10" } } },
            { "type": "Object", "object": { "describedObject": { "kind": "Service", "name": "s" }, "metric": { "name": "q" }, "target": { "type": "Value", "value": "5" } } },
        ]);
        let first = autoscaler(scaler(&metrics, None), "autoscaling/v1");
        let note = first["metadata"]["annotations"][METRICS].as_str().expect("an annotation");
        assert_eq!(
            serde_json::from_str::<Value>(note).expect("JSON"),
            json!([
                { "type": "Pods", "pods": { "metricName": "hits", "selector": {}, "targetAverageValue": "10" } },
                { "type": "Object", "object": { "metricName": "q", "target": { "kind": "Service", "name": "s" }, "targetValue": "5" } },
            ])
        );
    }

    #[test]
    fn what_nobody_can_read_is_dropped() {
        let first = json!({ "apiVersion": "autoscaling/v1", "metadata": { "annotations": { METRICS: "{", BEHAVIOR: "1", "a": "b" } }, "spec": {} });
        let second = autoscaler(first, "autoscaling/v2");
        assert_eq!(second["metadata"]["annotations"], json!({ "a": "b" }));
        assert_eq!(second["spec"], json!({}));
        assert_eq!(autoscaler(json!([]), "autoscaling/v1"), json!([]));
    }

    fn metric() -> impl Strategy<Value = Value> {
        let amounts = prop::sample::select(vec![
            json!({ "type": "Utilization", "averageUtilization": 50 }),
            json!({ "type": "AverageValue", "averageValue": "5" }),
            json!({ "type": "Value", "value": "7" }),
            json!({ "type": "Value", "value": "7", "averageValue": "1" }),
        ]);
        let named = prop::sample::select(vec![
            json!({ "name": "m" }),
            json!({ "name": "m", "selector": { "matchLabels": { "a": "b" } } }),
        ]);
        (0..5_usize, amounts, named).prop_map(|(kind, target, metric)| match kind {
            0 => json!({ "type": "Resource", "resource": { "name": "memory", "target": target } }),
            1 => json!({ "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "c", "target": target } }),
            2 => json!({ "type": "Pods", "pods": { "metric": metric, "target": target } }),
            3 => json!({ "type": "Object", "object": { "describedObject": { "kind": "K", "name": "n" }, "metric": metric, "target": target } }),
            _ => json!({ "type": "External", "external": { "metric": metric, "target": target } }),
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lost_there_and_back(others in prop::collection::vec(metric(), 0..4), share in prop::option::of(1_i64..100), behaves: bool) {
            // The first version keeps the processor's share apart, so it comes last.
            let metrics: Vec<Value> = others.into_iter().chain(share.map(processor)).collect();
            let behavior = behaves.then(|| json!({ "scaleUp": { "selectPolicy": "Max" } }));
            let mut before = scaler(&metrics.into(), behavior);
            if before["spec"]["metrics"] == json!([]) {
                lookup::remove(&mut before["spec"], "metrics");
            }
            let after = autoscaler(autoscaler(before.clone(), "autoscaling/v1"), "autoscaling/v2");
            prop_assert_eq!(after, before);
        }
    }
}
