//! What connects and what is told: networking, discovery, coordination, events.

use super::{BASE, KeptAs, Row, STATUS, field};
use crate::convert;
use crate::resource::Selectable;
use crate::strategy;
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "Ingress",
        plural: "ingresses",
        short_names: &["ing"],
        subresources: &[STATUS],
        columns: table::INGRESS,
        strategy: &strategy::INGRESS,
        ..NETWORKING
    },
    Row {
        kind: "IngressClass",
        plural: "ingressclasses",
        namespaced: false,
        columns: table::INGRESS_CLASS,
        strategy: &strategy::INGRESS_CLASS,
        ..NETWORKING
    },
    Row {
        kind: "IPAddress",
        plural: "ipaddresses",
        short_names: &["ip"],
        namespaced: false,
        columns: table::IP_ADDRESS,
        strategy: &strategy::IP_ADDRESS,
        ..NETWORKING
    },
    Row {
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short_names: &["netpol"],
        columns: table::NETWORK_POLICY,
        strategy: &strategy::NETWORK_POLICY,
        ..NETWORKING
    },
    Row {
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        namespaced: false,
        subresources: &[STATUS],
        columns: table::SERVICE_CIDR,
        strategy: &strategy::SERVICE_CIDR,
        ..NETWORKING
    },
    Row {
        kind: "EndpointSlice",
        plural: "endpointslices",
        columns: table::ENDPOINT_SLICE,
        strategy: &strategy::EndpointSlice,
        ..DISCOVERY
    },
    Row { kind: "Lease", plural: "leases", columns: table::LEASE, strategy: &strategy::Lease, ..COORDINATION },
    Row {
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        kept: Some(EVENT_KEPT),
        columns: table::NEW_EVENT,
        selectable: EVENT_FIELDS,
        strategy: &strategy::NEW_EVENT,
        ..EVENTS
    },
];

const NETWORKING: Row = Row { group: "networking.k8s.io", package: "io.k8s.api.networking", ..BASE };

const DISCOVERY: Row = Row { group: "discovery.k8s.io", package: "io.k8s.api.discovery", ..BASE };

const COORDINATION: Row = Row { group: "coordination.k8s.io", package: "io.k8s.api.coordination", ..BASE };

const EVENTS: Row = Row { group: "events.k8s.io", package: "io.k8s.api.events", ..BASE };

/// The older form is the one that is kept.
const EVENT_KEPT: KeptAs = KeptAs { group: "", version: "v1", plural: "events", convert: convert::event };

const EVENT_FIELDS: &[Selectable] = &[
    field("reason", ""),
    field("regarding.apiVersion", ""),
    field("regarding.fieldPath", ""),
    field("regarding.kind", ""),
    field("regarding.name", ""),
    field("regarding.namespace", ""),
    field("regarding.resourceVersion", ""),
    field("regarding.uid", ""),
    field("reportingController", ""),
    field("type", ""),
];
