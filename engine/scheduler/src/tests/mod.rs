//! The choice of a node as a pure function: a small cluster, a pod, and where it goes or what it is told.
#![expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]

mod affinity;
mod nodes;
mod order;
mod preemption;
mod properties;
mod resources;
mod spread;
mod storage;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::{Snapshot, Volumes, Wanted, choose};

/// Puts the fields of one object over those of another, lists as a whole.
fn over(mut base: Value, more: &Value) -> Value {
    let (Some(fields), Some(more)) = (base.as_object_mut(), more.as_object()) else { return more.clone() };
    for (key, value) in more {
        let own = fields.remove(key).unwrap_or(Value::Null);
        let value = if own.is_object() && value.is_object() { over(own, value) } else { value.clone() };
        fields.insert(key.clone(), value);
    }
    base
}

/// A node of four cores and 8 GiB in no zone; `more` goes over it.
fn node(name: &str, more: Value) -> Arc<Node> {
    let base = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "10" } },
    });
    Arc::new(serde_json::from_value(over(base, &more)).unwrap())
}

/// A node in a zone.
fn zoned(name: &str, zone: &str) -> Arc<Node> {
    node(name, json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }))
}

/// A pod `app: web` that asks for nothing; `more` goes over it.
fn pod(name: &str, more: Value) -> Arc<Wanted> {
    let base = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let pod: Pod = serde_json::from_value(over(base, &more)).unwrap();
    Arc::new(Wanted::of(Arc::new(pod)))
}

/// A spec whose container asks for that.
fn asking(requests: Value) -> Value {
    json!({ "spec": { "containers": [{ "name": "c", "image": "i", "resources": { "requests": requests } }] } })
}

#[derive(Default)]
struct Cluster {
    snapshot: Snapshot,
    volumes: Volumes,
}

impl Cluster {
    fn of(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let mut cluster = Self::default();
        nodes.into_iter().for_each(|node| cluster.snapshot.set_node(&node));
        cluster
    }

    fn with(mut self, node: &str, pods: impl IntoIterator<Item = Arc<Wanted>>) -> Self {
        pods.into_iter().for_each(|pod| self.snapshot.place(&pod, node));
        self
    }

    /// The node's name, or what the pod is told.
    fn choose(&mut self, pod: &Arc<Wanted>) -> Result<String, String> {
        let chosen = choose(pod, &mut self.snapshot, &self.volumes);
        chosen.map(|choice| choice.node).map_err(|unfit| unfit.to_string())
    }

    /// The same, and the pod is there from then on.
    fn place(&mut self, pod: &Arc<Wanted>) -> Result<String, String> {
        let node = self.choose(pod)?;
        self.snapshot.place(pod, &node);
        Ok(node)
    }

    /// All nodes that the pod could run on, by name.
    fn open(&mut self, pod: &Arc<Wanted>) -> Vec<String> {
        let question = crate::fit::Question::new(pod, &mut self.snapshot, &self.volumes);
        let fits = |slot: &usize| question.ask(&self.snapshot, *slot).is_ok();
        let mut names: Vec<_> =
            self.snapshot.present().filter(fits).map(|slot| self.snapshot.node(slot).name().to_owned()).collect();
        names.sort();
        names
    }
}

fn told(why: &str) -> Result<String, String> {
    Err(format!("0/1 nodes are available: 1 {why}."))
}
