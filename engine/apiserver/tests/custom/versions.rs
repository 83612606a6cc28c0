//! Versions that do not know each other's fields, and the way from one stored version to the next.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shipway_store::Range;

use crate::common::Cluster;
use crate::{DEFINITIONS, define, definition};

const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";

fn path(version: &str, name: &str) -> String {
    format!("/apis/stable.example.com/{version}/namespaces/default/crontabs/{name}")
}

/// A version with these fields in its `spec`.
fn version(name: &str, storage: bool, fields: &Value) -> Value {
    let spec = json!({ "type": "object", "properties": fields });
    json!({ "name": name, "served": true, "storage": storage,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } } })
}

/// `v1` knows `old`, `v2` knows `extra`; both know `name`.
fn both(storage: &str) -> Value {
    let text = json!({ "type": "string" });
    let (first, second) =
        (json!({ "name": text, "old": { "type": "integer" } }), json!({ "name": text, "extra": text }));
    definition(&[version("v1", storage == "v1", &first), version("v2", storage == "v2", &second)])
}

async fn apply(cluster: &Cluster, version: &str, name: &str, spec: &Value) -> Value {
    let object = json!({ "apiVersion": format!("stable.example.com/{version}"), "kind": "CronTab", "metadata": { "name": name }, "spec": spec });
    let path = format!("{}?fieldManager=tester&force=true", path(version, name));
    cluster.patch(&path, "apply", &object).await.ok()["spec"].clone()
}

async fn read(cluster: &Cluster, version: &str, name: &str) -> Value {
    cluster.get(&path(version, name)).await.ok()["spec"].clone()
}

/// Makes another version the stored one, and waits until it is.
async fn store_in(cluster: &Cluster, version: &str) {
    let applied = cluster.patch(&format!("{DEFINITION}?fieldManager=tester&force=true"), "apply", &both(version)).await;
    applied.ok();
    let begun = Instant::now();
    let probe = json!({ "metadata": { "name": "probe" } });
    let prefix = "/registry/stable.example.com/crontabs/default/probe";
    loop {
        cluster.post(path("v1", "").trim_end_matches('/'), &probe).await.ok();
        let stored = cluster.store.range(Range::prefix(prefix)).await.unwrap();
        let stored: Value = serde_json::from_slice(&stored.items[0].value).unwrap();
        cluster.delete(&path("v1", "probe")).await.ok();
        if stored["apiVersion"] == format!("stable.example.com/{version}") {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "the stored version follows the definition");
    }
}

#[tokio::test]
async fn what_the_stored_version_has_no_place_for_is_lost() {
    let cluster = Cluster::new().await;
    define(&cluster, &both("v1")).await;
    assert_eq!(apply(&cluster, "v1", "old", &json!({ "name": "a", "old": 5 })).await, json!({ "name": "a", "old": 5 }));
    assert_eq!(read(&cluster, "v2", "old").await, json!({ "name": "a" }));
    // The reply says what was stored.
    assert_eq!(apply(&cluster, "v2", "new", &json!({ "name": "b", "extra": "x" })).await, json!({ "name": "b" }));
    assert_eq!(read(&cluster, "v1", "new").await, json!({ "name": "b" }));
    let listed = cluster.get(path("v2", "").trim_end_matches('/')).await.ok();
    assert!(
        listed["items"].as_array().unwrap().iter().all(|item| item["spec"].as_object().unwrap().len() == 1),
        "{listed}"
    );

    store_in(&cluster, "v2").await;
    // What is stored stays until it is written again.
    assert_eq!(read(&cluster, "v1", "old").await, json!({ "name": "a", "old": 5 }));
    assert_eq!(
        apply(&cluster, "v2", "new", &json!({ "name": "b", "extra": "x" })).await,
        json!({ "name": "b", "extra": "x" })
    );
    assert_eq!(apply(&cluster, "v1", "old", &json!({ "name": "c", "old": 6 })).await, json!({ "name": "c" }));
    assert_eq!(read(&cluster, "v2", "old").await, json!({ "name": "c" }));
    cluster.delete(DEFINITION).await.ok();
    crate::gone(&cluster, DEFINITION).await;
}

