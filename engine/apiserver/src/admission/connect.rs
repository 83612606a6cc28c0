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

/// Lets webhooks and policies refuse a stream, or change its options. `path` is what a proxy is asked for. Answers with
/// the options where they were changed.
pub(crate) async fn connect(
    call: &Call,
    place: &Place,
    subresource: &str,
    path: Option<&str>,
) -> Result<Option<Value>, ApiError> {
    let Some(kind) = options_kind(place.resource(), subresource) else { return Ok(None) };
    let asked = options(call, kind, path);
    let mut options = asked.clone();
    admit_below(call, place, Operation::Connect, subresource, &mut options).await?;
    Ok((options != asked).then_some(options))
}

/// The parameters that stand for a stream's options.
pub(crate) fn parameters(options: &Value) -> Vec<(String, String)> {
    let fields = options.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "path"));
    let texts = |value: &Value| match value {
        Value::Array(items) => items.iter().map(text).collect(),
        single => vec![text(single)],
    };
    fields.flat_map(|(name, value)| texts(value).into_iter().map(|text| (name.clone(), text))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The kind of a stream's options; none for what is no stream.
pub(super) fn options_kind(resource: &Resource, subresource: &str) -> Option<&'static str> {
    let row = STREAMS.iter().find(|(object, below, _)| is(resource, "", object) && *below == subresource);
    row.map(|(_, _, kind)| *kind)
}

fn options(call: &Call, kind: &str, path: Option<&str>) -> Value {
    let mut options = Map::new();
    options.insert("kind".into(), kind.into());
    options.insert("apiVersion".into(), "v1".into());
    if let Some(path) = path {
        // What stands in the query is for the program behind the proxy.
        options.insert("path".into(), path.trim_start_matches('/').into());
        return Value::Object(options);
    }
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if call.query.flag(name) {
            options.insert(name.into(), true.into());
        }
    }
    if let Some(given) = call.query.get("container") {
        options.insert("container".into(), given.into());
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
