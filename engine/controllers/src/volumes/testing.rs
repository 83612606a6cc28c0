//! Claims, volumes, classes and nodes for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

fn with(mut spec: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

pub(super) fn volume(name: &str, size: &str, more: &Value) -> Arc<PersistentVolume> {
    let spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}});
    let metadata = json!({"name": name, "labels": {"disk": "ssd"}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": with(spec, more)})).unwrap())
}

pub(super) fn claim(name: &str, size: &str, more: &Value) -> PersistentVolumeClaim {
    let spec = json!({"resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"]});
    let metadata = json!({"name": name, "namespace": "n", "uid": format!("{name}-uid")});
    serde_json::from_value(json!({"metadata": metadata, "spec": with(spec, more)})).unwrap()
}

pub(super) fn class(name: &str, provisioner: &str, mode: &str) -> StorageClass {
    let object = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
    serde_json::from_value(object).unwrap()
}

pub(super) fn node(name: &str) -> Node {
    let labels = json!({"kubernetes.io/hostname": name, "size": "5"});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
}
