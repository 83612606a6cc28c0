//! The workloads that users ask for: one of some kind, drawn by chance.

use fastrand::Rng;
use serde_json::{Value, json};

/// What kind a workload is of, and what that means for those who change it and look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
}

impl Kind {
    /// Of an object; whatever is none of the others is a job.
    pub(crate) fn of(object: &Value) -> Self {
        match object["kind"].as_str() {
            Some("Deployment") => Self::Deployment,
            Some("ReplicaSet") => Self::ReplicaSet,
            Some("StatefulSet") => Self::StatefulSet,
            Some("DaemonSet") => Self::DaemonSet,
            _ => Self::Job,
        }
    }

    /// Whether a new template replaces the pods of the old one.
    pub(crate) fn rolls(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::DaemonSet)
    }

    /// The field that says how many pods there are at a time, where one does.
    pub(crate) fn count(self) -> Option<&'static str> {
        match self {
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet => Some("replicas"),
            Self::Job => Some("parallelism"),
            Self::DaemonSet => None,
        }
    }

    /// The fields of its status that are as large as what was asked for when all is done.
    pub(crate) fn counts(self) -> &'static [&'static str] {
        match self {
            Self::Deployment | Self::StatefulSet => {
                &["replicas", "readyReplicas", "availableReplicas", "updatedReplicas"]
            }
            Self::ReplicaSet => &["replicas", "readyReplicas", "availableReplicas"],
            Self::DaemonSet => {
                &["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"]
            }
            Self::Job => &["succeeded"],
        }
    }
}

/// What is told of an object in the story.
pub(crate) fn told(object: &Value) -> String {
    let spec = &object["spec"];
    let image = &spec["template"]["spec"]["containers"][0]["image"];
    let count = Kind::of(object).count().map(|field| &spec[field]);
    let strategy = ["strategy", "updateStrategy", "podManagementPolicy", "completions", "completionMode"];
    let strategy: Vec<String> = strategy.iter().filter_map(|field| Some(spec.get(*field)?.to_string())).collect();
    format!("{} of {image} {}", count.map_or_else(|| "one a node".to_owned(), Value::to_string), strategy.join(" "))
}

/// A new workload.
pub(crate) fn draw(rng: &mut Rng, name: &str, nodes: usize) -> Value {
    let kind = match rng.u32(..20) {
        0..8 => Kind::Deployment,
        8..11 => Kind::ReplicaSet,
        11..15 => Kind::StatefulSet,
        15..17 => Kind::DaemonSet,
        _ => Kind::Job,
    };
    let group = if kind == Kind::Job { "batch" } else { "apps" };
    let mut object = json!({
        "apiVersion": format!("{group}/v1"), "kind": format!("{kind:?}"),
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {
                    "sim/ready-after": format!("{}ms", rng.u64(..5_000)),
                    "sim/stop-after": format!("{}ms", rng.u64(..20_000)),
                }},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
        },
    });
    let spec = &mut object["spec"];
    if let Some(field) = kind.count() {
        spec[field] = json!(rng.u64(1..=nodes as u64 + 2));
    }
    match kind {
        Kind::Deployment => {
            let surge = rng.u64(..3);
            spec["strategy"] = rolling(surge, rng.u64(u64::from(surge == 0)..3));
        }
        Kind::DaemonSet => {
            // It has more on a node for a while, or none, but not both.
            let surge = rng.u64(..2);
            spec["updateStrategy"] = rolling(surge, if surge == 0 { rng.u64(1..3) } else { 0 });
        }
        Kind::StatefulSet => {
            spec["serviceName"] = json!(name);
            spec["podManagementPolicy"] = json!(if rng.bool() { "OrderedReady" } else { "Parallel" });
        }
        Kind::Job => job(rng, spec),
        Kind::ReplicaSet => {}
    }
    object
}

fn rolling(surge: u64, missing: u64) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}})
}

/// A job whose pods end by themselves, some of them only when tried again; nodes that fail may cost it any number of pods.
fn job(rng: &mut Rng, spec: &mut Value) {
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("selector");
    }
    spec["completions"] = json!(rng.u64(1..8));
    spec["backoffLimit"] = json!(1000);
    spec["completionMode"] = json!(if rng.bool() { "Indexed" } else { "NonIndexed" });
    let template = &mut spec["template"];
    template["spec"]["restartPolicy"] = json!(if rng.bool() { "Never" } else { "OnFailure" });
    let annotations = &mut template["metadata"]["annotations"];
    annotations["sim/after"] = json!(format!("{}ms", rng.u64(..40_000)));
    annotations["sim/exits-by-attempt"] = json!(if rng.bool() { "0" } else { "1,0" });
}
