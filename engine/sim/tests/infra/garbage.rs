//! Owners and what they own; events that have become old.

use k8s_openapi::api::core::v1::{ConfigMap, Event, Node};
use serde_json::{Value, json};
use shipway_sim::Cluster;

use super::{MINUTE, seconds, told};

fn map(namespace: &str, name: &str, owners: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": namespace, "ownerReferences": owners});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
}

fn owned_by(name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true}])
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn is_there(cluster: &Cluster, key: &str) -> bool {
    cluster.get::<ConfigMap>(key).await.is_some()
}

#[test]
fn objects_that_own_each_other_end_in_the_foreground() {
    Cluster::builder().run(async |cluster| {
        let one = cluster.apply(map("default", "one", &json!([]))).await;
        let two = cluster.apply(map("default", "two", &owned_by("one", &uid(&one)))).await;
        let three = cluster.apply(map("default", "three", &owned_by("two", &uid(&two)))).await;
        cluster.apply(map("default", "one", &owned_by("three", &uid(&three)))).await;
        cluster.delete_with::<ConfigMap>("one", json!({"propagationPolicy": "Foreground"})).await;
        let gone = async |cluster: &Cluster| {
            !is_there(cluster, "one").await && !is_there(cluster, "two").await && !is_there(cluster, "three").await
        };
        cluster.until("all three are gone", MINUTE, gone).await;
    });
}

#[test]
fn a_foreground_deletion_waits_for_those_that_block_it() {
    Cluster::builder().run(async |cluster| {
        let owner = cluster.apply(map("default", "owner", &json!([]))).await;
        let mut held = map("default", "held", &owned_by("owner", &uid(&owner)));
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        cluster.apply(held).await;
        cluster.delete_with::<ConfigMap>("owner", json!({"propagationPolicy": "Foreground"})).await;
        cluster.always("it waits", MINUTE, async |cluster| is_there(cluster, "owner").await).await;
        cluster.patch::<ConfigMap>("held", json!({"metadata": {"finalizers": null}})).await;
        cluster.until("it goes", seconds(5), async |cluster| !is_there(cluster, "owner").await).await;
    });
}

#[test]
fn an_owner_in_another_namespace_is_none() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})).await;
        let owner = cluster.apply(map("other", "owner", &json!([]))).await;
        cluster.apply(map("default", "child", &owned_by("owner", &uid(&owner)))).await;
        cluster.until("it is collected", seconds(5), async |cluster| !is_there(cluster, "child").await).await;
        cluster.run_for(seconds(1)).await;
        assert!(told(&cluster, "OwnerRefInvalidNamespace", "does not exist in namespace \"default\"").await);
    });
}

#[test]
fn what_belongs_to_no_namespace_cannot_be_owned_from_one() {
    Cluster::builder().run(async |cluster| {
        let owners = owned_by("gone", "00000000-0000-4000-8000-000000000000");
        let object =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "odd", "ownerReferences": owners}});
        cluster.apply(object).await;
        let there = async |cluster: &Cluster| cluster.get::<Node>("/odd").await.is_some();
        cluster.always("it stays", seconds(30), there).await;
        assert!(told(&cluster, "OwnerRefInvalidNamespace", "v1/ConfigMap").await);
    });
}

#[test]
fn an_owner_that_nobody_serves_may_still_be_there() {
    Cluster::builder().run(async |cluster| {
        let owners = json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "t"}]);
        cluster.apply(map("default", "child", &owners)).await;
        cluster.always("it stays", MINUTE, async |cluster| is_there(cluster, "child").await).await;
    });
}

#[test]
fn of_two_owners_the_one_that_is_gone_is_forgotten() {
    Cluster::builder().run(async |cluster| {
        let one = uid(&cluster.apply(map("default", "one", &json!([]))).await);
        let two = uid(&cluster.apply(map("default", "two", &json!([]))).await);
        let owners = json!([owned_by("one", &one)[0], owned_by("two", &two)[0]]);
        cluster.apply(map("default", "child", &owners)).await;
        cluster.delete::<ConfigMap>("one").await;
        let one_left = async |cluster: &Cluster| {
            let child: ConfigMap = cluster.get("child").await.unwrap();
            child.metadata.owner_references.unwrap().len() == 1
        };
        cluster.until("one is left", seconds(5), one_left).await;
        cluster.delete::<ConfigMap>("two").await;
        cluster.until("it is collected", seconds(5), async |cluster| !is_there(cluster, "child").await).await;
    });
}

#[test]
fn kinds_that_come_later_own_and_are_owned() {
    Cluster::builder().run(async |cluster| {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": schema}]);
        let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
        let spec = json!({"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.com"}, "spec": spec});
        cluster.apply(definition).await;
        cluster.run_for(seconds(2)).await;
        let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}});
        let things = "/apis/example.com/v1/namespaces/default/things";
        let made = cluster.call(http::Method::POST, things, "application/json", &thing).await.unwrap();
        let owners = json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": uid(&made)}]);
        cluster.apply(map("default", "child", &owners)).await;
        cluster.run_for(seconds(5)).await;
        assert!(is_there(&cluster, "child").await);
        let path = format!("{things}/t");
        cluster.call(http::Method::DELETE, &path, "application/json", &json!({})).await.unwrap();
        cluster.until("the child is collected", seconds(5), async |cluster| !is_there(cluster, "child").await).await;
    });
}

#[test]
fn events_are_kept_for_an_hour() {
    Cluster::builder().run(async |cluster| {
        let event = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Test",
                "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}})
        };
        cluster.apply(event("old")).await;
        cluster.apply(event("again")).await;
        cluster.run_for(30 * MINUTE).await;
        cluster.patch::<Event>("again", json!({"count": 2})).await;
        cluster.run_for(35 * MINUTE).await;
        assert!(cluster.get::<Event>("old").await.is_none());
        assert!(cluster.get::<Event>("again").await.is_some(), "it was written again");
        cluster.run_for(30 * MINUTE).await;
        assert!(cluster.get::<Event>("again").await.is_none());
    });
}
