//! What the rows of the plainer kinds say.

use jiff::Timestamp;
use serde_json::Value;

use super::human::since;
use super::{AGE, NAME, column, number, wide};
use crate::convert;
use crate::lookup::{entries, integer, list, text};
use crate::resource::{Cell, Column};

pub(crate) const NAMESPACE: &[Column] = &[NAME, column("Status", Cell::Text("status.phase", "")), AGE];

pub(crate) const COMPONENT: &[Column] = &[
    NAME,
    column("Status", Cell::With(health)),
    column("Message", Cell::With(|object, _| text(healthy(object), "message").into())),
    column("Error", Cell::With(|object, _| text(healthy(object), "error").into())),
];

pub(crate) const CONFIG_MAP: &[Column] = &[NAME, number("Data", Cell::With(keys)), AGE];

pub(crate) const SECRET: &[Column] =
    &[NAME, column("Type", Cell::Text("type", "")), number("Data", Cell::With(keys)), AGE];

pub(crate) const SERVICE_ACCOUNT: &[Column] = &[NAME, number("Secrets", Cell::With(secrets)), AGE];

pub(crate) const LEASE: &[Column] = &[NAME, column("Holder", Cell::Text("spec.holderIdentity", "")), AGE];

pub(crate) const EVENT: &[Column] = &[
    column("Last Seen", Cell::With(last_seen)),
    column("Type", Cell::Text("type", "")),
    column("Reason", Cell::Text("reason", "")),
    column("Object", Cell::With(about)),
    wide("Subobject", Cell::Text("involvedObject.fieldPath", "")),
    wide("Source", Cell::With(source)),
    column("Message", Cell::With(message)),
    wide("First Seen", Cell::With(first_seen)),
    Column { kind: "integer", ..wide("Count", Cell::With(count)) },
    wide("Name", Cell::Name),
];

/// The newer version shows what the older one shows.
pub(crate) const NEW_EVENT: &[Column] = &[
    column("Last Seen", Cell::With(|event, now| last_seen(&older(event), now))),
    column("Type", Cell::Text("type", "")),
    column("Reason", Cell::Text("reason", "")),
    column("Object", Cell::With(|event, now| about(&older(event), now))),
    wide("Subobject", Cell::Text("regarding.fieldPath", "")),
    wide("Source", Cell::With(|event, now| source(&older(event), now))),
    column("Message", Cell::With(|event, now| message(&older(event), now))),
    wide("First Seen", Cell::With(|event, now| first_seen(&older(event), now))),
    Column { kind: "integer", ..wide("Count", Cell::With(|event, now| count(&older(event), now))) },
    wide("Name", Cell::Name),
];

fn older(event: &Value) -> Value {
    convert::event(event.clone(), "v1")
}

fn healthy(component: &Value) -> &Value {
    list(component, "conditions").iter().find(|each| text(each, "type") == "Healthy").unwrap_or(&Value::Null)
}

fn health(component: &Value, _: Timestamp) -> Value {
    match text(healthy(component), "status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    }
    .into()
}

fn keys(object: &Value, _: Timestamp) -> Value {
    (entries(object, "data").count() + entries(object, "binaryData").count()).into()
}

fn secrets(account: &Value, _: Timestamp) -> Value {
    list(account, "secrets").len().into()
}

/// The first of some times that is there.
fn moment<'a>(event: &'a Value, paths: &[&str]) -> &'a str {
    paths.iter().map(|path| text(event, path)).find(|text| !text.is_empty()).unwrap_or("")
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let last = moment(event, &["series.lastObservedTime", "lastTimestamp", "firstTimestamp", "eventTime"]);
    since(last, now).into()
}

fn first_seen(event: &Value, now: Timestamp) -> Value {
    since(moment(event, &["firstTimestamp", "eventTime"]), now).into()
}

fn about(event: &Value, _: Timestamp) -> Value {
    let (kind, name) = (text(event, "involvedObject.kind").to_lowercase(), text(event, "involvedObject.name"));
    if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() }
}

fn source(event: &Value, _: Timestamp) -> Value {
    let first = |paths: [&str; 2]| moment(event, &paths);
    let component = first(["source.component", "reportingComponent"]);
    let host = first(["source.host", "reportingInstance"]);
    if host.is_empty() { component.into() } else { format!("{component}, {host}").into() }
}

fn message(event: &Value, _: Timestamp) -> Value {
    text(event, "message").trim().into()
}

fn count(event: &Value, _: Timestamp) -> Value {
    let count = integer(event, "series.count").or_else(|| integer(event, "count")).unwrap_or(0);
    count.max(1).into()
}
