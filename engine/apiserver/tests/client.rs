//! What `kube` and other clients expect, in process.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, PODS, pod, request};
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::WatchEvent;
use kube::runtime::watcher;
use serde_json::json;
use shipway_apiserver::{Body, Identity};

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap()
}

#[tokio::test]
async fn a_typed_client_does_its_daily_work() {
    let cluster = Cluster::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let created = maps.create(&PostParams::default(), &map("a")).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap(), created);
    assert_eq!(maps.get_opt("none").await.unwrap(), None);
    let conflict = maps.create(&PostParams::default(), &map("a")).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.reason == "AlreadyExists"));
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "2"}});
    let applied = maps.patch("a", &PatchParams::apply("tester"), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(applied.data.unwrap().len(), 2);
    let list = maps.list(&ListParams::default().fields("metadata.name=a")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let metadata = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[0].metadata.name.as_deref(), Some("a"));
    maps.delete("a", &DeleteParams::background()).await.unwrap();
    maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert_eq!(cluster.client().apiserver_version().await.unwrap().minor, "36");
}

#[tokio::test]
async fn a_typed_watch_and_a_streaming_watcher_see_what_happens() {
    let cluster = Cluster::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let streaming = watcher(maps.clone(), watcher::Config::default().streaming_lists());
    let mut streaming = std::pin::pin!(streaming);
    let mut seen = Vec::new();
    loop {
        match streaming.next().await.unwrap().unwrap() {
            watcher::Event::Init => {}
            watcher::Event::InitApply(map) => seen.push(map.metadata.name.unwrap()),
            watcher::Event::InitDone => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["a"]);
    let mut events = maps.watch(&kube::api::WatchParams::default(), "0").await.unwrap().boxed();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    assert!(matches!(streaming.next().await.unwrap().unwrap(), watcher::Event::Delete(_)));
}

#[tokio::test]
async fn discovery_lists_every_kind_in_both_forms() {
    let cluster = Cluster::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, group) in [("/api", ""), ("/apis", "apps")] {
        let mut asked = request("GET", path, "", "");
        asked.headers_mut().insert("accept", format!("{accept},application/json").parse().unwrap());
        let reply = cluster.send(Identity::admin(), asked).await;
        assert_eq!(reply.headers["content-type"], accept);
        let items = reply.ok()["items"].clone();
        let groups: Vec<_> =
            items.as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap_or("")).collect();
        assert!(groups.contains(&group), "{groups:?}");
    }
    let plain = cluster.get("/apis/apps/v1").await.ok();
    assert!(plain["resources"].as_array().unwrap().iter().any(|row| row["name"] == "deployments/scale"));
    assert_eq!(cluster.get("/api").await.ok()["versions"], json!(["v1"]));
    assert_eq!(cluster.get("/openapi/v2").await.code, 200);
    let index = cluster.get("/openapi/v3").await.ok();
    let document = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let reply = cluster.get(&document).await;
    assert!(reply.ok()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let mut again = request("GET", &document, "", "");
    again.headers_mut().insert("if-none-match", reply.headers["etag"].clone());
    assert_eq!(cluster.send(Identity::admin(), again).await.code, 304);
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let nodes: Api<Node> = Api::all(cluster.client());
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 4);
    assert!(nodes.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn logs_come_from_the_pods_node() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    let log = format!("{PODS}/a/log?tailLines=5&follow=true");
    assert_eq!(cluster.get(&log).await.failure().0, 400, "not bound yet");
    cluster.post(&format!("{PODS}/a/binding"), &json!({"target": {"kind": "Node", "name": "alpha"}})).await.ok();
    assert_eq!(cluster.get(&log).await.failure().0, 503, "no such node");
    let node = tower::service_fn(async |request: http::Request<Body>| {
        let text = format!("{} was asked\n", request.uri());
        let body = http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync();
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    cluster.server.register_node("alpha", tower::util::BoxCloneSyncService::new(node));
    let text = cluster.get(&log).await.bytes;
    assert_eq!(text, "/containerLogs/default/a/main?follow=true&tailLines=5 was asked\n");
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    assert!(pods.logs("a", &kube::api::LogParams::default()).await.unwrap().contains("/main? was asked"));
}
