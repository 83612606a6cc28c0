//! One node: what it offers, which pods are on it and what they take of it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::resources::Resources;
use crate::wanted::{HostPort, Wanted};

/// The place of a node in the snapshot.
pub(crate) type Slot = usize;

/// A node and the pods on it; or pods whose node is not known, or not any more.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    name: String,
    node: Option<Arc<Node>>,
    allocatable: Resources,
    requested: Resources,
    /// Processor time and memory requested as scores count it.
    usual: (i64, i64),
    pods: Vec<Arc<Wanted>>,
    ports: Vec<HostPort>,
    /// Pods that wait for others to leave this node.
    nominees: Vec<Arc<Wanted>>,
}

impl NodeInfo {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            usual: (0, 0),
            pods: Vec::new(),
            ports: Vec::new(),
            nominees: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, node: Option<Arc<Node>>) {
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        self.allocatable = Resources::read(status.and_then(|status| status.allocatable.as_ref()));
        self.node = node;
    }

    pub(super) fn place(&mut self, pod: Arc<Wanted>) {
        let (cpu, memory) = pod.requests.or_usual();
        self.usual = (self.usual.0.saturating_add(cpu), self.usual.1.saturating_add(memory));
        self.requested.add(&pod.requests);
        self.requested.pods += 1;
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    pub(super) fn take_away(&mut self, pod: &Arc<Wanted>) {
        let Some(place) = self.pods.iter().position(|other| Arc::ptr_eq(other, pod)) else { return };
        self.pods.remove(place);
        let (cpu, memory) = pod.requests.or_usual();
        self.usual = (self.usual.0.saturating_sub(cpu), self.usual.1.saturating_sub(memory));
        self.requested.subtract(&pod.requests);
        self.requested.pods -= 1;
        for port in &pod.ports {
            self.ports.iter().position(|taken| taken == port).map(|place| self.ports.swap_remove(place));
        }
    }

    pub(super) fn nominees_mut(&mut self) -> &mut Vec<Arc<Wanted>> {
        &mut self.nominees
    }

    /// Whether nothing is known of it any more.
    pub(super) fn is_nothing(&self) -> bool {
        self.node.is_none() && self.pods.is_empty() && self.nominees.is_empty()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    pub(crate) fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    pub(crate) fn requested(&self) -> &Resources {
        &self.requested
    }

    pub(crate) fn usual(&self) -> (i64, i64) {
        self.usual
    }

    pub(crate) fn pods(&self) -> &[Arc<Wanted>] {
        &self.pods
    }

    pub(crate) fn ports(&self) -> &[HostPort] {
        &self.ports
    }

    pub(crate) fn nominees(&self) -> &[Arc<Wanted>] {
        &self.nominees
    }
}
