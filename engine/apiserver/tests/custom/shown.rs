//! What clients are shown of custom objects: columns, selected fields, scales, and what `kubectl explain` reads.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shipway_apiserver::Identity;

use crate::common::{Cluster, brief, request};
use crate::{CRONTABS, DEFINITIONS, crontab, define, definition};

fn typed(kind: &str) -> Value {
    json!({ "type": kind })
}

/// One version with these fields in `spec`, and more that is said about it.
fn version(spec: &Value, more: &Value) -> Value {
    let mut version = json!({ "name": "v1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": { "type": "object", "description": "A job at times.", "properties": {
            "spec": { "type": "object", "description": "What is wanted.", "properties": spec },
            "status": { "type": "object", "properties": { "selector": typed("string"), "replicas": typed("integer") } } } } } });
    for (key, value) in more.as_object().unwrap() {
        version[key] = value.clone();
    }
    version
}

async fn table(cluster: &Cluster, path: &str) -> Value {
    let mut request = request("GET", path, "", "");
    request.headers_mut().insert("accept", "application/json;as=Table;g=meta.k8s.io;v=v1".parse().unwrap());
    cluster.send(Identity::admin(), request).await.ok()
}

#[tokio::test]
async fn columns_show_values_of_every_type_and_from_every_path() {
    let cluster = Cluster::new().await;
    let items = json!({ "type": "array", "items": { "type": "object", "properties": { "name": typed("string"), "size": typed("integer") } } });
    let spec = json!({ "text": typed("string"), "whole": typed("integer"), "part": typed("number"), "flag": typed("boolean"),
        "at": { "type": "string", "format": "date-time" }, "items": items, "words": { "type": "array", "items": typed("string") },
        "map": { "type": "object", "additionalProperties": typed("string") } });
    let columns: [(&str, &str, &str, Value); 13] = [
        ("Text", "string", ".spec.text", json!("hello")),
        ("Whole", "integer", ".spec.whole", json!(3)),
        ("Part", "number", ".spec.part", json!(1.5)),
        ("Flag", "boolean", ".spec.flag", json!(true)),
        ("At", "date", ".spec.at", json!("<invalid>")),
        ("First", "string", ".spec.items[0].name", json!("a")),
        ("Last", "string", ".spec.items[-1:].name", json!("b")),
        ("Found", "integer", ".spec.items[?(@.name==\"b\")].size", json!(2)),
        ("All", "string", ".spec.items[*].name", json!("a")),
        ("Words", "string", ".spec.words", json!(r#"["x","y"]"#)),
        ("Key", "string", ".spec.map.with\\.dot", json!("1")),
        ("Wrong", "integer", ".spec.text", Value::Null),
        ("None", "string", ".spec.gone.deep", Value::Null),
    ];
    let shown: Vec<Value> = columns
        .iter()
        .map(|(name, kind, path, _)| json!({ "name": name, "type": kind, "jsonPath": path, "priority": i32::from(*name == "None") }))
        .chain([json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "How old." })])
        .collect();
    define(&cluster, &definition(&[version(&spec, &json!({ "additionalPrinterColumns": shown }))])).await;
    let object = json!({ "text": "hello", "whole": 3, "part": 1.5, "flag": true, "at": "2024-13-01T00:00:00Z",
        "items": [{ "name": "a", "size": 1 }, { "name": "b", "size": 2 }], "words": ["x", "y"], "map": { "with.dot": "1" } });
    let mut object = crontab("a", &object);
    object["spec"].as_object_mut().unwrap().remove("at");
    cluster.post(CRONTABS, &object).await.ok();
    let table = table(&cluster, CRONTABS).await;
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().filter_map(|column| column["name"].as_str()).collect();
    assert_eq!((names[0], names.len()), ("Name", 15));
    assert_eq!(table["columnDefinitions"][13]["priority"], 1);
    assert_eq!(table["columnDefinitions"][14]["description"], "How old.");
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    for (at, (name, _, path, expected)) in columns.iter().enumerate() {
        let expected = if *name == "At" { &Value::Null } else { expected };
        assert_eq!(&cells[at + 1], expected, "{name} {path}");
    }
    assert!(cells[14].as_str().unwrap().ends_with('s'));
}

