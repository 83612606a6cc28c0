//! What users do: make workloads, change, scale and delete them, delete pods under them.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Cluster;
use crate::chaos::observer::Observer;
use crate::chaos::recipes::{self, Kind};
use crate::chaos::trace::Trace;
use crate::kinds;

/// How long to wait before a call is made again that failed: the API server may be away.
const RETRY: Duration = Duration::from_millis(500);
/// At most so many workloads at once.
const MOST: usize = 6;
const APPLY: &str = "application/apply-patch+yaml";

/// The workloads that are to be there.
pub(crate) struct Workload {
    rng: Rng,
    nodes: usize,
    /// By name: the object as it was last applied.
    pub(crate) wanted: BTreeMap<String, Value>,
    /// How many there have been.
    made: u64,
    pub(crate) changes: u64,
}

impl Workload {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self { rng: Rng::with_seed(seed), nodes, wanted: BTreeMap::new(), made: 0, changes: 0 }
    }

    /// Changes something now and then until `end`, or until something broke.
    pub(crate) async fn run(&mut self, cluster: &Cluster, observer: &Observer, trace: &Trace, end: Instant) {
        loop {
            let pause = Duration::from_millis(self.rng.u64(100..40_000));
            if Instant::now() + pause >= end || observer.has_violations() {
                return;
            }
            sleep(pause).await;
            self.changes += 1;
            self.act(cluster, observer, trace).await;
        }
    }

    async fn act(&mut self, cluster: &Cluster, observer: &Observer, trace: &Trace) {
        let names: Vec<String> = self.wanted.keys().cloned().collect();
        if names.is_empty() || (names.len() < MOST && self.rng.u32(..5) == 0) {
            return self.make(cluster, trace).await;
        }
        let name = names[self.rng.usize(..names.len())].clone();
        let kind = Kind::of(&self.wanted[&name]);
        match self.rng.u32(..10) {
            0..4 if kind.rolls() => self.roll(&name),
            0..7 => {
                // A job without pods would never end.
                let count = self.rng.u64(u64::from(kind == Kind::Job)..=3 * self.nodes as u64 / 2);
                let Some(field) = kind.count() else { return };
                self.change(&name, |object| object["spec"][field] = json!(count));
                observer.excuse(Duration::ZERO);
            }
            7 => {
                observer.excuse(Duration::ZERO);
                return self.delete_pod(cluster, trace).await;
            }
            _ => return self.delete(cluster, trace, &name).await,
        }
        self.apply(cluster, trace, &name).await;
    }

    async fn make(&mut self, cluster: &Cluster, trace: &Trace) {
        self.made += 1;
        let name = format!("w{}", self.made);
        let object = recipes::draw(&mut self.rng, &name, self.nodes);
        self.wanted.insert(name.clone(), object);
        self.apply(cluster, trace, &name).await;
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        if let Some(object) = self.wanted.get_mut(name) {
            change(object);
        }
    }

    fn roll(&mut self, name: &str) {
        let image = format!("app:{}", self.rng.u32(2..9));
        self.change(name, |object| object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
    }

    async fn apply(&self, cluster: &Cluster, trace: &Trace, name: &str) {
        let object = &self.wanted[name];
        trace.say(format!("apply {} {name}: {}", object["kind"].as_str().unwrap_or_default(), recipes::told(object)));
        let path = kinds::path(cluster.registry(), object) + "?fieldManager=user&force=true";
        insist(cluster, Method::PATCH, &path, APPLY, object).await;
    }

    async fn delete(&mut self, cluster: &Cluster, trace: &Trace, name: &str) {
        let Some(object) = self.wanted.remove(name) else { return };
        let policy = if self.rng.bool() { "Background" } else { "Foreground" };
        trace.say(format!("delete {name} ({policy})"));
        let path = kinds::path(cluster.registry(), &object);
        insist(cluster, Method::DELETE, &path, "application/json", &json!({"propagationPolicy": policy})).await;
    }

    async fn delete_pod(&mut self, cluster: &Cluster, trace: &Trace) {
        let folder = "/api/v1/namespaces/default/pods";
        let Ok(pods) = cluster.call(Method::GET, folder, "application/json", &Value::Null).await else { return };
        let pods = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        if names.is_empty() {
            return;
        }
        let name = names[self.rng.usize(..names.len())];
        trace.say(format!("delete pod {name}"));
        let path = format!("{folder}/{name}");
        insist(cluster, Method::DELETE, &path, "application/json", &json!({})).await;
    }
}

/// Makes a call until it is answered. What is gone need not be deleted.
async fn insist(cluster: &Cluster, method: Method, path: &str, kind: &str, body: &Value) {
    loop {
        match cluster.call(method.clone(), path, kind, body).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if method == Method::DELETE && status.code == 404 => return,
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 409 && status.code != 429 => {
                panic!("{method} {path}: {status:?}")
            }
            Err(_) => sleep(RETRY).await,
        }
    }
}
