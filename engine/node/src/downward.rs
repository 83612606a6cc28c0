//! `fieldRef`: what a pod can be told about itself. Some fields are only for variables, some only for files.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// The value of a field path, or why it has none.
pub(crate) fn field(pod: &Pod, path: &str) -> Result<String, String> {
    if let Some((map, key)) = subscript(path) {
        return Ok(map_of(pod, map)?.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let or_empty = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod::name(pod).to_owned(),
        "metadata.namespace" => pod::namespace(pod).to_owned(),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" | "metadata.annotations" => map_of(pod, path)?.map(lines).unwrap_or_default(),
        "spec.nodeName" => or_empty(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => or_empty(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => or_empty(status.and_then(|status| status.host_ip.as_ref())),
        "status.podIP" | "status.podIPs" => or_empty(status.and_then(|status| status.pod_ip.as_ref())),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` as (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    Some((map, key.strip_suffix("']")?))
}

fn map_of<'a>(pod: &'a Pod, path: &str) -> Result<Option<&'a BTreeMap<String, String>>, String> {
    match path {
        "metadata.labels" => Ok(pod.metadata.labels.as_ref()),
        "metadata.annotations" => Ok(pod.metadata.annotations.as_ref()),
        _ => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// One `key="value"` a line, sorted, quotes and control characters escaped.
fn lines(map: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in map {
        write!(text, "{key}=").expect("a string takes all that is written");
        quote(&mut text, value);
        text.push('\n');
    }
    text.pop();
    text
}

fn quote(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_labels_and_annotations_are_told() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "one \"x\""}},
            "spec": {"containers": [], "nodeName": "here"},
            "status": {"podIP": "10.0.0.1"}
        }))
        .expect("a pod");
        assert_eq!(field(&pod, "metadata.labels['b']").as_deref(), Ok("2"));
        assert_eq!(field(&pod, "metadata.labels['none']").as_deref(), Ok(""));
        assert_eq!(field(&pod, "metadata.labels").as_deref(), Ok("a=\"one \\\"x\\\"\"\nb=\"2\""));
        assert_eq!(field(&pod, "status.podIP").as_deref(), Ok("10.0.0.1"));
        assert_eq!(field(&pod, "spec.nodeName").as_deref(), Ok("here"));
        assert!(field(&pod, "spec.containers").is_err());
    }
}
