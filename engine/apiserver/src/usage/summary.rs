//! A node's own account of what is used on it, as its `/stats/summary` has it, and the documents that follow from it.
//!
//! What a node says is bounded and read as data; nothing but numbers and names of containers gets out of it.

use std::collections::HashMap;

use http::{Method, Request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shipway_schema::Resource;
use shipway_schema::quantity::Quantity;

use crate::body::{collect, full};
use crate::clock;
use crate::object::Object;
use crate::pod::ask;
use crate::service::NodeService;

/// The path that is asked for: without networks and disks.
const PATH: &str = "/stats/summary?only_cpu_and_memory=true";
/// No answer is longer, in bytes: some hundred pods take 0.2 MB.
const LONGEST: usize = 16 << 20;

/// What is used on a node.
#[derive(Debug, Deserialize)]
#[serde(from = "Told")]
pub(super) struct Summary {
    node: Measured,
    /// The containers of each pod, by its uid.
    pods: HashMap<String, Vec<Container>>,
}

#[derive(Deserialize)]
struct Told {
    node: Measured,
    #[serde(default)]
    pods: Vec<Pod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    pod_ref: Reference,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Reference {
    uid: String,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Clone, Debug, Deserialize)]
struct Measured {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_nano_cores: Option<u64>,
    #[serde(default)]
    window_nano_seconds: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

impl From<Told> for Summary {
    fn from(told: Told) -> Self {
        Self { node: told.node, pods: told.pods.into_iter().map(|pod| (pod.pod_ref.uid, pod.containers)).collect() }
    }
}

/// One measurement, without whose it is.
pub(super) struct Document {
    at: Timestamp,
    window: u64,
    /// The field that holds the figures, and them.
    what: (&'static str, Value),
}

impl Summary {
    /// Asks a node.
    pub(super) async fn of(service: NodeService) -> Result<Self, String> {
        let request = Request::builder().method(Method::GET).uri(PATH).body(full(bytes::Bytes::new()));
        let reply = ask(service, request.map_err(|error| error.to_string())?).await;
        if !reply.status().is_success() {
            return Err(format!("{PATH} was answered with {}", reply.status()));
        }
        let body = collect(reply.into_body(), LONGEST).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("{PATH} was answered with nonsense: {error}"))
    }

    /// What the node uses as a whole.
    pub(super) fn node(&self) -> Option<Document> {
        let (cpu, usage) = self.node.figures()?;
        Some(Document { at: cpu.time, window: cpu.window_nano_seconds, what: ("usage", usage) })
    }

    /// What the containers of a pod use, when all of them were measured.
    pub(super) fn pod(&self, uid: &str) -> Option<Document> {
        let containers = self.pods.get(uid)?;
        let figures: Vec<(Cpu, Value)> = containers
            .iter()
            .map(|container| {
                let (cpu, usage) = container.measured.figures()?;
                Some((cpu, json!({"name": container.name, "usage": usage})))
            })
            .collect::<Option<_>>()?;
        let first = figures.iter().map(|(cpu, _)| cpu).min_by_key(|cpu| cpu.time).copied()?;
        let containers: Vec<Value> = figures.into_iter().map(|(_, container)| container).collect();
        Some(Document { at: first.time, window: first.window_nano_seconds, what: ("containers", containers.into()) })
    }
}

impl Measured {
    fn figures(&self) -> Option<(Cpu, Value)> {
        let cpu = self.cpu?;
        let memory = Quantity::from_bytes(self.memory?.working_set_bytes?).to_string();
        let nanocores = cpu.usage_nano_cores?;
        let used = if nanocores == 0 { "0".to_owned() } else { format!("{nanocores}n") };
        Some((cpu, json!({"cpu": used, "memory": memory})))
    }
}

impl Document {
    /// The whole document about an object.
    pub(super) fn about(self, resource: &Resource, object: &Object) -> Value {
        let mut metadata = json!({"name": object.name(), "creationTimestamp": clock::text(self.at)});
        if let Some(namespace) = object.namespace() {
            metadata["namespace"] = namespace.into();
        }
        let labels: serde_json::Map<String, Value> =
            object.labels().map(|(key, value)| (key.to_owned(), value.into())).collect();
        if !labels.is_empty() {
            metadata["labels"] = labels.into();
        }
        let (field, figures) = self.what;
        json!({
            "kind": resource.kind,
            "apiVersion": resource.api_version(),
            "metadata": metadata,
            "timestamp": clock::text(self.at),
            "window": seconds(self.window),
            field: figures,
        })
    }
}

/// Nanoseconds as Go writes a duration, in seconds and thousandths.
fn seconds(nanoseconds: u64) -> String {
    let thousandths = nanoseconds / 1_000_000;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_as_a_duration() {
        let table = [(0, "0s"), (500_000_000, "0.5s"), (10_000_000_000, "10s"), (15_069_400_000, "15.069s")];
        for (nanoseconds, text) in table {
            assert_eq!(seconds(nanoseconds), text);
        }
    }

    #[test]
    fn a_pod_is_told_when_all_of_it_was_measured() {
        let container = |name: &str, second: u32, rate: Value| {
            json!({"name": name, "memory": {"workingSetBytes": 4096}, "cpu": {"time": format!("2026-01-01T00:00:{second:02}Z"),
                "usageNanoCores": rate, "windowNanoSeconds": 3_000_000_000_u64}})
        };
        let pod = |uid: &str, containers: Value| json!({"podRef": {"uid": uid}, "containers": containers});
        let told = json!({"node": {}, "pods": [
            pod("whole", json!([container("a", 9, json!(7)), container("b", 8, json!(0))])),
            pod("half", json!([container("a", 9, json!(7)), container("b", 8, Value::Null)])),
            pod("empty", json!([])),
        ]});
        let summary: Summary = serde_json::from_value(told).unwrap();
        assert!(summary.node().is_none() && summary.pod("half").is_none() && summary.pod("empty").is_none());
        let document = summary.pod("whole").unwrap();
        assert_eq!((clock::text(document.at).as_str(), document.window), ("2026-01-01T00:00:08Z", 3_000_000_000));
        let usage = |cpu: &str| json!({"cpu": cpu, "memory": "4Ki"});
        let expected = json!([{"name": "a", "usage": usage("7n")}, {"name": "b", "usage": usage("0")}]);
        assert_eq!(document.what, ("containers", expected));
    }
}
