//! `metrics.k8s.io`: figures come from the nodes, when somebody asks.
#![allow(clippy::unwrap_used)]

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Cluster, PODS, pod, request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shipway_apiserver::{Body, Identity};
use tower::util::BoxCloneSyncService;

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const ALL: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const OWN: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// A node that says the same of all pods, and counts how often it was asked.
fn node(
    uids: Vec<String>,
) -> (BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let node = tower::service_fn(move |request: http::Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        let figures = |nanocores: u64| {
            json!({
                "cpu": {"time": "2026-01-01T00:00:10.5Z", "usageNanoCores": nanocores, "windowNanoSeconds": 10_250_000_000_u64},
                "memory": {"time": "2026-01-01T00:00:10.5Z", "workingSetBytes": 12 << 20},
            })
        };
        let pods: Vec<Value> = uids
            .iter()
            .map(|uid| {
                let mut container = figures(250_000_001);
                container["name"] = "main".into();
                json!({"podRef": {"uid": uid}, "containers": [container]})
            })
            .collect();
        let known = request.uri().path() == "/stats/summary";
        let text = json!({"node": figures(1_500_000_000), "pods": pods}).to_string();
        let body = http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync();
        let reply = http::Response::builder().status(if known { 200 } else { 404 }).body(body).unwrap();
        async move { Ok::<_, Infallible>(reply) }
    });
    (BoxCloneSyncService::new(node), asked)
}

/// Pods `a`, which is bound to `alpha`, and `b`, which is not bound; gives how often the node was asked.
async fn measured() -> (Cluster, Arc<AtomicUsize>) {
    let cluster = Cluster::new().await;
    let one = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "alpha", "labels": {"disk": "fast"}}});
    cluster.post("/api/v1/nodes", &one).await.ok();
    let mut labelled = pod("a", &json!({}));
    labelled["metadata"]["labels"] = json!({"app": "web"});
    let uid = cluster.post(PODS, &labelled).await.ok()["metadata"]["uid"].as_str().unwrap().to_owned();
    cluster.post(PODS, &pod("b", &json!({}))).await.ok();
    cluster.post(&format!("{PODS}/a/binding"), &json!({"target": {"kind": "Node", "name": "alpha"}})).await.ok();
    let (service, asked) = node(vec![uid]);
    cluster.server.register_node("alpha", service);
    (cluster, asked)
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn nodes_and_pods_are_measured_when_somebody_asks() {
    let (cluster, asked) = measured().await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let node = cluster.get(&format!("{NODES}/alpha")).await.ok();
    let expected = json!({
        "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "alpha", "creationTimestamp": "2026-01-01T00:00:10Z", "labels": {"disk": "fast"}},
        "timestamp": "2026-01-01T00:00:10Z", "window": "10.25s", "usage": {"cpu": "1500000000n", "memory": "12Mi"},
    });
    assert_eq!(node, expected);
    let pods = cluster.get(ALL).await.ok();
    assert_eq!((pods["kind"].as_str(), names(&pods)), (Some("PodMetricsList"), vec!["a"]));
    let usage = json!([{"name": "main", "usage": {"cpu": "250000001n", "memory": "12Mi"}}]);
    assert_eq!(pods["items"][0]["containers"], usage);
    assert_eq!(cluster.get(&format!("{OWN}/a")).await.ok()["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn selectors_choose_and_whoever_is_not_chosen_is_not_asked() {
    let (cluster, asked) = measured().await;
    for (query, expected) in [
        ("labelSelector=app%3Dweb", 1),
        ("labelSelector=app%3Dother", 0),
        ("fieldSelector=metadata.name%3Da", 1),
        ("fieldSelector=metadata.name%3Db", 0),
    ] {
        let list = cluster.get(&format!("{OWN}?{query}")).await.ok();
        assert_eq!(names(&list).len(), expected, "{query}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(cluster.get(&format!("{OWN}?fieldSelector=spec.nodeName%3Dalpha")).await.failure().0, 400);
    assert!(names(&cluster.get("/apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods").await.ok()).is_empty());
}

#[tokio::test]
async fn what_is_not_measured_is_not_there() {
    let (cluster, _) = measured().await;
    let (code, text) = cluster.get(&format!("{OWN}/b")).await.failure();
    assert_eq!((code, text.as_str()), (404, "podmetrics.metrics.k8s.io \"default/b\" not found"));
    let (code, text) = cluster.get(&format!("{NODES}/beta")).await.failure();
    assert_eq!((code, text.as_str()), (404, "nodemetrics.metrics.k8s.io \"beta\" not found"));
    let broken = tower::service_fn(async |_: http::Request<Body>| {
        let body = http_body_util::Full::from("no json").map_err(|never| match never {}).boxed_unsync();
        Ok::<_, Infallible>(http::Response::new(body))
    });
    cluster.server.register_node("alpha", BoxCloneSyncService::new(broken));
    assert!(names(&cluster.get(NODES).await.ok()).is_empty() && names(&cluster.get(ALL).await.ok()).is_empty());
}

#[tokio::test]
async fn the_group_is_served_to_be_read_and_cannot_be_taken_over() {
    let (cluster, _) = measured().await;
    let resources = cluster.get("/apis/metrics.k8s.io/v1beta1").await.ok();
    let all = resources["resources"].as_array().unwrap();
    let kinds: Vec<_> = all.iter().map(|one| (one["name"].as_str().unwrap(), one["verbs"].clone())).collect();
    assert_eq!(kinds, [("nodes", json!(["get", "list"])), ("pods", json!(["get", "list"]))]);
    let document = cluster.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await.ok();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(schemas.contains_key("io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetricsList"));
    let taken = json!({"spec": {"service": {"name": "metrics-server", "namespace": "kube-system"}}});
    cluster.patch("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io", "merge", &taken).await;
    assert_eq!(names(&cluster.get(NODES).await.ok()), ["alpha"]);
    for (method, path) in [("POST", OWN), ("DELETE", OWN), ("GET", &format!("{OWN}?watch=1"))] {
        assert_eq!(cluster.call(method, path, "application/json", "{}").await.failure().0, 405, "{method}");
    }
    assert_eq!(cluster.get(&format!("{OWN}/a/status")).await.failure().0, 404);
}

#[tokio::test]
async fn a_table_shows_sums_and_who_may_view_may_see_it() {
    let (cluster, _) = measured().await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregated-metrics-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    let jane = || Identity::new("jane", &[]);
    let mut asked = request("GET", OWN, "", "");
    asked.headers_mut().insert("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
    assert_eq!(cluster.send(jane(), asked.clone()).await.failure().0, 403);
    cluster.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &role).await.ok();
    let table = cluster.send(jane(), asked).await.ok();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "250000001n", "12Mi", "10.25s"]));
}
