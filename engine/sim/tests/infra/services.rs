//! Endpoints as older clients read and write them.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use super::{pod, ready, seconds};

fn service(name: &str, selector: &Value) -> Value {
    let spec = json!({"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

async fn addresses(cluster: &Cluster, name: &str) -> (usize, usize) {
    let endpoints: Option<Endpoints> = cluster.get(name).await;
    let subsets = endpoints.and_then(|it| it.subsets).unwrap_or_default();
    let count = |list: Option<Vec<_>>| list.map_or(0, |list| list.len());
    subsets
        .into_iter()
        .fold((0, 0), |(ready, not), it| (ready + count(it.addresses), not + count(it.not_ready_addresses)))
}

#[test]
fn a_service_with_a_selector_has_endpoints_too() {
    Cluster::builder().run(async |cluster| {
        let mut slow = pod("b", "node-0", json!({}));
        slow["metadata"] = json!({"name": "b", "labels": {"app": "a"}, "annotations": {"sim/ready": "false"}});
        cluster.apply(pod("a", "node-0", json!({}))).await;
        cluster.apply(slow).await;
        cluster.apply(service("web", &json!({"app": "a"}))).await;
        ready(&cluster, "a").await;
        let both = async |cluster: &Cluster| addresses(cluster, "web").await == (1, 1);
        cluster.until("one is ready, one is not", seconds(5), both).await;
        let endpoints: Endpoints = cluster.get("web").await.unwrap();
        assert_eq!(endpoints.subsets.unwrap()[0].ports.as_ref().unwrap()[0].port, 8080);
        let slices: Vec<EndpointSlice> = cluster.list("default", "kubernetes.io/service-name=web").await;
        assert_eq!(slices.len(), 1, "they are not mirrored back");
        cluster.delete::<Service>("web").await;
        let gone = async |cluster: &Cluster| cluster.get::<Endpoints>("web").await.is_none();
        cluster.until("they go with the service", seconds(5), gone).await;
    });
}

#[test]
fn endpoints_written_by_hand_become_slices() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(service("db", &Value::Null)).await;
        let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 5432}]}]);
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db"}, "subsets": subsets("192.0.2.7")});
        cluster.apply(endpoints).await;
        let leads = async |cluster: &Cluster| {
            let slices: Vec<EndpointSlice> = cluster.list("default", "kubernetes.io/service-name=db").await;
            let ends = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            ends.flat_map(|end| end.addresses.clone()).collect::<Vec<_>>()
        };
        cluster.until("a slice", seconds(5), async |cluster| leads(cluster).await == ["192.0.2.7"]).await;
        cluster.patch::<Endpoints>("db", json!({"subsets": subsets("192.0.2.8")})).await;
        cluster.until("another", seconds(5), async |cluster| leads(cluster).await == ["192.0.2.8"]).await;
        cluster.delete::<Endpoints>("db").await;
        cluster.until("none", seconds(5), async |cluster| leads(cluster).await.is_empty()).await;
    });
}
