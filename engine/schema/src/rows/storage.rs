//! Storage, and the devices that are claimed like it.

use super::{BASE, Row, STATUS, field};
use crate::strategy;
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "CSIDriver",
        plural: "csidrivers",
        namespaced: false,
        returns_deleted: true,
        columns: table::CSI_DRIVER,
        strategy: &strategy::CSI_DRIVER,
        ..STORAGE
    },
    Row {
        kind: "CSINode",
        plural: "csinodes",
        namespaced: false,
        returns_deleted: true,
        columns: table::CSI_NODE,
        strategy: &strategy::CSI_NODE,
        ..STORAGE
    },
    Row {
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        columns: table::CSI_STORAGE_CAPACITY,
        strategy: &strategy::CSI_STORAGE_CAPACITY,
        ..STORAGE
    },
    Row {
        kind: "StorageClass",
        plural: "storageclasses",
        short_names: &["sc"],
        namespaced: false,
        returns_deleted: true,
        columns: table::STORAGE_CLASS,
        strategy: &strategy::STORAGE_CLASS,
        ..STORAGE
    },
    Row {
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        namespaced: false,
        subresources: &[STATUS],
        returns_deleted: true,
        columns: table::VOLUME_ATTACHMENT,
        strategy: &strategy::VOLUME_ATTACHMENT,
        ..STORAGE
    },
    Row {
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        short_names: &["vac"],
        namespaced: false,
        returns_deleted: true,
        columns: table::VOLUME_ATTRIBUTES_CLASS,
        strategy: &strategy::VOLUME_ATTRIBUTES_CLASS,
        ..STORAGE
    },
    Row {
        kind: "DeviceClass",
        plural: "deviceclasses",
        namespaced: false,
        returns_deleted: true,
        strategy: &strategy::DEVICE_CLASS,
        ..DEVICES
    },
    Row {
        kind: "ResourceClaim",
        plural: "resourceclaims",
        subresources: &[STATUS],
        returns_deleted: true,
        columns: table::RESOURCE_CLAIM,
        strategy: &strategy::RESOURCE_CLAIM,
        ..DEVICES
    },
    Row {
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        returns_deleted: true,
        strategy: &strategy::RESOURCE_CLAIM_TEMPLATE,
        ..DEVICES
    },
    Row {
        kind: "ResourceSlice",
        plural: "resourceslices",
        namespaced: false,
        returns_deleted: true,
        columns: table::RESOURCE_SLICE,
        selectable: &[field("spec.driver", ""), field("spec.nodeName", "")],
        strategy: &strategy::RESOURCE_SLICE,
        ..DEVICES
    },
];

const STORAGE: Row = Row { group: "storage.k8s.io", package: "io.k8s.api.storage", ..BASE };

const DEVICES: Row = Row { group: "resource.k8s.io", package: "io.k8s.api.resource", ..BASE };
