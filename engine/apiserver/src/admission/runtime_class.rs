//! Runtime classes: what running a pod in one costs beside its containers, and where its nodes are.

use serde_json::{Value, json};

use super::Request;
use crate::error::ApiError;

/// Takes overhead, node selector and tolerations from the pod's runtime class.
pub(super) fn apply(request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        let given = pod["spec"]["overhead"].as_object().is_some_and(|given| !given.is_empty());
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return if given { Err(request.forbidden(why)) } else { Ok(()) };
    }
    let found = request.call.server.admission().tables.runtime_classes.get(&name);
    let class = found.ok_or_else(|| request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))?;
    merge(&class.value(), &mut pod["spec"]).map_err(|why| request.forbidden(format!("pod rejected: {why}")))
}

fn merge(class: &Value, spec: &mut Value) -> Result<(), String> {
    if let Some(fixed) = class["overhead"]["podFixed"].as_object().filter(|fixed| !fixed.is_empty()) {
        let given = spec["overhead"].as_object().filter(|given| !given.is_empty());
        if given.is_some_and(|given| given != fixed) {
            return Err("Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        spec["overhead"] = fixed.clone().into();
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        if !spec["nodeSelector"].is_object() {
            spec["nodeSelector"] = json!({});
        }
        let own = &mut spec["nodeSelector"][key.as_str()];
        if !own.is_null() && own != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        *own = value.clone();
    }
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        if !spec["tolerations"].is_array() {
            spec["tolerations"] = json!([]);
        }
        if let Some(own) = spec["tolerations"].as_array_mut().filter(|own| !own.contains(toleration)) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_gives_overhead_and_places() {
        let class = json!({"overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]}});
        let mut spec = json!({"nodeSelector": {"disk": "ssd"}});
        merge(&class, &mut spec).unwrap();
        let merged = json!({"nodeSelector": {"disk": "ssd", "vm": "yes"}, "overhead": {"memory": "64Mi"},
            "tolerations": [{"key": "vm"}]});
        assert_eq!(spec, merged);
        merge(&class, &mut spec).unwrap();
        assert_eq!(spec, merged, "twice changes nothing");
        assert!(merge(&class, &mut json!({"nodeSelector": {"vm": "no"}})).unwrap_err().starts_with("conflict"));
        assert!(merge(&class, &mut json!({"overhead": {"memory": "1Mi"}})).is_err());
    }
}
