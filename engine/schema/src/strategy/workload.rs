//! Deployments and replica sets: a selector, a count and a pod template.

use serde_json::{Value, json};

use super::metadata::{self, label_selector};
use super::{IMMUTABLE, Strategy, checks, keep, pod};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `apps/v1` `Deployment`
pub(super) struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        fill_shared(spec);
        lookup::fill(spec, "revisionHistoryLimit", 10);
        lookup::fill(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = lookup::make_object(spec, "strategy") else { return };
        let kind = strategy.entry("type").or_insert(Value::Null);
        if kind.is_null() || *kind == "" {
            *kind = "RollingUpdate".into();
        }
        let strategy = &mut spec["strategy"];
        if lookup::text(strategy, "type") == "RollingUpdate" {
            lookup::fill(strategy, "rollingUpdate", json!({}));
            lookup::fill(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
            lookup::fill(&mut strategy["rollingUpdate"], "maxSurge", "25%");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        lookup::set(object, "status", json!({}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let Some(spec) = spec_of(object, &mut errors) else { return errors };
        let path = Path::Root.field("spec");
        shared(spec, old, &path, &mut errors);
        rollout(&spec["strategy"], &path.field("strategy"), &mut errors);
        not_negative(spec, "revisionHistoryLimit", &path, &mut errors);
        let ready = lookup::integer(spec, "minReadySeconds").unwrap_or(0);
        if let Some(deadline) = lookup::integer(spec, "progressDeadlineSeconds") {
            let path = path.field("progressDeadlineSeconds");
            if deadline < 0 {
                errors.push(FieldError::invalid(&path, &deadline.into(), "must be greater than or equal to 0"));
            }
            if deadline <= ready {
                errors.push(FieldError::invalid(&path, &deadline.into(), "must be greater than minReadySeconds"));
            }
        }
        errors
    }
}

/// `apps/v1` `ReplicaSet`
pub(super) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
            fill_shared(spec);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        lookup::set(object, "status", json!({ "replicas": 0 }));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        if let Some(spec) = spec_of(object, &mut errors) {
            shared(spec, old, &Path::Root.field("spec"), &mut errors);
        }
        errors
    }
}

fn fill_shared(spec: &mut Value) {
    lookup::fill(spec, "replicas", 1);
    if let Some(template) = lookup::at_mut(spec, "template.spec") {
        pod::fill_spec(template);
    }
}

fn spec_of<'a>(object: &'a Value, errors: &mut Vec<FieldError>) -> Option<&'a Value> {
    let spec = object.get("spec").filter(|spec| spec.is_object());
    if spec.is_none() {
        errors.push(FieldError::required(&Path::Root.field("spec"), ""));
    }
    spec
}

fn not_negative(spec: &Value, field: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(number) = lookup::integer(spec, field).filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&path.field(field), &number.into(), "must be greater than or equal to 0"));
    }
}

fn shared(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    not_negative(spec, "replicas", path, errors);
    not_negative(spec, "minReadySeconds", path, errors);
    selector(spec, path, errors);
    if old.is_some_and(|old| old["spec"].get("selector") != spec.get("selector")) {
        errors.push(FieldError::invalid(&path.field("selector"), &spec["selector"], IMMUTABLE));
    }
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
    pod::validate_template(template, &path, errors);
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
            if percent(unavailable).is_some_and(|percent| percent > 100) {
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

fn percent(value: &Value) -> Option<u32> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A count, or a share of the replicas.
fn share(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::String(_) if percent(value).is_none() => {
            let detail =
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%')";
            errors.push(FieldError::invalid(path, value, detail));
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
        }
        _ => {}
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
