//! What a program in a pod needs to speak to the API: a volume with a token, the certificates to trust and the namespace,
//! mounted where every client library looks.
//!
//! The node fills the volume; here it is only asked for.

use serde_json::{Map, Value, json};

use crate::access::INJECTED;
use crate::meta;

/// What names of such volumes begin with; a volume that is there already is not made again.
const PREFIX: &str = "kube-api-access-";
/// Where client libraries look.
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const READABLE: u32 = 0o644;

/// Whether the pod wants it, or else its account does. Unless something is said, it is wanted.
pub(super) fn is_wanted(pod: &Value, account: &Value) -> bool {
    let said = |object: &Value| object["automountServiceAccountToken"].as_bool();
    said(&pod["spec"]).or_else(|| said(account)).unwrap_or(true)
}

/// Mounts the volume into every container that has nothing at its place, and adds it when any has not.
pub(super) fn inject(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    let known = items(spec, "volumes").filter_map(|volume| volume["name"].as_str()).find(|it| it.starts_with(PREFIX));
    let (name, is_new) = known.map_or_else(|| (meta::generate_name(PREFIX), true), |name| (name.to_owned(), false));
    let mut is_used = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            if items(container, "volumeMounts").all(|mount| mount["mountPath"] != PLACE) {
                append(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": PLACE}));
                is_used = true;
            }
        }
    }
    if is_new && is_used {
        append(spec, "volumes", volume(&name));
    }
}

fn items<'a>(object: &'a Map<String, Value>, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn append(object: &mut Map<String, Value>, list: &str, item: Value) {
    match object.get_mut(list) {
        Some(Value::Array(items)) => items.push(item),
        _ => {
            object.insert(list.to_owned(), Value::Array(vec![item]));
        }
    }
}

fn volume(name: &str) -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": INJECTED, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]);
    json!({"name": name, "projected": {"sources": sources, "defaultMode": READABLE}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(container: &Value) -> Vec<&str> {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        mounts.filter_map(|mount| mount["mountPath"].as_str()).collect()
    }

    #[test]
    fn every_container_without_a_mount_at_the_place_gets_one() {
        let own = json!([{"name": "mine", "mountPath": PLACE}]);
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}, {"name": "b", "volumeMounts": own}],
            "volumes": [{"name": "x"}, {"name": "mine"}],
        }});
        inject(&mut pod);
        let spec = &pod["spec"];
        assert_eq!(mounts(&spec["initContainers"][0]), [PLACE]);
        assert_eq!(mounts(&spec["containers"][0]), ["/x", PLACE]);
        assert_eq!(spec["containers"][1]["volumeMounts"], own);
        let volumes = spec["volumes"].as_array().unwrap();
        let name = volumes[2]["name"].as_str().unwrap();
        assert!(name.starts_with(PREFIX) && name.len() == PREFIX.len() + 5, "{name}");
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["name"], name);
        assert_eq!(volumes[2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], INJECTED);
        let once = pod.clone();
        inject(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn a_pod_that_needs_no_mount_gets_no_volume() {
        let own = json!({"spec": {"containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": PLACE}]}]}});
        let mut pod = own.clone();
        inject(&mut pod);
        assert_eq!(pod, own);
    }

    #[test]
    fn a_container_that_came_later_shares_the_volume() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        inject(&mut pod);
        pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "b"}));
        inject(&mut pod);
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(mounts(&pod["spec"]["containers"][1]), [PLACE]);
    }

    #[test]
    fn the_pod_has_the_last_word() {
        let says = |said: Value| json!({"automountServiceAccountToken": said});
        let pod = |said: Value| json!({"spec": says(said)});
        assert!(is_wanted(&pod(Value::Null), &json!({})));
        assert!(!is_wanted(&pod(Value::Null), &says(json!(false))));
        assert!(is_wanted(&pod(json!(true)), &says(json!(false))));
        assert!(!is_wanted(&pod(json!(false)), &says(json!(true))));
    }
}
