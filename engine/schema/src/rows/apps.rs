//! Workloads and what scales and guards them: apps, batch, autoscaling, policy, scheduling, node.

use super::{BASE, KeptAs, Row, SCALE, STATUS, field};
use crate::convert;
use crate::strategy;
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        columns: table::CONTROLLER_REVISION,
        strategy: &strategy::CONTROLLER_REVISION,
        ..APPS
    },
    Row {
        kind: "DaemonSet",
        plural: "daemonsets",
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[STATUS],
        columns: table::DAEMON_SET,
        strategy: &strategy::DAEMON_SET,
        ..APPS
    },
    Row {
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        columns: table::DEPLOYMENT,
        strategy: &strategy::DEPLOYMENT,
        ..APPS
    },
    Row {
        kind: "ReplicaSet",
        plural: "replicasets",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        columns: table::REPLICA_SET,
        selectable: &[field("status.replicas", "0")],
        strategy: &strategy::REPLICA_SET,
        ..APPS
    },
    Row {
        kind: "StatefulSet",
        plural: "statefulsets",
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        columns: table::STATEFUL_SET,
        strategy: &strategy::STATEFUL_SET,
        ..APPS
    },
    Row {
        kind: "CronJob",
        plural: "cronjobs",
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[STATUS],
        columns: table::CRON_JOB,
        strategy: &strategy::CRON_JOB,
        ..BATCH
    },
    Row {
        kind: "Job",
        plural: "jobs",
        categories: &["all"],
        subresources: &[STATUS],
        columns: table::JOB,
        selectable: &[field("status.successful", "0")],
        strategy: &strategy::JOB,
        ..BATCH
    },
    Row {
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[STATUS],
        columns: table::AUTOSCALER,
        strategy: &strategy::AUTOSCALER,
        ..AUTOSCALING
    },
    Row {
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[STATUS],
        kept: Some(AUTOSCALER_KEPT),
        columns: table::AUTOSCALER_V1,
        strategy: &strategy::AUTOSCALER_V1,
        ..AUTOSCALING_V1
    },
    Row {
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        short_names: &["pdb"],
        subresources: &[STATUS],
        columns: table::DISRUPTION_BUDGET,
        strategy: &strategy::DISRUPTION_BUDGET,
        ..POLICY
    },
    Row {
        kind: "PriorityClass",
        plural: "priorityclasses",
        short_names: &["pc"],
        namespaced: false,
        columns: table::PRIORITY_CLASS,
        strategy: &strategy::PRIORITY_CLASS,
        ..SCHEDULING
    },
    Row {
        kind: "RuntimeClass",
        plural: "runtimeclasses",
        namespaced: false,
        columns: table::RUNTIME_CLASS,
        strategy: &strategy::RUNTIME_CLASS,
        ..NODE
    },
];

const APPS: Row = Row { group: "apps", package: "io.k8s.api.apps", ..BASE };

const BATCH: Row = Row { group: "batch", package: "io.k8s.api.batch", ..BASE };

const AUTOSCALING: Row = Row { group: "autoscaling", version: "v2", package: "io.k8s.api.autoscaling", ..BASE };

const AUTOSCALING_V1: Row = Row { group: "autoscaling", package: "io.k8s.api.autoscaling", ..BASE };

const POLICY: Row = Row { group: "policy", package: "io.k8s.api.policy", ..BASE };

const SCHEDULING: Row = Row { group: "scheduling.k8s.io", package: "io.k8s.api.scheduling", ..BASE };

const NODE: Row = Row { group: "node.k8s.io", package: "io.k8s.api.node", ..BASE };

/// The older version shows the same objects.
const AUTOSCALER_KEPT: KeptAs =
    KeptAs { group: "autoscaling", version: "v2", plural: "horizontalpodautoscalers", convert: convert::autoscaler };
