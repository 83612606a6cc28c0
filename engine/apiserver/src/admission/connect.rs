//! Streams to and through objects, which the chain judges by their options.

use serde_json::{Map, Value};

use shipway_schema::Resource;

use super::{Operation, admit_below, is};
use crate::call::Call;
use crate::commit::Place;
use crate::error::ApiError;

/// What is connected to, and the kind of its options.
const STREAMS: [(&str, &str, &str); 6] = [
    ("Pod", "attach", "PodAttachOptions"),
    ("Pod", "exec", "PodExecOptions"),
    ("Pod", "portforward", "PodPortForwardOptions"),
    ("Pod", "proxy", "PodProxyOptions"),
    ("Service", "proxy", "ServiceProxyOptions"),
    ("Node", "proxy", "NodeProxyOptions"),
];

/// Lets webhooks and policies refuse a stream; other requests below an object pass.
pub(crate) async fn connect(call: &Call, place: &Place, subresource: &str) -> Result<(), ApiError> {
    let Some(kind) = options_kind(place.resource(), subresource) else { return Ok(()) };
    let mut options = options(call, kind);
    admit_below(call, place, Operation::Connect, subresource, &mut options).await
}

/// The kind of a stream's options; none for what is no stream.
pub(super) fn options_kind(resource: &Resource, subresource: &str) -> Option<&'static str> {
    let row = STREAMS.iter().find(|(object, below, _)| is(resource, "", object) && *below == subresource);
    row.map(|(_, _, kind)| *kind)
}

fn options(call: &Call, kind: &str) -> Value {
    let mut options = Map::new();
    options.insert("kind".into(), kind.into());
    options.insert("apiVersion".into(), "v1".into());
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if call.query.flag(name) {
            options.insert(name.into(), true.into());
        }
    }
    for name in ["container", "path"] {
        if let Some(given) = call.query.get(name) {
            options.insert(name.into(), given.into());
        }
    }
    let command: Vec<&str> = call.query.all("command").collect();
    if !command.is_empty() {
        options.insert("command".into(), command.into());
    }
    let ports: Vec<u16> =
        call.query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        options.insert("ports".into(), ports.into());
    }
    Value::Object(options)
}
