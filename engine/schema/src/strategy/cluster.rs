//! The kinds a cluster itself consists of: namespaces, nodes, leases, events.

use serde_json::{Value, json};

use super::metadata::{self, text_rule};
use super::rules::{Declared, Rule, check, fixed, one_of, required, text};
use super::{Strategy, checks, keep};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// The label that says a namespace's name, so that selectors can pick it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer that holds a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// `v1` `Namespace`
pub(crate) struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let name = lookup::text(object, "metadata.name").to_owned();
        let metadata = object.get_mut("metadata").filter(|_| !name.is_empty());
        if let Some(labels) = metadata.and_then(|metadata| lookup::make_object(metadata, "labels")) {
            labels.insert(NAME_LABEL.to_owned(), name.into());
        }
        if let Some(status) = lookup::make_object(object, "status") {
            status.entry("phase").or_insert_with(|| "Active".into());
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        lookup::set(object, "status", json!({ "phase": "Active" }));
        let Some(spec) = lookup::make_object(object, "spec") else { return };
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|each| each == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        keep(object, old, "status");
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_label, &mut errors);
        errors
    }
}

/// `v1` `Node`
pub(crate) struct Node;

impl Strategy for Node {
    fn prepare_update(&self, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let spec = Path::Root.field("spec");
        let taints = spec.field("taints");
        for (index, taint) in lookup::list(object, "spec.taints").iter().enumerate() {
            let path = taints.index(index);
            text_rule(&path.field("key"), lookup::text(taint, "key"), checks::qualified_name, &mut errors);
            text_rule(&path.field("value"), lookup::text(taint, "value"), checks::label_value, &mut errors);
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            if !effects.contains(&lookup::text(taint, "effect")) {
                errors.push(FieldError::not_supported(&path.field("effect"), &taint["effect"], &effects));
            }
        }
        for field in ["podCIDR", "providerID"] {
            let before = old.map_or("", |old| lookup::text(&old["spec"], field));
            if !before.is_empty() && before != lookup::text(&object["spec"], field) {
                errors.push(FieldError::forbidden(&spec.field(field), "node updates may not change it once it is set"));
            }
        }
        errors
    }
}

/// `coordination.k8s.io/v1` `Lease`
pub(crate) struct Lease;

impl Strategy for Lease {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let spec = Path::Root.field("spec");
        if let Some(seconds) = lookup::integer(object, "spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid(
                &spec.field("leaseDurationSeconds"),
                &seconds.into(),
                "must be greater than 0",
            ));
        }
        if let Some(count) = lookup::integer(object, "spec.leaseTransitions").filter(|count| *count < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&spec.field("leaseTransitions"), &count.into(), detail));
        }
        errors
    }
}

/// `v1` `Event`
pub(crate) struct Event;

impl Strategy for Event {
    fn default(&self, object: &mut Value) {
        lookup::fill_zero(object, "type", "Normal");
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let about = lookup::text(object, "involvedObject.namespace");
        let own = lookup::text(object, "metadata.namespace");
        // What lives in no namespace is reported in the default one.
        let fits = if about.is_empty() { matches!(own, "" | "default" | "kube-system") } else { about == own };
        if !fits {
            let involved = Path::Root.field("involvedObject");
            let path = involved.field("namespace");
            errors.push(FieldError::invalid(&path, &about.into(), "does not match event.namespace"));
        }
        errors
    }
}

