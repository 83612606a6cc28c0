//! Whether a pod may run on a node at all.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint, Toleration};

use crate::snapshot::{NodeInfo, Resources};

/// Why a node cannot take a pod, in the words of `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node is cordoned.
    Unschedulable,
    /// The pod does not tolerate this taint.
    Tainted(String),
    /// The pod's node selector or required affinity names other nodes.
    NotSelected,
    /// Too little of this resource is left.
    Insufficient(String),
    /// Another pod has one of the host ports.
    PortTaken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Tainted(taint) => write!(f, "node(s) had untolerated taint {{{taint}}}"),
            Self::NotSelected => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Insufficient(resource) if resource == "pods" => f.write_str("Too many pods"),
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::PortTaken => f.write_str("node(s) didn't have free ports for the requested pod ports"),
        }
    }
}

/// Checks one node; the first reason against it is the answer.
pub(crate) fn check(pod: &Pod, node: &NodeInfo) -> Result<(), Reason> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    is_selected(spec, node)?;
    is_open(spec, node)?;
    has_ports(spec, node)?;
    has_room(spec, node)
}

fn is_selected(spec: &PodSpec, node: &NodeInfo) -> Result<(), Reason> {
    let labels = node.node().metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    if spec.node_selector.iter().flatten().all(has) { Ok(()) } else { Err(Reason::NotSelected) }
}

fn is_open(spec: &PodSpec, node: &NodeInfo) -> Result<(), Reason> {
    let node_spec = node.node().spec.as_ref();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let cordoned = node_spec.and_then(|node| node.unschedulable) == Some(true);
    if cordoned && !tolerations.iter().any(|toleration| tolerates(toleration, &cordon)) {
        return Err(Reason::Unschedulable);
    }
    let taints = node_spec.and_then(|node| node.taints.as_deref()).unwrap_or_default();
    let mut hard = taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    match hard.find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint))) {
        None => Ok(()),
        Some(taint) => Err(Reason::Tainted(format!("{}: {}", taint.key, taint.value.as_deref().unwrap_or_default()))),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or("");
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        _ => key == taint.key && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
    }
}

fn has_ports(spec: &PodSpec, node: &NodeInfo) -> Result<(), Reason> {
    let wanted = host_ports(spec);
    if wanted.is_empty() {
        return Ok(());
    }
    let taken = node.pods().iter().filter_map(|pod| pod.spec.as_ref()).flat_map(host_ports);
    for (protocol, address, port) in taken {
        let clashes = |(p, a, n): &(&str, &str, i32)| {
            *p == protocol && *n == port && (*a == address || a.is_empty() || address.is_empty())
        };
        if wanted.iter().any(clashes) {
            return Err(Reason::PortTaken);
        }
    }
    Ok(())
}

/// Protocol, host address (empty for any) and port of each host port.
fn host_ports(spec: &PodSpec) -> Vec<(&str, &str, i32)> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let address = port.host_ip.as_deref().filter(|address| *address != "0.0.0.0").unwrap_or("");
            Some((port.protocol.as_deref().unwrap_or("TCP"), address, port.host_port.filter(|port| *port != 0)?))
        })
        .collect()
}

fn has_room(spec: &PodSpec, node: &NodeInfo) -> Result<(), Reason> {
    let most = node.allocatable().get("pods") / 1000;
    if i128::try_from(node.pods().len()).is_ok_and(|pods| pods >= most) {
        return Err(Reason::Insufficient("pods".to_owned()));
    }
    for (resource, wanted) in Resources::requested(spec).iter() {
        if wanted > 0 && node.requested().get(resource) + wanted > node.allocatable().get(resource) {
            return Err(Reason::Insufficient(resource.to_owned()));
        }
    }
    Ok(())
}
