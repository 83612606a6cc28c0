//! The cluster as the scheduler sees it: nodes with what they offer and what their pods ask for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use kube::ResourceExt;
use shipway_schema::quantity::Quantity;

/// Amounts by resource name, in thousandths (`cpu` 500 is half a core).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i128>);

impl Resources {
    /// Reads written quantities; one that cannot be read counts as none, since the API refuses such.
    pub fn read(written: Option<&BTreeMap<String, Written>>) -> Self {
        let amounts = written.into_iter().flatten();
        Self(amounts.map(|(name, amount)| (name.clone(), milli(&amount.0))).collect())
    }

    /// What a pod asks for: its containers together, or its largest init container where that is more.
    pub fn requested(spec: &PodSpec) -> Self {
        let requests = |container: &k8s_openapi::api::core::v1::Container| {
            Self::read(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
        };
        let mut together = Self::default();
        for container in &spec.containers {
            together.add(&requests(container));
        }
        for container in spec.init_containers.iter().flatten() {
            for (name, amount) in requests(container).0 {
                let most = together.0.entry(name).or_insert(0);
                *most = (*most).max(amount);
            }
        }
        together.add(&Self::read(spec.overhead.as_ref()));
        together
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_insert(0) += amount;
        }
    }

    pub(crate) fn get(&self, name: &str) -> i128 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i128)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }
}

fn milli(written: &str) -> i128 {
    Quantity::parse(written).map_or(0, |quantity| quantity.to_milli())
}

/// A node and the pods on it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    node: Arc<Node>,
    allocatable: Resources,
    requested: Resources,
    pods: Vec<Arc<Pod>>,
}

impl NodeInfo {
    fn new(node: Arc<Node>) -> Self {
        let allocatable = Resources::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        Self { node, allocatable, requested: Resources::default(), pods: Vec::new() }
    }

    fn place(&mut self, pod: Arc<Pod>) {
        if let Some(spec) = &pod.spec {
            self.requested.add(&Resources::requested(spec));
        }
        self.pods.push(pod);
    }

    pub(crate) fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    pub(crate) fn requested(&self) -> &Resources {
        &self.requested
    }

    pub(crate) fn pods(&self) -> &[Arc<Pod>] {
        &self.pods
    }
}

/// All nodes at one moment, by name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Vec<NodeInfo>);

impl Snapshot {
    /// Puts the pods on their nodes. `placed` gives pods whose binding the watch has not shown yet, by uid.
    pub fn new(nodes: Vec<Arc<Node>>, pods: &[Arc<Pod>], placed: &HashMap<String, String>) -> Self {
        let mut by_name: BTreeMap<String, NodeInfo> =
            nodes.into_iter().map(|node| (node.name_any(), NodeInfo::new(node))).collect();
        for pod in pods.iter().filter(|pod| !is_finished(pod)) {
            let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            let assumed = pod.metadata.uid.as_ref().and_then(|uid| placed.get(uid));
            if let Some(node) = bound.or(assumed).and_then(|name| by_name.get_mut(name)) {
                node.place(pod.clone());
            }
        }
        Self(by_name.into_values().collect())
    }

    /// The nodes by name.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.0
    }
}

/// Whether the pod holds no resources any more.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
