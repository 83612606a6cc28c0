//! Ephemeral containers: added to a pod that is there already, never changed, never taken away.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{container, volume};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// Fields that make no sense for a container that nothing depends on.
const FORBIDDEN: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
    "restartPolicy",
];

/// What is wrong with the ephemeral containers of a pod that replaces another.
pub fn validate_ephemeral_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::Root.field("spec");
    let path = spec.field("ephemeralContainers");
    kept(&new["spec"], &old["spec"], &path, &mut errors);
    let volumes = volume::validate(lookup::list(&new["spec"], "volumes"), &spec.field("volumes"), &mut Vec::new());
    let host_network = lookup::flag(&new["spec"], "hostNetwork");
    let context = container::Context { volumes: &volumes, host_network, initial: false };
    let named = |list: &str| lookup::list(&new["spec"], list).iter().map(|each| lookup::text(each, "name"));
    let others: BTreeSet<&str> = named("containers").chain(named("initContainers")).collect();
    let mut seen = container::Seen { names: others.clone(), host_ports: BTreeSet::new() };
    for (index, each) in lookup::list(&new["spec"], "ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        container::validate(each, &context, &mut seen, &path, &mut errors);
        own_rules(each, &others, &path, &mut errors);
    }
    errors
}

/// Those that were there are still there, and the same.
fn kept(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let after = lookup::list(new, "ephemeralContainers");
    for before in lookup::list(old, "ephemeralContainers") {
        let name = lookup::text(before, "name");
        match after.iter().find(|each| lookup::text(each, "name") == name) {
            Some(same) if same == before => {}
            Some(_) => {
                let detail = format!("existing ephemeral containers \"{name}\" may not be changed");
                errors.push(FieldError::forbidden(path, &detail));
            }
            None => {
                let detail = format!("existing ephemeral containers \"{name}\" may not be removed");
                errors.push(FieldError::forbidden(path, &detail));
            }
        }
    }
}

fn own_rules(container: &Value, others: &BTreeSet<&str>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for field in FORBIDDEN {
        let given = container.get(field).is_some_and(|value| match value {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        });
        if given {
            errors.push(FieldError::forbidden(&path.field(field), "cannot be set for an Ephemeral Container"));
        }
    }
    for (index, mount) in lookup::list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !lookup::text(mount, field).is_empty()) {
            let path = path.field("volumeMounts");
            let path = path.index(index);
            errors.push(FieldError::forbidden(&path.field(field), "cannot be set for an Ephemeral Container"));
        }
    }
    let target = lookup::text(container, "targetContainerName");
    if !target.is_empty() && !others.contains(target) {
        errors.push(FieldError::not_found(&path.field("targetContainerName"), &target.into()));
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "what json! makes is handed over as it stands")]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(ephemeral: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c"}], "ephemeralContainers": ephemeral}})
    }

    fn debugger(name: &str, more: Value) -> Value {
        let mut container = json!({
            "name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        container
    }

    fn errors(new: Value, old: Value) -> Vec<String> {
        validate_ephemeral_containers(&pod(new), &pod(old)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_may_be_added_that_looks_into_another() {
        let added = debugger("d", json!({"targetContainerName": "c", "resources": {}}));
        assert_eq!(errors(json!([added]), json!([])), Vec::<String>::new());
    }

    #[test]
    fn none_may_be_changed_removed_or_take_a_name_twice() {
        let one = debugger("d", json!({}));
        let other = debugger("d", json!({"image": "j"}));
        assert!(errors(json!([other]), json!([one]))[0].contains("may not be changed"));
        assert!(errors(json!([]), json!([one]))[0].contains("may not be removed"));
        assert!(errors(json!([debugger("c", json!({}))]), json!([]))[0].contains("spec.ephemeralContainers[0].name"));
    }

    #[test]
    fn what_depends_on_nothing_has_no_ports_probes_or_resources() {
        let with = |more: Value| errors(json!([debugger("d", more)]), json!([]));
        assert!(with(json!({"ports": [{"containerPort": 80}]})).iter().any(|error| error.contains("[0].ports")));
        assert!(with(json!({"resources": {"limits": {"cpu": "1"}}}))[0].contains("cannot be set"));
        assert!(with(json!({"targetContainerName": "nobody"}))[0].contains("targetContainerName"));
        assert!(with(json!({"image": ""}))[0].contains("image"));
    }
}