/// `events.k8s.io/v1` `Event`
pub(crate) static NEW_EVENT: Declared = Declared {
    rules: &[
        one_of("type", &["Normal", "Warning"]),
        fixed("regarding"),
        fixed("related"),
        fixed("reason"),
        fixed("action"),
        fixed("note"),
        fixed("reportingController"),
        fixed("reportingInstance"),
    ],
    more: |object, old, errors| {
        let about = lookup::text(object, "regarding.namespace");
        let own = lookup::text(object, "metadata.namespace");
        let fits = if about.is_empty() { matches!(own, "" | "default" | "kube-system") } else { about == own };
        if !fits {
            let regarding = Path::Root.field("regarding");
            let detail = "does not match event.namespace";
            errors.push(FieldError::invalid(&regarding.field("namespace"), &about.into(), detail));
        }
        // Who writes this version says when, who and what; what came from the older one need not.
        let is_new = lookup::at(object, "eventTime").is_some();
        if old.is_none() && (is_new || lookup::text(object, "deprecatedFirstTimestamp").is_empty()) {
            check(WHO_AND_WHAT, object, None, errors);
        }
    },
    ..Declared::PLAIN
};

const WHO_AND_WHAT: &[Rule] = &[
    required("eventTime"),
    required("reportingController"),
    text("reportingController", checks::qualified_name),
    required("reportingInstance"),
    required("action"),
    required("reason"),
    required("type"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::strategy::testing::{admit, errors, fields, valid};

    #[test]
    fn a_namespace_is_born_active_with_its_name_as_a_label() {
        let namespace = valid(
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a" }, "status": { "phase": "Terminating" } }),
        );
        assert_eq!(namespace["metadata"]["labels"], json!({ "kubernetes.io/metadata.name": "a" }));
        assert_eq!(namespace["spec"], json!({ "finalizers": ["kubernetes"] }));
        assert_eq!(namespace["status"], json!({ "phase": "Active" }));
        assert!(!errors(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a.b" } })).is_empty());
    }

    #[test]
    fn an_update_of_a_node_leaves_its_status_alone() {
        let old =
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" }, "status": { "phase": "old" } });
        let mut new = old.clone();
        new["status"]["phase"] = json!("new");
        new["spec"] = json!({ "unschedulable": true });
        let (updated, found) = admit(new, Some(&old));
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(updated["status"]["phase"], "old");
        assert_eq!(updated["spec"]["unschedulable"], true);
    }

    #[test]
    fn an_event_stands_beside_what_it_is_about() {
        let event = |namespace: &str, about: &str| {
            json!({
                "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e", "namespace": namespace },
                "involvedObject": { "kind": "Pod", "name": "p", "namespace": about },
            })
        };
        assert!(errors(event("a", "a")).is_empty());
        assert!(errors(event("default", "")).is_empty());
        assert_eq!(
            errors(event("a", "b")),
            [r#"involvedObject.namespace: Invalid value: "b": does not match event.namespace"#]
        );
    }

    #[test]
    fn an_event_of_the_newer_version_says_who_and_what() {
        let event = |rest: &str| {
            let rest: serde_json::Value = serde_json::from_str(rest).expect("JSON");
            let mut event = json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e", "namespace": "n" },
                "regarding": { "kind": "Pod", "name": "p", "namespace": "n" }, "eventTime": "2024-01-01T00:00:00.000000Z",
                "reportingController": "example.com/c", "reportingInstance": "c-1", "action": "Start", "reason": "Started", "type": "Normal",
            });
            for (name, value) in rest.as_object().into_iter().flatten() {
                event[name] = value.clone();
            }
            event
        };
        let old = valid(event("{}"));
        let found = admit(
            event(r#"{ "note": "more", "series": { "count": 2, "lastObservedTime": "2024-01-01T00:00:00.000000Z" } }"#),
            Some(&old),
        )
        .1;
        assert_eq!(fields(&found), ["note"]);
        let wrong = event(
            r#"{ "type": "Loud", "regarding": { "namespace": "m" }, "eventTime": null, "reportingController": "" }"#,
        );
        assert_eq!(fields(&errors(wrong)), ["type", "regarding.namespace", "eventTime", "reportingController"]);
    }

    #[test]
    fn a_leases_numbers_are_checked() {
        let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" }, "spec": { "leaseDurationSeconds": 0 } });
        assert_eq!(errors(lease), ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]);
    }
}
