//! Persistent volumes.

use serde_json::{Map, Value, json};

use super::claim::{ACCESS_MODES, alone, amount};
use super::rules::{Declared, Fill, Generations, fixed, fixed_once_set, one_of, required, text, with};
use super::{checks, pod};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// Where a volume's bytes may be: the fields of its specification that are sources.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// `v1` `PersistentVolume`
pub(crate) static VOLUME: Declared = Declared {
    status: Some(|| json!({ "phase": "Pending" })),
    generations: Generations::None,
    defaults: &[
        ("spec.persistentVolumeReclaimPolicy", Fill::Text("Retain")),
        ("spec.volumeMode", Fill::Text("Filesystem")),
    ],
    fill: |object| {
        if let Some(source) = lookup::at_mut(object, "spec.hostPath").filter(|source| source.is_object()) {
            lookup::fill(source, "type", "");
        }
        if let Some(status) = lookup::make_object(object, "status") {
            status.entry("phase").or_insert_with(|| "Pending".into());
        }
    },
    rules: &[
        required("spec"),
        required("spec.accessModes"),
        one_of("spec.accessModes[]", ACCESS_MODES),
        with("spec.accessModes", alone),
        required("spec.capacity"),
        with("spec.capacity{}", amount),
        one_of("spec.persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
        one_of("spec.volumeMode", &["Block", "Filesystem"]),
        text("spec.storageClassName", checks::dns_subdomain),
        with("spec.nodeAffinity.required", pod::node_selector),
        required("spec.hostPath.path"),
        required("spec.local.path"),
        required("spec.nfs.server"),
        required("spec.nfs.path"),
        required("spec.csi.driver"),
        text("spec.csi.driver", checks::driver_name),
        required("spec.csi.volumeHandle"),
        with("spec", one_source),
        fixed("spec.volumeMode"),
        fixed_once_set("spec.nodeAffinity"),
    ],
    more: |object, old, errors| {
        let size = object["spec"].get("capacity").is_some_and(|all| all.get("storage").is_none());
        if size {
            let spec = Path::Root.field("spec");
            let capacity = spec.field("capacity");
            errors.push(FieldError::required(&capacity.key("storage"), ""));
        }
        if old.is_some_and(|old| sources(&old["spec"]) != sources(&object["spec"])) {
            let spec = Path::Root.field("spec");
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden(&spec.field("persistentvolumesource"), detail));
        }
    },
    status_rules: &[one_of("status.phase", &["Available", "Bound", "Failed", "Pending", "Released"])],
    ..Declared::SPECIFIED
};

fn sources(spec: &Value) -> Map<String, Value> {
    let given = SOURCES.iter().filter_map(|name| Some(((*name).to_owned(), lookup::at(spec, name)?.clone())));
    given.collect()
}

fn one_source(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = sources(spec);
    for name in given.keys().skip(1) {
        errors.push(FieldError::forbidden(&path.field(name), "may not specify more than 1 volume type"));
    }
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    if given.contains_key("local") && lookup::at(spec, "nodeAffinity").is_none() {
        let affinity = path.field("nodeAffinity");
        errors.push(FieldError::required(&affinity, "Local volume requires node affinity"));
    }
    if given.contains_key("hostPath") && lookup::text(spec, "hostPath.path").split('/').any(|part| part == "..") {
        let source = path.field("hostPath");
        errors.push(FieldError::invalid(&source.field("path"), &spec["hostPath"]["path"], "must not contain '..'"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn volume(spec: &Value) -> Value {
        let mut object = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" }, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/data" },
        } });
        for (name, value) in spec.as_object().into_iter().flatten() {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_volume_is_retained_and_has_one_source() {
        let made = valid(volume(&json!({})));
        assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(made["status"], json!({ "phase": "Pending" }));
        assert_eq!(fields(&errors(volume(&json!({ "nfs": { "server": "s", "path": "/" } })))), ["spec.nfs"]);
        assert_eq!(fields(&errors(volume(&json!({ "hostPath": null })))), ["spec"]);
        assert_eq!(
            fields(&errors(volume(&json!({ "hostPath": null, "local": { "path": "/d" } })))),
            ["spec.nodeAffinity"]
        );
        assert_eq!(fields(&errors(volume(&json!({ "capacity": {} })))), ["spec.capacity[storage]"]);
        assert_eq!(
            fields(&errors(volume(&json!({ "persistentVolumeReclaimPolicy": "Burn" })))),
            ["spec.persistentVolumeReclaimPolicy"]
        );
    }

    #[test]
    fn a_volumes_source_stays() {
        let old = valid(volume(&json!({})));
        let mut new = old.clone();
        new["spec"]["hostPath"]["path"] = json!("/other");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.persistentvolumesource"]);
    }
}
