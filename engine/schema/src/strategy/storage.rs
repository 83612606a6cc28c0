//! Classes of storage and what its drivers say about themselves: `storage.k8s.io`.

use serde_json::json;

use super::checks;
use super::claim::amount;
use super::rules::{
    Declared, Fill, Generations, between, distinct, fixed, fixed_as, not_negative, one_of, required, selector, text,
    with,
};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `storage.k8s.io/v1` `StorageClass`
pub(crate) static STORAGE_CLASS: Declared = Declared {
    defaults: &[("reclaimPolicy", Fill::Text("Delete")), ("volumeBindingMode", Fill::Text("Immediate"))],
    rules: &[
        required("provisioner"),
        text("provisioner", |name| checks::qualified_name(&name.to_lowercase())),
        one_of("reclaimPolicy", &["Delete", "Retain"]),
        one_of("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
        required("allowedTopologies[].matchLabelExpressions[].values"),
        text("allowedTopologies[].matchLabelExpressions[].key", checks::qualified_name),
        fixed_as("parameters", "updates to parameters are forbidden."),
        fixed_as("provisioner", "updates to provisioner are forbidden."),
        fixed_as("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        fixed("volumeBindingMode"),
    ],
    more: |object, _, errors| {
        if lookup::entries(object, "parameters").any(|(key, _)| key.is_empty()) {
            errors.push(FieldError::invalid(&Path::Root.field("parameters"), &"".into(), "field cannot be empty."));
        }
    },
    ..Declared::PLAIN
};

/// `storage.k8s.io/v1` `VolumeAttributesClass`
pub(crate) static VOLUME_ATTRIBUTES_CLASS: Declared = Declared {
    rules: &[
        required("driverName"),
        text("driverName", checks::driver_name),
        required("parameters"),
        with("parameters", |parameters, path, errors| {
            if parameters.as_object().is_some_and(serde_json::Map::is_empty) {
                errors.push(FieldError::required(path, "must contain at least one key/value pair"));
            }
        }),
        fixed_as("driverName", "updates to driverName are forbidden."),
        fixed_as("parameters", "updates to parameters are forbidden."),
    ],
    ..Declared::PLAIN
};

/// `storage.k8s.io/v1` `VolumeAttachment`
pub(crate) static VOLUME_ATTACHMENT: Declared = Declared {
    status: Some(|| json!({ "attached": false })),
    generations: Generations::None,
    rules: &[
        required("spec"),
        required("spec.attacher"),
        text("spec.attacher", checks::driver_name),
        required("spec.nodeName"),
        text("spec.nodeName", checks::dns_subdomain),
        required("spec.source"),
        with("spec.source", |source, path, errors| {
            let given = ["inlineVolumeSpec", "persistentVolumeName"].map(|field| lookup::at(source, field).is_some());
            match given {
                [false, false] => errors.push(FieldError::required(
                    path,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                )),
                [true, true] => errors.push(FieldError::invalid(
                    path,
                    source,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                )),
                _ => {}
            }
        }),
        fixed("spec"),
    ],
    ..Declared::SPECIFIED
};

/// `storage.k8s.io/v1` `CSIDriver`
pub(crate) static CSI_DRIVER: Declared = Declared {
    name: checks::driver_name,
    generations: Generations::Of(&["spec"]),
    defaults: &[
        ("spec.attachRequired", Fill::Flag(true)),
        ("spec.podInfoOnMount", Fill::Flag(false)),
        ("spec.storageCapacity", Fill::Flag(false)),
        ("spec.requiresRepublish", Fill::Flag(false)),
        ("spec.fsGroupPolicy", Fill::Text("ReadWriteOnceWithFSType")),
        ("spec.seLinuxMount", Fill::Flag(false)),
    ],
    fill: |object| {
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object())
            && lookup::list(spec, "volumeLifecycleModes").is_empty()
        {
            lookup::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    },
    rules: &[
        required("spec"),
        one_of("spec.fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]),
        one_of("spec.volumeLifecycleModes[]", &["Ephemeral", "Persistent"]),
        distinct("spec.tokenRequests", &["audience"]),
        between("spec.tokenRequests[].expirationSeconds", 600, 1 << 32),
        between("spec.nodeAllocatableUpdatePeriodSeconds", 10, i64::MAX),
        fixed("spec.attachRequired"),
        fixed("spec.volumeLifecycleModes"),
    ],
    ..Declared::PLAIN
};

/// `storage.k8s.io/v1` `CSINode`
pub(crate) static CSI_NODE: Declared = Declared {
    rules: &[
        required("spec.drivers[].name"),
        text("spec.drivers[].name", checks::driver_name),
        required("spec.drivers[].nodeID"),
        text("spec.drivers[].topologyKeys[]", checks::qualified_name),
        distinct("spec.drivers[].topologyKeys", &[]),
        not_negative("spec.drivers[].allocatable.count"),
        distinct("spec.drivers", &["name"]),
    ],
    more: |object, old, errors| {
        let Some(old) = old else { return };
        let spec = Path::Root.field("spec");
        let list = spec.field("drivers");
        for (index, driver) in lookup::list(object, "spec.drivers").iter().enumerate() {
            let mut before = lookup::list(old, "spec.drivers").iter();
            let Some(before) = before.find(|each| each.get("name") == driver.get("name")) else { continue };
            let path = list.index(index);
            for field in ["nodeID", "topologyKeys"].into_iter().filter(|field| driver.get(*field) != before.get(*field))
            {
                errors.push(FieldError::invalid(&path.field(field), &driver[field], super::IMMUTABLE));
            }
        }
    },
    ..Declared::PLAIN
};

/// `storage.k8s.io/v1` `CSIStorageCapacity`
pub(crate) static CSI_STORAGE_CAPACITY: Declared = Declared {
    rules: &[
        required("storageClassName"),
        text("storageClassName", checks::dns_subdomain),
        selector("nodeTopology"),
        with("capacity", amount),
        with("maximumVolumeSize", amount),
        fixed("nodeTopology"),
        fixed("storageClassName"),
    ],
    ..Declared::PLAIN
};

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn made(kind: &str, rest: &Value) -> Value {
        let mut object = json!({ "apiVersion": "storage.k8s.io/v1", "kind": kind, "metadata": { "name": "a" } });
        for (name, value) in rest.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        object
    }

    #[test]
    fn a_class_never_becomes_another() {
        let old =
            valid(made("StorageClass", &json!({ "provisioner": "example.com/disk", "parameters": { "a": "b" } })));
        assert_eq!((&old["reclaimPolicy"], &old["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
        let mut new = old.clone();
        new["parameters"]["a"] = json!("c");
        new["provisioner"] = json!("example.com/tape");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["parameters", "provisioner"]);
        assert_eq!(
            fields(&errors(made("StorageClass", &json!({ "reclaimPolicy": "Burn" })))),
            ["provisioner", "reclaimPolicy"]
        );
        let class = made("VolumeAttributesClass", &json!({ "driverName": "d", "parameters": {} }));
        assert_eq!(fields(&errors(class)), ["parameters"]);
    }

    #[test]
    fn an_attachment_has_one_source_and_stays() {
        let old = valid(made(
            "VolumeAttachment",
            &json!({ "spec": { "attacher": "d.example.com", "nodeName": "n", "source": { "persistentVolumeName": "v" } } }),
        ));
        assert_eq!(old["status"], json!({ "attached": false }));
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!("m");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec"]);
        let wrong = made("VolumeAttachment", &json!({ "spec": { "attacher": "D_", "nodeName": "n", "source": {} } }));
        assert_eq!(fields(&errors(wrong)), ["spec.attacher", "spec.source"]);
    }

    #[test]
    fn drivers_say_what_they_need() {
        let driver = valid(made("CSIDriver", &json!({ "spec": {} })));
        assert_eq!(driver["spec"]["attachRequired"], true);
        assert_eq!(driver["spec"]["volumeLifecycleModes"], json!(["Persistent"]));
        let wrong = made(
            "CSIDriver",
            &json!({ "spec": { "fsGroupPolicy": "x", "tokenRequests": [{ "audience": "a", "expirationSeconds": 1 }, { "audience": "a" }] } }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            ["spec.fsGroupPolicy", "spec.tokenRequests[1].audience", "spec.tokenRequests[0].expirationSeconds"]
        );
        let old = valid(made("CSINode", &json!({ "spec": { "drivers": [{ "name": "d", "nodeID": "1" }] } })));
        let mut new = old.clone();
        new["spec"]["drivers"][0]["nodeID"] = json!("2");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.drivers[0].nodeID"]);
        let capacity = made("CSIStorageCapacity", &json!({ "capacity": "-1" }));
        assert_eq!(fields(&errors(capacity)), ["storageClassName", "capacity"]);
    }
}