#[tokio::test]
async fn what_is_read_has_the_defaults_of_the_version_that_it_is_stored_in() {
    let cluster = Cluster::new().await;
    let size = |size: i64| json!({ "type": "integer", "default": size });
    let first = version("v1", true, &json!({ "name": { "type": "string" } }));
    let second = version("v2", false, &json!({ "name": { "type": "string" } }));
    define(&cluster, &definition(&[first, second])).await;
    let spec = json!({ "metadata": { "name": "a" }, "spec": { "name": "a" } });
    cluster.post(path("v1", "").trim_end_matches('/'), &spec).await.ok();
    let mut grown = cluster.get(DEFINITION).await.ok();
    for (at, fields) in
        [(0, json!({ "one": size(1), "two": size(2) })), (1, json!({ "two": size(20), "three": size(30) }))]
    {
        let schema = &mut grown["spec"]["versions"][at]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        schema["properties"] = fields;
    }
    cluster.put(DEFINITION, &grown).await.ok();
    let begun = Instant::now();
    while read(&cluster, "v1", "a").await != json!({ "one": 1, "two": 2 }) {
        assert!(begun.elapsed() < Duration::from_secs(5), "what is read follows the definition");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(read(&cluster, "v2", "a").await, json!({ "two": 2 }));
}

#[tokio::test]
async fn once_all_objects_are_rewritten_the_old_version_can_go() {
    let cluster = Cluster::new().await;
    define(&cluster, &both("v1")).await;
    for name in ["a", "b", "c"] {
        apply(&cluster, "v1", name, &json!({ "name": name })).await;
    }
    store_in(&cluster, "v2").await;
    let stored = cluster.get(DEFINITION).await.ok();
    assert_eq!(stored["status"]["storedVersions"], json!(["v1", "v2"]));
    let without_first = |mut definition: Value| {
        definition["spec"]["versions"].as_array_mut().unwrap().remove(0);
        definition
    };
    let (code, text) = cluster.put(DEFINITION, &without_first(stored)).await.failure();
    let refused = "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version";
    assert!(code == 422 && text.contains(refused), "{text}");

    // Writing an object as it is moves it: whole, by an empty patch, or through its status.
    let same = cluster.get(&path("v1", "a")).await.ok();
    cluster.put(&path("v1", "a"), &same).await.ok();
    cluster.patch(&path("v2", "b"), "merge", &json!({})).await.ok();
    cluster.patch(&path("v1", "c"), "json", &json!([])).await.ok();
    let objects = cluster.store.range(Range::prefix("/registry/stable.example.com/crontabs/")).await.unwrap();
    assert_eq!(objects.items.len(), 3);
    for object in objects.items {
        let object: Value = serde_json::from_slice(&object.value).unwrap();
        assert_eq!(object["apiVersion"], "stable.example.com/v2");
    }

    let status = format!("{DEFINITION}/status");
    let trim = async |versions: Value| {
        cluster.patch(&status, "merge", &json!({ "status": { "storedVersions": versions } })).await
    };
    for (versions, part) in [
        (json!([]), "status.storedVersions: Invalid value: []: must have at least one stored version"),
        (json!(["v1"]), "must have the storage version v2"),
        (json!(["v2", "v3"]), "status.storedVersions[1]: Invalid value: \"v3\": missing from spec.versions"),
    ] {
        let (code, text) = trim(versions).await.failure();
        assert!(code == 422 && text.contains(part), "{text}");
    }
    let trimmed = trim(json!(["v2"])).await.ok();
    assert_eq!(trimmed["status"]["storedVersions"], json!(["v2"]));
    cluster.put(DEFINITION, &without_first(trimmed)).await.ok();
    crate::gone(&cluster, &path("v1", "a")).await;
    assert_eq!(read(&cluster, "v2", "a").await, json!({ "name": "a" }));
    assert_eq!(cluster.get(DEFINITIONS).await.ok()["items"].as_array().unwrap().len(), 1);
}
