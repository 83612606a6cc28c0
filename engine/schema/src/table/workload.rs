//! What the rows of workloads say.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, column, number, wide};
use crate::lookup::{at, entries, flag, integer, list, text};
use crate::resource::{Cell, Column};

pub(crate) const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", Cell::With(ready)),
    number("Up-to-date", Cell::Number("status.updatedReplicas")),
    number("Available", Cell::Number("status.availableReplicas")),
    AGE,
    wide("Containers", Cell::With(containers)),
    wide("Images", Cell::With(images)),
    wide("Selector", Cell::With(selector)),
];

pub(crate) const REPLICA_SET: &[Column] = &[
    NAME,
    number("Desired", Cell::Number("spec.replicas")),
    number("Current", Cell::Number("status.replicas")),
    number("Ready", Cell::Number("status.readyReplicas")),
    AGE,
    wide("Containers", Cell::With(containers)),
    wide("Images", Cell::With(images)),
    wide("Selector", Cell::With(selector)),
];

pub(crate) const REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    number("Desired", Cell::Number("spec.replicas")),
    number("Current", Cell::Number("status.replicas")),
    number("Ready", Cell::Number("status.readyReplicas")),
    AGE,
    wide("Containers", Cell::With(containers)),
    wide("Images", Cell::With(images)),
    wide("Selector", Cell::With(|object, _| labels(object, "spec.selector").into())),
];

pub(crate) const STATEFUL_SET: &[Column] = &[
    NAME,
    column("Ready", Cell::With(ready)),
    AGE,
    wide("Containers", Cell::With(containers)),
    wide("Images", Cell::With(images)),
];

pub(crate) const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired", Cell::Number("status.desiredNumberScheduled")),
    number("Current", Cell::Number("status.currentNumberScheduled")),
    number("Ready", Cell::Number("status.numberReady")),
    number("Up-to-date", Cell::Number("status.updatedNumberScheduled")),
    number("Available", Cell::Number("status.numberAvailable")),
    column("Node Selector", Cell::With(|object, _| labels(object, "spec.template.spec.nodeSelector").into())),
    AGE,
    wide("Containers", Cell::With(containers)),
    wide("Images", Cell::With(images)),
    wide("Selector", Cell::With(selector)),
];

pub(crate) const POD_TEMPLATE: &[Column] = &[
    NAME,
    column("Containers", Cell::With(|object, _| all_of(list(object, "template.spec.containers"), "name"))),
    column("Images", Cell::With(|object, _| all_of(list(object, "template.spec.containers"), "image"))),
    column("Pod Labels", Cell::With(|object, _| labels(object, "template.metadata.labels").into())),
];

pub(crate) const CONTROLLER_REVISION: &[Column] =
    &[NAME, column("Controller", Cell::With(controller)), number("Revision", Cell::Number("revision")), AGE];

/// The owner that controls an object: `daemonset.apps/web`.
fn controller(object: &Value, _: Timestamp) -> Value {
    let mut owners = list(object, "metadata.ownerReferences").iter();
    let Some(owner) = owners.find(|owner| flag(owner, "controller")) else { return NONE.into() };
    let kind = text(owner, "kind").to_lowercase();
    let group = text(owner, "apiVersion").rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{kind}{group}/{}", text(owner, "name")).into()
}

fn ready(object: &Value, _: Timestamp) -> Value {
    let count = |path: &str| integer(object, path).unwrap_or(0);
    format!("{}/{}", count("status.readyReplicas"), count("spec.replicas")).into()
}

fn all_of(items: &[Value], field: &str) -> Value {
    items.iter().map(|each| text(each, field)).collect::<Vec<_>>().join(",").into()
}

pub(super) fn containers(object: &Value, _: Timestamp) -> Value {
    all_of(list(object, "spec.template.spec.containers"), "name")
}

pub(super) fn images(object: &Value, _: Timestamp) -> Value {
    all_of(list(object, "spec.template.spec.containers"), "image")
}

pub(super) fn selector(object: &Value, _: Timestamp) -> Value {
    at(object, "spec.selector").map_or_else(|| NONE.to_owned(), label_selector).into()
}

/// A label selector as people type it.
pub(super) fn label_selector(selector: &Value) -> String {
    let mut terms: Vec<String> = entries(selector, "matchLabels")
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    terms.sort_unstable();
    for term in list(selector, "matchExpressions") {
        let key = text(term, "key");
        let values: Vec<&str> = list(term, "values").iter().filter_map(Value::as_str).collect();
        terms.push(match text(term, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    if terms.is_empty() { NONE.to_owned() } else { terms.join(",") }
}

/// A map of labels as people type it.
pub(super) fn labels(object: &Value, path: &str) -> String {
    let mut all: Vec<String> =
        entries(object, path).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    all.sort_unstable();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}
