//! `metrics.k8s.io`: what nodes and pods use. Never stored: measured when somebody asks.

use super::{BASE, Row};
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row { kind: "NodeMetrics", plural: "nodes", namespaced: false, columns: table::NODE_METRICS, ..METRICS },
    Row { kind: "PodMetrics", plural: "pods", columns: table::POD_METRICS, ..METRICS },
];

const METRICS: Row = Row {
    group: "metrics.k8s.io",
    version: "v1beta1",
    verbs: &["get", "list"],
    package: "io.k8s.metrics.pkg.apis.metrics",
    ..BASE
};
