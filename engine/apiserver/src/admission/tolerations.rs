//! Pods stay for some time on a node that is lost, unless they say otherwise.

use serde_json::{Value, json};

use super::Request;
use crate::error::ApiError;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Adds the tolerations that a pod does not have in one form or another.
pub(super) fn default(request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
    let seconds = request.call.server.admission().toleration_seconds;
    let given = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let missing: Vec<Value> = TAINTS
        .iter()
        .filter(|taint| !given.iter().any(|own| tolerates(own, taint)))
        .map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}))
        .collect();
    if !missing.is_empty() {
        spec.insert("tolerations".into(), given.into_iter().chain(missing).collect());
    }
    Ok(())
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    matches!(text("key"), key if key.is_empty() || key == taint) && matches!(text("effect"), "" | "NoExecute")
}
