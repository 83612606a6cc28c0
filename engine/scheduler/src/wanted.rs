//! What a pod asks of the node that it is to run on, read once from the object.

mod terms;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use shipway_driver::matching;

pub(crate) use terms::{Counted, Force, Pull, Spread, Term, Who, usual_spread};

use crate::resources::Resources;

/// Namespace and name of a pod.
pub type Key = (String, String);

/// The kinds of owner whose pods stand for each other, so that they are spread over nodes unless told otherwise.
const SETS: [&str; 3] = ["ReplicaSet", "StatefulSet", "ReplicationController"];

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    protocol: Box<str>,
    /// Empty for any address.
    address: Box<str>,
    port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let same_address = self.address == other.address || self.address.is_empty() || other.address.is_empty();
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// A pod and what follows from it.
#[derive(Debug)]
pub struct Wanted {
    pub(crate) pod: Arc<Pod>,
    pub(crate) requests: Resources,
    pub(crate) ports: Vec<HostPort>,
    /// The only nodes that can be chosen, where they are named.
    pub(crate) named: Option<Vec<String>>,
    /// Required affinity to and from other pods, and preferred with its weight.
    pub(crate) pulls: Vec<Pull>,
    pub(crate) spread: Vec<Spread>,
    /// The pods that stand for this one: those of the same set.
    pub(crate) siblings: Option<Counted>,
    pub(crate) claims: Vec<String>,
}

impl Wanted {
    /// Reads a pod.
    pub fn of(pod: Arc<Pod>) -> Self {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        Self {
            requests: Resources::requested(&pod),
            ports: host_ports(spec),
            named: named(spec),
            pulls: terms::pulls(&pod, spec),
            spread: terms::spread(&pod, spec),
            siblings: siblings(&pod),
            claims: claims(&pod, spec),
            pod,
        }
    }

    /// What decides about nodes by themselves, in writing; pods that agree in it share the verdicts.
    pub(crate) fn place(&self) -> String {
        self.spec().map(place).unwrap_or_default()
    }

    /// Namespace and name.
    pub fn key(&self) -> Key {
        key(&self.pod)
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub(crate) fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    /// How important the pod is.
    pub fn priority(&self) -> i32 {
        self.spec().and_then(|spec| spec.priority).unwrap_or(0)
    }

    /// Where others were asked to leave for it.
    pub(crate) fn nominated(&self) -> Option<&str> {
        let status = self.pod.status.as_ref()?;
        status.nominated_node_name.as_deref().filter(|node| !node.is_empty())
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// Namespace and name of a pod.
pub(crate) fn key(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// The node that the pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// Whether the pod holds no resources any more.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn place(spec: &PodSpec) -> String {
    let affinity = matching::node_affinity(spec);
    let tolerations: Vec<_> =
        spec.tolerations.iter().flatten().map(|it| (&it.key, &it.operator, &it.value, &it.effect)).collect();
    if affinity.is_none() && spec.node_selector.is_none() && tolerations.is_empty() {
        return String::new();
    }
    serde_json::to_string(&(&spec.node_selector, affinity, tolerations)).unwrap_or_default()
}

fn named(spec: &PodSpec) -> Option<Vec<String>> {
    let names = matching::named_nodes(matching::required_node_affinity(spec)?)?;
    Some(names.into_iter().map(str::to_owned).collect())
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let address = port.host_ip.as_deref().filter(|address| *address != "0.0.0.0").unwrap_or("");
            Some(HostPort {
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                address: address.into(),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

fn siblings(pod: &Pod) -> Option<Counted> {
    let owner = controller(pod).filter(|owner| SETS.contains(&owner.kind.as_str()))?;
    Some(Counted::Owned(pod.metadata.namespace.clone().unwrap_or_default(), owner.uid.clone()))
}

pub(crate) fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The claims whose volumes the pod uses, those that are made for it included.
fn claims(pod: &Pod, spec: &PodSpec) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let claimed = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        claimed.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)))
    };
    spec.volumes.iter().flatten().filter_map(claim).collect()
}
