//! Replication controllers, pod templates, and the revisions that sets remember.

use serde_json::{Value, json};

use super::super::metadata::label_map;
use super::super::pod;
use super::super::rules::{Declared, Fill, Generations, fixed, not_negative, required, required_as};
use super::{COUNTS, fill_template, lasting_template};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `v1` `ReplicationController`
pub(crate) static REPLICATION_CONTROLLER: Declared = Declared {
    status: Some(|| json!({ "replicas": 0 })),
    defaults: &[("spec.replicas", Fill::Number(1))],
    fill: |object| {
        fill_template(object);
        let labels = lookup::at(object, "spec.template.metadata.labels").cloned();
        let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) else {
            return;
        };
        if lookup::entries(object, "metadata.labels").next().is_none()
            && let Some(metadata) = object.get_mut("metadata")
        {
            lookup::set(metadata, "labels", labels.clone());
        }
        if lookup::entries(object, "spec.selector").next().is_none() {
            lookup::set(&mut object["spec"], "selector", labels);
        }
    },
    rules: &[required("spec"), not_negative("spec.replicas"), not_negative("spec.minReadySeconds")],
    more: |object, _, errors| of_labels(&object["spec"], &Path::Root.field("spec"), errors),
    status_rules: COUNTS,
    ..Declared::SPECIFIED
};

/// Checks a selector that is a plain map of labels, and the template that it has to pick.
fn of_labels(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        return;
    }
    label_map(spec.get("selector"), &path.field("selector"), errors);
    if lookup::entries(spec, "selector").next().is_none() {
        errors.push(FieldError::required(&path.field("selector"), ""));
    }
    let path = path.field("template");
    let Some(template) = lookup::at(spec, "template") else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    let labels = lookup::at(template, "metadata.labels").unwrap_or(&Value::Null);
    if lookup::entries(spec, "selector").any(|(key, value)| labels.get(key) != Some(value)) {
        let metadata = path.field("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&metadata.field("labels"), labels, detail));
    }
    lasting_template(template, &path, errors);
}

/// `v1` `PodTemplate`
pub(crate) static POD_TEMPLATE: Declared = Declared {
    generations: Generations::Of(&["template"]),
    fill: |object| {
        if let Some(spec) = lookup::at_mut(object, "template.spec") {
            pod::fill_spec(spec);
        }
    },
    rules: &[required("template")],
    more: |object, _, errors| {
        if let Some(template) = lookup::at(object, "template") {
            pod::validate_template(template, &Path::Root.field("template"), errors);
        }
    },
    ..Declared::PLAIN
};

/// `apps/v1` `ControllerRevision`
pub(crate) static CONTROLLER_REVISION: Declared = Declared {
    rules: &[required_as("data", "data is mandatory"), not_negative("revision"), fixed("data")],
    ..Declared::PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn template() -> Value {
        json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "x:1" }] } })
    }

    #[test]
    fn a_replication_controller_takes_its_labels_from_its_template() {
        let controller = |spec: Value| json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "r" }, "spec": spec });
        let made = valid(controller(json!({ "template": template() })));
        assert_eq!(
            (&made["spec"]["selector"], &made["metadata"]["labels"]),
            (&json!({ "a": "b" }), &json!({ "a": "b" }))
        );
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(
            fields(&errors(controller(json!({ "template": template(), "selector": { "a": "c" }, "replicas": -1 })))),
            ["spec.replicas", "spec.template.metadata.labels"]
        );
        assert_eq!(fields(&errors(controller(json!({})))), ["spec.selector", "spec.template"]);
    }

    #[test]
    fn a_template_is_filled_like_a_pod() {
        let made = valid(
            json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": "t" }, "template": template() }),
        );
        assert_eq!(made["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(
            fields(&errors(json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": "t" } }))),
            ["template"]
        );
    }

    #[test]
    fn a_revisions_data_stays() {
        let revision = |data: Value| json!({ "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": { "name": "r" }, "revision": 1, "data": data });
        let old = valid(revision(json!({ "spec": {} })));
        assert_eq!(fields(&admit(revision(json!({ "spec": { "a": 1 } })), Some(&old)).1), ["data"]);
        assert_eq!(
            fields(&errors(
                json!({ "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": { "name": "r" }, "revision": -1 })
            )),
            ["data", "revision"]
        );
    }
}