#[tokio::test]
async fn fields_of_every_scalar_type_select() {
    let cluster = Cluster::new().await;
    let spec = json!({ "color": typed("string"), "size": typed("integer"), "on": typed("boolean"), "deep": { "type": "object", "properties": { "er": typed("string") } } });
    let fields: Vec<Value> = ["color", "size", "on", "deep.er"]
        .iter()
        .map(|field| json!({ "jsonPath": format!(".spec.{field}") }))
        .collect();
    define(&cluster, &definition(&[version(&spec, &json!({ "selectableFields": fields }))])).await;
    cluster
        .post(CRONTABS, &crontab("a", &json!({ "color": "red", "size": 1, "on": true, "deep": { "er": "x" } })))
        .await
        .ok();
    cluster.post(CRONTABS, &crontab("b", &json!({ "color": "blue", "size": 20, "on": false }))).await.ok();
    cluster.post(CRONTABS, &crontab("c", &json!({}))).await.ok();
    for (selector, expected) in [
        ("spec.color=red", "a"),
        ("spec.size=20", "b"),
        ("spec.on=true", "a"),
        ("spec.on=false", "b"),
        ("spec.deep.er=x", "a"),
        ("spec.color!=red,spec.color!=blue", "c"),
        ("spec.color=", "c"),
        ("metadata.name=b,spec.color=blue", "b"),
        ("metadata.name=b,spec.color=red", ""),
    ] {
        let list = cluster
            .get(&format!("{CRONTABS}?fieldSelector={}", selector.replace('=', "%3D").replace(',', "%2C")))
            .await
            .ok();
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
        assert_eq!(names.join(","), expected, "{selector}");
    }
    let mut watch = cluster.watch(&format!("{CRONTABS}?watch=1&fieldSelector=spec.color%3Dred")).await;
    assert_eq!(watch.brief().await, brief("ADDED", "a"));
    cluster.patch(&format!("{CRONTABS}/b"), "merge", &json!({ "spec": { "color": "red" } })).await.ok();
    assert_eq!(watch.brief().await, brief("ADDED", "b"));
    cluster.patch(&format!("{CRONTABS}/a"), "merge", &json!({ "spec": { "color": "green" } })).await.ok();
    assert_eq!(watch.brief().await, brief("DELETED", "a"));
    cluster.call("DELETE", &format!("{CRONTABS}?fieldSelector=spec.color%3Dred"), "", "").await.ok();
    assert_eq!(cluster.get(CRONTABS).await.ok()["items"].as_array().unwrap().len(), 2);
    let (code, text) = cluster.get(&format!("{CRONTABS}?fieldSelector=spec.other%3Dx")).await.failure();
    assert!(code == 400 && text.contains("spec.other"), "{text}");
}

#[tokio::test]
async fn a_scale_names_what_it_counts_by() {
    let cluster = Cluster::new().await;
    let scale = json!({ "specReplicasPath": ".spec.pool.count", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" });
    let spec = json!({ "pool": { "type": "object", "properties": { "count": { "type": "integer", "maximum": 5 } } } });
    let more = json!({ "subresources": { "scale": scale, "status": {} } });
    define(&cluster, &definition(&[version(&spec, &more)])).await;
    cluster.post(CRONTABS, &crontab("a", &json!({ "pool": { "count": 1 } }))).await.ok();
    let path = format!("{CRONTABS}/a/scale");
    assert_eq!(cluster.get(&path).await.ok()["status"], json!({ "replicas": 0, "selector": "" }));
    let status = json!({ "status": { "replicas": 1, "selector": "app=a,tier in (x,y)" } });
    cluster.patch(&format!("{CRONTABS}/a/status"), "merge", &status).await.ok();
    let mut scale = cluster.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({ "replicas": 1 }), &json!({ "replicas": 1, "selector": "app=a,tier in (x,y)" }))
    );
    scale["spec"]["replicas"] = 4.into();
    assert_eq!(cluster.put(&path, &scale).await.ok()["spec"]["replicas"], 4);
    let object = cluster.get(&format!("{CRONTABS}/a")).await.ok();
    assert_eq!((&object["spec"]["pool"]["count"], &object["metadata"]["generation"]), (&json!(4), &json!(2)));
    let (code, text) = cluster.patch(&path, "merge", &json!({ "spec": { "replicas": 6 } })).await.failure();
    assert!(code == 422 && text.contains("spec.pool.count"), "{text}");
    assert_eq!(cluster.put(&path, &scale).await.failure().0, 409);
    let discovered = cluster.get("/apis/stable.example.com/v1").await.ok();
    let found = discovered["resources"].as_array().unwrap().iter().find(|each| each["name"] == "crontabs/scale");
    assert_eq!((&found.unwrap()["kind"], &found.unwrap()["group"]), (&json!("Scale"), &json!("autoscaling")));
}

#[tokio::test]
async fn what_explain_reads_is_published_within_a_second() {
    let cluster = Cluster::new().await;
    let begun = Instant::now();
    let spec = json!({ "color": { "type": "string", "description": "What it looks like." } });
    cluster.post(DEFINITIONS, &definition(&[version(&spec, &json!({}))])).await.ok();
    let document = loop {
        let index = cluster.get("/openapi/v3").await.ok();
        if let Some(path) = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str() {
            break cluster.get(path).await.ok();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "published within a second on a machine that does nothing else"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let kind = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(kind["description"], "A job at times.");
    assert_eq!(
        kind["properties"]["spec"]["properties"]["color"],
        json!({ "type": "string", "description": "What it looks like." })
    );
    assert_eq!(kind["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    let get = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["get"];
    let answer = &get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(answer, "#/components/schemas/com.example.stable.v1.CronTab");
    assert_eq!(get["x-kubernetes-group-version-kind"]["kind"], "CronTab");
    cluster.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    let begun = Instant::now();
    while cluster.get("/openapi/v3").await.ok()["paths"].get("apis/stable.example.com/v1").is_some() {
        assert!(begun.elapsed() < Duration::from_secs(5), "gone within a second on a machine that does nothing else");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
