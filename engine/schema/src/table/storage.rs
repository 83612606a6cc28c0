//! What the rows of volumes, of claims on them and of their classes say.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, column, number, wide};
use crate::lookup::{at, list, text};
use crate::resource::{Cell, Column};

pub(crate) const VOLUME: &[Column] = &[
    NAME,
    column("Capacity", Cell::Text("spec.capacity.storage", "")),
    column("Access Modes", Cell::With(|object, _| modes(object, "spec.accessModes"))),
    column("Reclaim Policy", Cell::Text("spec.persistentVolumeReclaimPolicy", "")),
    column("Status", Cell::With(phase)),
    column("Claim", Cell::With(claim)),
    column("StorageClass", Cell::With(class)),
    column("VolumeAttributesClass", Cell::Text("spec.volumeAttributesClassName", UNSET)),
    column("Reason", Cell::Text("status.reason", "")),
    AGE,
    wide("VolumeMode", Cell::Text("spec.volumeMode", UNSET)),
];

pub(crate) const CLAIM: &[Column] = &[
    NAME,
    column("Status", Cell::With(phase)),
    column("Volume", Cell::Text("spec.volumeName", "")),
    column(
        "Capacity",
        Cell::With(|object, _| of_bound(object, |object| text(object, "status.capacity.storage").into())),
    ),
    column("Access Modes", Cell::With(|object, _| of_bound(object, |object| modes(object, "status.accessModes")))),
    column("StorageClass", Cell::With(class)),
    column("VolumeAttributesClass", Cell::Text("spec.volumeAttributesClassName", UNSET)),
    AGE,
    wide("VolumeMode", Cell::Text("spec.volumeMode", UNSET)),
];

pub(crate) const STORAGE_CLASS: &[Column] = &[
    Column {
        cell: Cell::With(|object, _| default_name(object, "storageclass.kubernetes.io/is-default-class")),
        ..NAME
    },
    column("Provisioner", Cell::Text("provisioner", "")),
    column("ReclaimPolicy", Cell::Text("reclaimPolicy", "Delete")),
    column("VolumeBindingMode", Cell::Text("volumeBindingMode", "Immediate")),
    column("AllowVolumeExpansion", Cell::Text("allowVolumeExpansion", "false")),
    AGE,
];

pub(crate) const VOLUME_ATTRIBUTES_CLASS: &[Column] = &[NAME, column("DriverName", Cell::Text("driverName", "")), AGE];

pub(crate) const VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    column("Attacher", Cell::Text("spec.attacher", "")),
    column("PV", Cell::Text("spec.source.persistentVolumeName", "")),
    column("Node", Cell::Text("spec.nodeName", "")),
    column("Attached", Cell::Text("status.attached", "false")),
    AGE,
];

pub(crate) const CSI_NODE: &[Column] =
    &[NAME, number("Drivers", Cell::With(|object, _| list(object, "spec.drivers").len().into())), AGE];

pub(crate) const CSI_DRIVER: &[Column] = &[
    NAME,
    column("AttachRequired", Cell::Text("spec.attachRequired", "true")),
    column("PodInfoOnMount", Cell::Text("spec.podInfoOnMount", "false")),
    column("StorageCapacity", Cell::Text("spec.storageCapacity", "false")),
    column("TokenRequests", Cell::With(audiences)),
    column("RequiresRepublish", Cell::Text("spec.requiresRepublish", "false")),
    column(
        "Modes",
        Cell::With(|object, _| joined(list(object, "spec.volumeLifecycleModes").iter().filter_map(Value::as_str))),
    ),
    AGE,
];

pub(crate) const CSI_STORAGE_CAPACITY: &[Column] = &[
    NAME,
    column("StorageClassName", Cell::Text("storageClassName", "")),
    column("Capacity", Cell::Text("capacity", UNSET)),
];

pub(crate) const RESOURCE_CLAIM: &[Column] = &[NAME, column("State", Cell::With(claim_state)), AGE];

pub(crate) const RESOURCE_SLICE: &[Column] = &[
    NAME,
    column("Node", Cell::Text("spec.nodeName", UNSET)),
    column("Driver", Cell::Text("spec.driver", "")),
    column("Pool", Cell::Text("spec.pool.name", "")),
    AGE,
];

const UNSET: &str = "<unset>";

/// Access modes as people shorten them, the mildest first.
fn modes(object: &Value, path: &str) -> Value {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let given = list(object, path);
    joined(SHORT.iter().filter(|(mode, _)| given.iter().any(|each| each == mode)).map(|(_, short)| *short))
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    texts.collect::<Vec<_>>().join(",").into()
}

fn phase(object: &Value, _: Timestamp) -> Value {
    let deleted = at(object, "metadata.deletionTimestamp").is_some();
    if deleted { "Terminating".into() } else { text(object, "status.phase").into() }
}

fn claim(volume: &Value, _: Timestamp) -> Value {
    let Some(claim) = at(volume, "spec.claimRef") else { return "".into() };
    format!("{}/{}", text(claim, "namespace"), text(claim, "name")).into()
}

/// The class, which was an annotation once.
fn class(object: &Value, _: Timestamp) -> Value {
    let older =
        object.pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class").and_then(Value::as_str);
    older.unwrap_or_else(|| text(object, "spec.storageClassName")).into()
}

/// What a claim has only with its volume.
fn of_bound(claim: &Value, cell: fn(&Value) -> Value) -> Value {
    if text(claim, "spec.volumeName").is_empty() { "".into() } else { cell(claim) }
}

fn default_name(class: &Value, annotation: &str) -> Value {
    let name = text(class, "metadata.name");
    let marked = class.get("metadata").and_then(|metadata| metadata.get("annotations")?.get(annotation)?.as_str());
    if marked == Some("true") { format!("{name} (default)").into() } else { name.into() }
}

fn audiences(driver: &Value, _: Timestamp) -> Value {
    let requests = list(driver, "spec.tokenRequests");
    if requests.is_empty() { UNSET.into() } else { joined(requests.iter().map(|each| text(each, "audience"))) }
}

fn claim_state(claim: &Value, _: Timestamp) -> Value {
    let mut words = Vec::new();
    if at(claim, "metadata.deletionTimestamp").is_some() {
        words.push("deleted");
    }
    match (at(claim, "status.allocation").is_some(), list(claim, "status.reservedFor").is_empty()) {
        (false, _) if words.is_empty() => words.push("pending"),
        (false, _) => {}
        (true, true) => words.push("allocated"),
        (true, false) => words.extend(["allocated", "reserved"]),
    }
    joined(words.into_iter())
}
