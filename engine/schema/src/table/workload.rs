//! What the rows of deployments and replica sets say.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, column, number, wide};
use crate::lookup::{at, entries, integer, list, text};
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

fn ready(object: &Value, _: Timestamp) -> Value {
    let count = |path: &str| integer(object, path).unwrap_or(0);
    format!("{}/{}", count("status.readyReplicas"), count("spec.replicas")).into()
}

fn of_containers(object: &Value, field: &str) -> Value {
    let all: Vec<&str> = list(object, "spec.template.spec.containers").iter().map(|each| text(each, field)).collect();
    all.join(",").into()
}

fn containers(object: &Value, _: Timestamp) -> Value {
    of_containers(object, "name")
}

fn images(object: &Value, _: Timestamp) -> Value {
    of_containers(object, "image")
}

fn selector(object: &Value, _: Timestamp) -> Value {
    at(object, "spec.selector").map_or_else(|| NONE.to_owned(), label_selector).into()
}

/// A label selector as people type it.
fn label_selector(selector: &Value) -> String {
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
