//! What a node's row says.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, column, wide};
use crate::lookup::{entries, flag, list, text};
use crate::resource::{Cell, Column};

const UNKNOWN: &str = "<unknown>";

pub(crate) const NODE: &[Column] = &[
    NAME,
    column("Status", Cell::With(status)),
    column("Roles", Cell::With(roles)),
    AGE,
    column("Version", Cell::Text("status.nodeInfo.kubeletVersion", "")),
    wide("Internal-IP", Cell::With(internal)),
    wide("External-IP", Cell::With(external)),
    wide("OS-Image", Cell::Text("status.nodeInfo.osImage", UNKNOWN)),
    wide("Kernel-Version", Cell::Text("status.nodeInfo.kernelVersion", UNKNOWN)),
    wide("Container-Runtime", Cell::Text("status.nodeInfo.containerRuntimeVersion", UNKNOWN)),
];

fn status(node: &Value, _: Timestamp) -> Value {
    let ready = list(node, "status.conditions").iter().find(|each| text(each, "type") == "Ready");
    let word = match ready.map(|each| text(each, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if flag(node, "spec.unschedulable") { format!("{word},SchedulingDisabled").into() } else { word.into() }
}

fn roles(node: &Value, _: Timestamp) -> Value {
    let mut roles: Vec<&str> = entries(node, "metadata.labels")
        .filter_map(|(key, value)| match key {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.into() } else { roles.join(",").into() }
}

fn address(node: &Value, kind: &str) -> Value {
    let found = list(node, "status.addresses").iter().find(|each| text(each, "type") == kind);
    found.map_or(NONE, |each| text(each, "address")).into()
}

fn internal(node: &Value, _: Timestamp) -> Value {
    address(node, "InternalIP")
}

fn external(node: &Value, _: Timestamp) -> Value {
    address(node, "ExternalIP")
}
