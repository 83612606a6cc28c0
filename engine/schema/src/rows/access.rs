//! Who may do what: roles, certificates, the fairness of requests.

use super::{BASE, READ_WRITE, Row, STATUS, field};
use crate::resource::Subresource;
use crate::strategy;
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "ClusterRole",
        plural: "clusterroles",
        namespaced: false,
        columns: table::CREATED,
        strategy: &strategy::CLUSTER_ROLE,
        ..RBAC
    },
    Row {
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        namespaced: false,
        columns: table::ROLE_BINDING,
        strategy: &strategy::CLUSTER_ROLE_BINDING,
        ..RBAC
    },
    Row { kind: "Role", plural: "roles", columns: table::CREATED, strategy: &strategy::ROLE, ..RBAC },
    Row {
        kind: "RoleBinding",
        plural: "rolebindings",
        columns: table::ROLE_BINDING,
        strategy: &strategy::ROLE_BINDING,
        ..RBAC
    },
    Row {
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        short_names: &["csr"],
        namespaced: false,
        subresources: &[APPROVAL, STATUS],
        columns: table::SIGNING_REQUEST,
        selectable: &[field("spec.signerName", "")],
        strategy: &strategy::SIGNING_REQUEST,
        ..CERTIFICATES
    },
    Row {
        kind: "FlowSchema",
        plural: "flowschemas",
        namespaced: false,
        subresources: &[STATUS],
        columns: table::FLOW_SCHEMA,
        strategy: &strategy::FLOW_SCHEMA,
        ..FLOW
    },
    Row {
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        namespaced: false,
        subresources: &[STATUS],
        columns: table::PRIORITY_LEVEL,
        strategy: &strategy::PRIORITY_LEVEL,
        ..FLOW
    },
];

const RBAC: Row = Row { group: "rbac.authorization.k8s.io", package: "io.k8s.api.rbac", ..BASE };

const CERTIFICATES: Row = Row { group: "certificates.k8s.io", package: "io.k8s.api.certificates", ..BASE };

const FLOW: Row = Row { group: "flowcontrol.apiserver.k8s.io", package: "io.k8s.api.flowcontrol", ..BASE };

const APPROVAL: Subresource = Subresource { name: "approval", kind: None, verbs: READ_WRITE };
