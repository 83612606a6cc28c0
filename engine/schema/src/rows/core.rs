//! The core group.

use serde_json::Value;

use super::{BASE, READ_WRITE, Row, SCALE, STATUS, connection, field, proxy};
use crate::lookup;
use crate::resource::{Gvk, Selectable, Subresource};
use crate::strategy;
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        short_names: &["cs"],
        namespaced: false,
        verbs: &["get", "list"],
        deprecation: Some("v1 ComponentStatus is deprecated in v1.19+"),
        columns: table::COMPONENT,
        ..BASE
    },
    Row {
        kind: "ConfigMap",
        plural: "configmaps",
        short_names: &["cm"],
        columns: table::CONFIG_MAP,
        strategy: &strategy::ConfigMap,
        ..BASE
    },
    Row {
        kind: "Endpoints",
        plural: "endpoints",
        short_names: &["ep"],
        columns: table::ENDPOINTS,
        strategy: &strategy::Endpoints,
        ..BASE
    },
    Row {
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        columns: table::EVENT,
        selectable: EVENT_FIELDS,
        strategy: &strategy::Event,
        ..BASE
    },
    Row {
        kind: "LimitRange",
        plural: "limitranges",
        short_names: &["limits"],
        columns: table::CREATED,
        strategy: &strategy::LIMIT_RANGE,
        ..BASE
    },
    Row {
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        namespaced: false,
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        subresources: &[Subresource { name: "finalize", kind: None, verbs: &["update"] }, STATUS],
        columns: table::NAMESPACE,
        selectable: &[field("status.phase", "")],
        strategy: &strategy::Namespace,
        ..BASE
    },
    Row {
        kind: "Node",
        plural: "nodes",
        short_names: &["no"],
        namespaced: false,
        subresources: &[proxy("NodeProxyOptions"), STATUS],
        columns: table::NODE,
        selectable: &[field("spec.unschedulable", "false")],
        strategy: &strategy::Node,
        ..BASE
    },
    Row {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        short_names: &["pv"],
        namespaced: false,
        subresources: &[STATUS],
        returns_deleted: true,
        columns: table::VOLUME,
        strategy: &strategy::VOLUME,
        ..BASE
    },
    Row {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        short_names: &["pvc"],
        subresources: &[STATUS],
        returns_deleted: true,
        columns: table::CLAIM,
        strategy: &strategy::CLAIM,
        ..BASE
    },
    Row {
        kind: "Pod",
        plural: "pods",
        short_names: &["po"],
        categories: &["all"],
        subresources: POD_SUBRESOURCES,
        returns_deleted: true,
        columns: table::POD,
        selectable: POD_FIELDS,
        strategy: &strategy::Pod,
        ..BASE
    },
    Row {
        kind: "PodTemplate",
        plural: "podtemplates",
        returns_deleted: true,
        columns: table::POD_TEMPLATE,
        strategy: &strategy::POD_TEMPLATE,
        ..BASE
    },
    Row {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        columns: table::REPLICATION_CONTROLLER,
        selectable: &[field("status.replicas", "0")],
        strategy: &strategy::REPLICATION_CONTROLLER,
        ..BASE
    },
    Row {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        short_names: &["quota"],
        subresources: &[STATUS],
        returns_deleted: true,
        columns: table::QUOTA,
        strategy: &strategy::QUOTA,
        ..BASE
    },
    Row {
        kind: "Secret",
        plural: "secrets",
        columns: table::SECRET,
        selectable: &[field("type", "")],
        strategy: &strategy::Secret,
        ..BASE
    },
    Row {
        kind: "Service",
        plural: "services",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[proxy("ServiceProxyOptions"), STATUS],
        returns_deleted: true,
        columns: table::SERVICE,
        selectable: &[field("spec.clusterIP", ""), field("spec.type", "")],
        strategy: &strategy::Service,
        ..BASE
    },
    Row {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        subresources: &[TOKEN],
        returns_deleted: true,
        columns: table::SERVICE_ACCOUNT,
        ..BASE
    },
];

const TOKEN: Subresource = Subresource {
    name: "token",
    kind: Some(Gvk { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest" }),
    verbs: &["create"],
};

const POD_SUBRESOURCES: &[Subresource] = &[
    connection("attach", "PodAttachOptions"),
    Subresource { name: "binding", kind: Some(Gvk { group: "", version: "v1", kind: "Binding" }), verbs: &["create"] },
    Subresource { name: "ephemeralcontainers", kind: None, verbs: READ_WRITE },
    Subresource {
        name: "eviction",
        kind: Some(Gvk { group: "policy", version: "v1", kind: "Eviction" }),
        verbs: &["create"],
    },
    connection("exec", "PodExecOptions"),
    Subresource { name: "log", kind: None, verbs: &["get"] },
    connection("portforward", "PodPortForwardOptions"),
    proxy("PodProxyOptions"),
    Subresource { name: "resize", kind: None, verbs: READ_WRITE },
    STATUS,
];

const POD_FIELDS: &[Selectable] = &[
    field("spec.hostNetwork", "false"),
    field("spec.nodeName", ""),
    field("spec.restartPolicy", ""),
    field("spec.schedulerName", ""),
    field("spec.serviceAccountName", ""),
    field("status.nominatedNodeName", ""),
    field("status.phase", ""),
    field("status.podIP", ""),
];

const EVENT_FIELDS: &[Selectable] = &[
    field("involvedObject.apiVersion", ""),
    field("involvedObject.fieldPath", ""),
    field("involvedObject.kind", ""),
    field("involvedObject.name", ""),
    field("involvedObject.namespace", ""),
    field("involvedObject.resourceVersion", ""),
    field("involvedObject.uid", ""),
    field("reason", ""),
    Selectable { field: "reportingComponent", absent: "", with: Some(reporter) },
    Selectable { field: "source", absent: "", with: Some(source) },
    field("type", ""),
];

fn source(event: &Value) -> String {
    first(event, ["source.component", "reportingComponent"])
}

fn reporter(event: &Value) -> String {
    first(event, ["reportingComponent", "source.component"])
}

fn first(event: &Value, paths: [&str; 2]) -> String {
    let found = paths.iter().map(|path| lookup::text(event, path)).find(|text| !text.is_empty());
    found.unwrap_or("").to_owned()
}
