//! What the machine's containers use, as annotations on their pods tell, on the one path of a kubelet's that figures are
//! asked for at: `/stats/summary`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use serde_json::{Value, json};
use shipway_apiserver::{Body, NodeService};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;

use super::machine::Machine;
use super::plan::Plan;
use super::sandbox::{Now, Sandbox};
use super::{Alive, lock};

/// What every rate was measured over.
const WINDOW_NANOSECONDS: u64 = 10_000_000_000;

/// Answers for a machine while the node's process is up.
pub(super) fn service(machine: Arc<Mutex<Machine>>, alive: Alive) -> NodeService {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let known = alive.get() && request.uri().path() == "/stats/summary" && request.body().is_end_stream();
        let (code, text) = if known {
            (StatusCode::OK, summary(&lock(&machine)).to_string())
        } else {
            (StatusCode::NOT_FOUND, String::new())
        };
        let body = Full::from(text).map_err(|never| match never {}).boxed_unsync();
        let mut reply = Response::new(body);
        *reply.status_mut() = code;
        async move { Ok::<_, Infallible>(reply) }
    }))
}

fn summary(machine: &Machine) -> Value {
    let now = Instant::now();
    let running = machine.sandboxes().filter(|sandbox| sandbox.runs_at(now));
    let pods: Vec<(Used, Value)> = running.map(pod).collect();
    let all = pods.iter().fold(Used::default(), |sum, (used, _)| sum.and(*used));
    let pods: Vec<Value> = pods.into_iter().map(|(_, pod)| pod).collect();
    json!({"node": all.figures(), "pods": pods})
}

fn pod(sandbox: &Sandbox) -> (Used, Value) {
    let plan = Plan(&sandbox.pod);
    let running = sandbox.containers.iter().filter(|it| matches!(it.now, Now::Running { .. }));
    let mut all = Used::default();
    let containers: Vec<Value> = running
        .map(|container| {
            let (nanocores, bytes) = plan.uses(&container.name);
            let used = Used { nanocores, bytes };
            all = all.and(used);
            let mut figures = used.figures();
            figures["name"] = container.name.as_str().into();
            figures
        })
        .collect();
    let metadata = &sandbox.pod.metadata;
    let reference = json!({"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid});
    (all, json!({"podRef": reference, "containers": containers}))
}

#[derive(Clone, Copy, Default)]
struct Used {
    nanocores: u64,
    bytes: u64,
}

impl Used {
    fn and(self, other: Self) -> Self {
        Self { nanocores: self.nanocores + other.nanocores, bytes: self.bytes + other.bytes }
    }

    fn figures(self) -> Value {
        let time = Timestamp::now().to_string();
        json!({
            "cpu": {"time": time, "usageNanoCores": self.nanocores, "windowNanoSeconds": WINDOW_NANOSECONDS},
            "memory": {"time": time, "workingSetBytes": self.bytes},
        })
    }
}
