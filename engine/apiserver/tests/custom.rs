//! Custom resources through the public door: defined, used, changed, converted and removed, over a real log.
#![allow(clippy::unwrap_used)]

mod common;
mod hook;

#[path = "custom/apply.rs"]
mod apply;
#[path = "custom/removal.rs"]
mod removal;
#[path = "custom/shown.rs"]
mod shown;
#[path = "custom/versions.rs"]
mod versions;

use std::time::{Duration, Instant};

use common::{Cluster, brief};
use hook::Hook;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn schema() -> Value {
    json!({ "type": "object", "required": ["spec"], "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "cronSpec": { "type": "string", "pattern": "^\\S+( \\S+){4}$" },
                "image": { "type": "string", "default": "busybox" },
                "replicas": { "type": "integer", "minimum": 0, "maximum": 10, "x-kubernetes-validations": [
                    { "rule": "self >= oldSelf", "message": "replicas cannot go down" }] },
                "color": { "type": "string", "enum": ["red", "green"] },
                "ports": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "port": { "type": "integer" } } } },
                "open": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
            "x-kubernetes-validations": [
                { "rule": "!has(self.replicas) || self.replicas != 7", "messageExpression": "'not ' + string(self.replicas)", "fieldPath": ".replicas" }],
        },
        "status": { "type": "object", "properties": {
            "replicas": { "type": "integer" }, "selector": { "type": "string" },
            "conditions": { "type": "array", "items": { "type": "object", "properties": { "type": { "type": "string" }, "status": { "type": "string" } } } },
        } },
    } })
}

fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": { "openAPIV3Schema": schema() },
        "subresources": { "status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" } },
        "selectableFields": [{ "jsonPath": ".spec.color" }],
        "additionalPrinterColumns": [
            { "name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec" },
            { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }],
    })
}

fn definition(versions: &[Value]) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "versions": versions,
            "names": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"] },
        },
    })
}

fn crontab(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "spec": spec })
}

fn condition<'a>(definition: &'a Value, kind: &str) -> &'a str {
    let conditions = definition["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// Creates a definition and waits, as `kubectl wait` does, until it says that it is established.
async fn define(cluster: &Cluster, definition: &Value) -> Value {
    let created = cluster.post(DEFINITIONS, definition).await.ok();
    let name = created["metadata"]["name"].as_str().unwrap();
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = cluster
        .watch(&format!("{DEFINITIONS}?watch=1&resourceVersion={revision}&fieldSelector=metadata.name={name}"))
        .await;
    loop {
        let event = watch.next().await.expect("the definition is established");
        if condition(&event["object"], "Established") == "True" {
            return event["object"].clone();
        }
    }
}

/// Waits until a path answers 404.
async fn gone(cluster: &Cluster, path: &str) {
    let begun = Instant::now();
    while cluster.get(path).await.code != 404 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{path} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_definition_is_established_and_its_objects_are_served_at_once() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.get(CRONTABS).await.code, 404);
    let defined = define(&cluster, &definition(&[version("v1", true)])).await;
    assert_eq!(condition(&defined, "NamesAccepted"), "True");
    assert_eq!(defined["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    let created =
        cluster.post(CRONTABS, &crontab("a", &json!({ "cronSpec": "* * * * *", "junk": 1, "open": { "x": 1 } }))).await;
    assert_eq!(created.code, 201);
    assert!(created.headers.get_all("warning").iter().any(|text| text.to_str().unwrap().contains("spec.junk")));
    let mut object = created.ok();
    assert_eq!(object["spec"], json!({ "cronSpec": "* * * * *", "open": { "x": 1 }, "image": "busybox" }));
    assert_eq!(object["metadata"]["generation"], 1);
    object["spec"]["replicas"] = 3.into();
    let path = format!("{CRONTABS}/a");
    let replaced = cluster.put(&path, &object).await.ok();
    assert_eq!(replaced["metadata"]["generation"], 2);
    let strict =
        cluster.post(&format!("{CRONTABS}?fieldValidation=Strict"), &crontab("b", &json!({ "junk": 1 }))).await;
    assert_eq!(strict.code, 400);
    let list = cluster.get(CRONTABS).await.ok();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("CronTabList"), 1));
    let mut watch = cluster.watch(&format!("{CRONTABS}?watch=1")).await;
    assert_eq!(watch.brief().await, brief("ADDED", "a"));
    cluster.delete(&path).await.ok();
    assert_eq!(watch.brief().await, brief("DELETED", "a"));
}

#[tokio::test]
async fn wrong_objects_are_refused_in_the_words_of_the_schema_and_its_rules() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    for (spec, message) in [
        (
            json!({ "replicas": "x" }),
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
        ),
        (
            json!({ "replicas": 11 }),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({ "cronSpec": "x" }),
            r#"spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^\S+( \S+){4}$'"#,
        ),
        (json!({ "color": "blue" }), r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#),
        (json!({ "ports": [{ "name": "a" }, { "name": "a" }] }), r#"spec.ports[1]: Duplicate value: {"name":"a"}"#),
        (json!({ "replicas": 7 }), r#"spec.replicas: Invalid value: "object": not 7"#),
    ] {
        let (code, text) = cluster.post(CRONTABS, &crontab("a", &spec)).await.failure();
        assert_eq!((code, text), (422, format!("CronTab.stable.example.com \"a\" is invalid: {message}")));
    }
    let (code, text) = cluster.post(CRONTABS, &json!({ "metadata": { "name": "a" } })).await.failure();
    assert_eq!((code, text.as_str()), (422, r#"CronTab.stable.example.com "a" is invalid: spec: Required value"#));
    let (code, _) =
        cluster.post(CRONTABS, &json!({ "metadata": { "name": "a", "labels": 1 }, "spec": {} })).await.failure();
    assert_eq!(code, 400);
    cluster.post(CRONTABS, &crontab("a", &json!({ "replicas": 3 }))).await.ok();
    let path = format!("{CRONTABS}/a");
    cluster.patch(&path, "merge", &json!({ "spec": { "replicas": 4 } })).await.ok();
    let (code, text) = cluster.patch(&path, "merge", &json!({ "spec": { "replicas": 2 } })).await.failure();
    assert!(
        code == 422 && text.ends_with("spec.replicas: Invalid value: \"integer\": replicas cannot go down"),
        "{text}"
    );
    assert_eq!(cluster.patch(&path, "strategic-merge", &json!({ "spec": {} })).await.code, 415);
}

#[tokio::test]
async fn a_bad_definition_is_refused_with_the_field() {
    let cluster = Cluster::new().await;
    let mut bad = definition(&[version("v1", true)]);
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{ "rule": "self.nothing >" }]);
    let (code, text) = cluster.post(DEFINITIONS, &bad).await.failure();
    assert_eq!(code, 422);
    assert!(
        text.contains(
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value"
        ),
        "{text}"
    );
    let mut bad = definition(&[version("v1", true)]);
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({ "properties": {} });
    let (_, text) = cluster.post(DEFINITIONS, &bad).await.failure();
    assert!(
        text.contains("properties[spec].type: Required value: must not be empty for specified object fields"),
        "{text}"
    );
}

#[tokio::test]
async fn status_scale_columns_and_fields_work_as_the_definition_says() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let mut object = crontab("a", &json!({ "cronSpec": "* * * * *", "replicas": 1, "color": "red" }));
    object["status"] = json!({ "replicas": 9 });
    let created = cluster.post(CRONTABS, &object).await.ok();
    assert_eq!(created.get("status"), None);
    cluster.post(CRONTABS, &crontab("b", &json!({ "color": "green" }))).await.ok();
    let path = format!("{CRONTABS}/a");
    let status = json!({ "status": { "replicas": 1, "selector": "app=a", "conditions": [{ "type": "Ready", "status": "True" }] }, "spec": { "replicas": 5 } });
    let patched = cluster.patch(&format!("{path}/status"), "merge", &status).await.ok();
    assert_eq!(
        (&patched["status"]["replicas"], &patched["spec"]["replicas"], &patched["metadata"]["generation"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let (code, text) =
        cluster.patch(&format!("{path}/status"), "merge", &json!({ "status": { "replicas": "x" } })).await.failure();
    assert!(code == 422 && text.contains("status.replicas"), "{text}");
    let scale = cluster.get(&format!("{path}/scale")).await.ok();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(1), &json!({ "replicas": 1, "selector": "app=a" }))
    );
    cluster.patch(&format!("{path}/scale"), "merge", &json!({ "spec": { "replicas": 4 } })).await.ok();
    assert_eq!(cluster.get(&path).await.ok()["spec"]["replicas"], 4);
    let (_, text) = cluster.get(&format!("{CRONTABS}/b/scale")).await.failure();
    assert!(text.contains(r#"the spec replicas field ".spec.replicas" does not exist"#), "{text}");
    let red = cluster.get(&format!("{CRONTABS}?fieldSelector=spec.color=red")).await.ok();
    assert_eq!(red["items"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.get(&format!("{CRONTABS}?fieldSelector=spec.image=red")).await.code, 400);
    let mut request = common::request("GET", &path, "", "");
    request.headers_mut().insert("accept", "application/json;as=Table;g=meta.k8s.io;v=v1".parse().unwrap());
    let table = cluster.send(shipway_apiserver::Identity::admin(), request).await.ok();
    assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 4);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("a"), json!("* * * * *"), json!("True")]);
    assert!(cells[3].as_str().unwrap().ends_with('s'));
}

#[tokio::test]
async fn applies_are_owned_field_by_field() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let path = format!("{CRONTABS}/a");
    let apply = async |manager: &str, spec: Value| {
        cluster.patch(&format!("{path}?fieldManager={manager}"), "apply", &crontab("a", &spec)).await
    };
    apply("one", json!({ "color": "red", "ports": [{ "name": "http", "port": 80 }] })).await.ok();
    let both = apply("two", json!({ "ports": [{ "name": "https", "port": 443 }] })).await.ok();
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    let (code, text) = apply("two", json!({ "color": "green" })).await.failure();
    assert!(code == 409 && text.contains(".spec.color"), "{text}");
    let left = apply("two", json!({})).await.ok();
    assert_eq!(left["spec"]["ports"], json!([{ "name": "http", "port": 80 }]));
    let (_, text) = cluster
        .patch(&format!("{path}?fieldManager=x"), "apply", &crontab("a", &json!({ "replicas": 99 })))
        .await
        .failure();
    assert!(text.contains("less than or equal to 10"), "{text}");
}

#[tokio::test]
async fn what_was_valid_can_be_changed_elsewhere_after_the_schema_grew_stricter() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    cluster.post(CRONTABS, &crontab("a", &json!({ "image": "old", "replicas": 1 }))).await.ok();
    let mut stricter = cluster.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    let spec = &mut stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["image"] = json!({ "type": "string", "default": "busybox", "minLength": 5 });
    spec["properties"]["added"] = json!({ "type": "string", "default": "later" });
    cluster.put(&format!("{DEFINITIONS}/crontabs.stable.example.com"), &stricter).await.ok();
    let path = format!("{CRONTABS}/a");
    let begun = Instant::now();
    while cluster.get(&path).await.ok()["spec"].get("added").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(5), "defaults apply to what is read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cluster.get(CRONTABS).await.ok()["items"][0]["spec"]["added"], "later");
    cluster.patch(&path, "merge", &json!({ "spec": { "replicas": 2 } })).await.ok();
    let (_, text) = cluster.patch(&path, "merge", &json!({ "spec": { "image": "new" } })).await.failure();
    assert!(text.contains("spec.image in body should be at least 5 chars long"), "{text}");
}

#[tokio::test]
async fn two_versions_show_the_same_objects() {
    let cluster = Cluster::new().await;
    let mut old = version("v1beta1", false);
    old["deprecated"] = true.into();
    define(&cluster, &definition(&[version("v1", true), old])).await;
    let beta = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs";
    let mut object = crontab("a", &json!({ "color": "red" }));
    object["apiVersion"] = "stable.example.com/v1beta1".into();
    let created = cluster.post(beta, &object).await;
    let warning = created.headers["warning"].to_str().unwrap();
    let instead = "stable.example.com/v1beta1 CronTab is deprecated; use stable.example.com/v1 CronTab";
    assert!(warning.contains(instead), "{warning}");
    assert_eq!(created.ok()["apiVersion"], "stable.example.com/v1beta1");
    assert_eq!(cluster.get(&format!("{CRONTABS}/a")).await.ok()["apiVersion"], "stable.example.com/v1");
    let list = cluster.get(beta).await.ok();
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1beta1");
    let mut watch = cluster.watch(&format!("{beta}?watch=1&fieldSelector=spec.color=red")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["apiVersion"], "stable.example.com/v1beta1");
    let changed = cluster.patch(&format!("{beta}/a"), "merge", &json!({ "spec": { "replicas": 2 } })).await.ok();
    assert_eq!(
        (&changed["apiVersion"], &changed["metadata"]["generation"]),
        (&json!("stable.example.com/v1beta1"), &json!(2))
    );
    let groups = cluster.get("/apis/stable.example.com").await.ok();
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    // Storing in the other version leaves what is stored until it is written again.
    let mut turned = cluster.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    turned["spec"]["versions"][0]["storage"] = false.into();
    turned["spec"]["versions"][1]["storage"] = true.into();
    let turned = cluster.put(&format!("{DEFINITIONS}/crontabs.stable.example.com"), &turned).await.ok();
    assert_eq!(turned["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    let before = cluster.get(&format!("{CRONTABS}/a")).await.ok();
    let begun = Instant::now();
    loop {
        let same = cluster.put(&format!("{CRONTABS}/a"), &cluster.get(&format!("{CRONTABS}/a")).await.ok()).await.ok();
        if same["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "rewriting migrates");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stored =
        cluster.store.range(shipway_store::Range::prefix("/registry/stable.example.com/crontabs/")).await.unwrap();
    let stored: Value = serde_json::from_slice(&stored.items[0].value).unwrap();
    assert_eq!(stored["apiVersion"], "stable.example.com/v1beta1");
    cluster.delete(&format!("{beta}/a")).await.ok();
    gone(&cluster, &format!("{CRONTABS}/a")).await;
}

#[tokio::test]
async fn a_webhook_converts_and_is_not_trusted() {
    let cluster = Cluster::new().await;
    let hook = Hook::start().await;
    let mut both = definition(&[version("v1", true), version("v2", false)]);
    both["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": { "url": hook.url(), "caBundle": hook.bundle } } });
    define(&cluster, &both).await;
    let second = "/apis/stable.example.com/v2/namespaces/default/crontabs";
    for name in ["a", "b", "c"] {
        let mut object = crontab(name, &json!({ "image": "first" }));
        object["apiVersion"] = "stable.example.com/v2".into();
        let created = cluster.post(second, &object).await.ok();
        assert_eq!(
            (&created["apiVersion"], &created["spec"]["image"]),
            (&json!("stable.example.com/v2"), &json!("first"))
        );
    }
    // The hook turns texts around on the way between the versions.
    assert_eq!(cluster.get(&format!("{CRONTABS}/a")).await.ok()["spec"]["image"], "tsrif");
    assert_eq!(cluster.get(&format!("{second}/a")).await.ok()["spec"]["image"], "first");
    let calls = hook.calls();
    let list = cluster.get(second).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert!(list["items"].as_array().unwrap().iter().all(|item| item["apiVersion"] == "stable.example.com/v2"));
    assert_eq!(hook.calls(), calls + 1);
    let mut watch = cluster.watch(&format!("{second}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["spec"]["image"], "first");
    let patched = cluster
        .patch(&format!("{second}/a"), "merge", &json!({ "spec": { "image": "second", "replicas": 1 } }))
        .await
        .ok();
    assert_eq!(patched["spec"]["image"], "second");
    assert_eq!(cluster.get(&format!("{CRONTABS}/a")).await.ok()["spec"]["image"], "dnoces");
    cluster.patch(&format!("{second}/a/scale"), "merge", &json!({ "spec": { "replicas": 2 } })).await.ok();
    let status =
        cluster.patch(&format!("{second}/a/status"), "merge", &json!({ "status": { "replicas": 2 } })).await.ok();
    assert_eq!((&status["status"]["replicas"], &status["spec"]["image"]), (&json!(2), &json!("second")));
    let applied = json!({ "apiVersion": "stable.example.com/v2", "kind": "CronTab", "spec": { "color": "red" } });
    let applied = cluster.patch(&format!("{second}/a?fieldManager=m"), "apply", &applied).await.ok();
    assert_eq!(applied["spec"]["color"], "red");
    for (trick, part) in [
        ("name", "metadata.name must not be changed"),
        ("fewer", "returned 0 objects, expected 1"),
        ("uid", "expected response.uid="),
        ("version", "apiVersion is"),
        ("refuse", "not today"),
        ("crash", "the server answered 500"),
    ] {
        hook.play(trick);
        let (code, text) = cluster.get(&format!("{second}/a")).await.failure();
        assert!(
            code == 500
                && text.contains("conversion webhook for stable.example.com/v1, Kind=CronTab failed: ")
                && text.contains(part),
            "{trick}: {text}"
        );
    }
    hook.play("");
    assert_eq!(cluster.delete(&format!("{second}/a")).await.code, 200);
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it_and_can_come_back_another() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    cluster.post(CRONTABS, &crontab("a", &json!({}))).await.ok();
    let mut held = crontab("held", &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(CRONTABS, &held).await.ok();
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let going = cluster.delete(&path).await.ok();
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    gone(&cluster, &format!("{CRONTABS}/a")).await;
    assert_eq!(condition(&cluster.get(&path).await.ok(), "Terminating"), "True");
    assert_eq!(cluster.post(CRONTABS, &crontab("b", &json!({}))).await.code, 405);
    cluster.patch(&format!("{CRONTABS}/held"), "merge", &json!({ "metadata": { "finalizers": null } })).await.ok();
    gone(&cluster, &path).await;
    gone(&cluster, CRONTABS).await;
    let mut other = definition(&[version("v1", true)]);
    other["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({ "type": "object", "properties": { "spec": { "type": "string" } } });
    other["spec"]["versions"][0]
        .as_object_mut()
        .unwrap()
        .retain(|key, _| matches!(key.as_str(), "name" | "served" | "storage" | "schema"));
    define(&cluster, &other).await;
    assert!(cluster.get(CRONTABS).await.ok()["items"].as_array().unwrap().is_empty());
    let mut text = crontab("a", &json!({}));
    text["spec"] = "now a text".into();
    assert_eq!(cluster.post(CRONTABS, &text).await.ok()["spec"], "now a text");
}

#[tokio::test]
async fn a_restart_keeps_everything_and_serves_it_from_the_first_request_on() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let object = cluster.post(CRONTABS, &crontab("a", &json!({ "color": "red" }))).await.ok();
    let Cluster { server, store, dir } = cluster;
    server.close().await;
    drop((server, store));
    let cluster = Cluster::at(dir).await;
    assert_eq!(cluster.get(&format!("{CRONTABS}/a")).await.ok(), object);
    cluster.post(CRONTABS, &crontab("b", &json!({}))).await.ok();
}

#[tokio::test]
async fn names_that_are_taken_keep_a_definition_from_being_served() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let mut second = definition(&[version("v1", true)]);
    second["metadata"]["name"] = "others.stable.example.com".into();
    second["spec"]["names"] = json!({ "plural": "others", "kind": "CronTab", "shortNames": ["ct"] });
    cluster.post(DEFINITIONS, &second).await.ok();
    let path = format!("{DEFINITIONS}/others.stable.example.com");
    let begun = Instant::now();
    let refused = loop {
        let now = cluster.get(&path).await.ok();
        if condition(&now, "NamesAccepted") == "False" {
            break now;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{now}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(condition(&refused, "Established"), "False");
    assert_eq!(cluster.get("/apis/stable.example.com/v1/namespaces/default/others").await.code, 404);
    // The names are free again once their first owner is gone.
    cluster.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    let begun = Instant::now();
    while condition(&cluster.get(&path).await.ok(), "Established") != "True" {
        assert!(begun.elapsed() < Duration::from_secs(5), "the names are free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn discovery_and_schemas_know_the_kind_at_once() {
    let cluster = Cluster::new().await;
    let hash =
        |index: &Value| index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().map(str::to_owned);
    assert_eq!(hash(&cluster.get("/openapi/v3").await.ok()), None);
    let defined = define(&cluster, &definition(&[version("v1", true)])).await;
    let plain = cluster.get("/apis/stable.example.com/v1").await.ok();
    let names: Vec<&str> =
        plain["resources"].as_array().unwrap().iter().filter_map(|each| each["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    assert_eq!(plain["resources"][0]["shortNames"], json!(["ct"]));
    let mut request = common::request("GET", "/apis", "", "");
    request
        .headers_mut()
        .insert("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList".parse().unwrap());
    let aggregated = cluster.send(shipway_apiserver::Identity::admin(), request).await.ok();
    assert!(
        aggregated["items"].as_array().unwrap().iter().any(|group| group["metadata"]["name"] == "stable.example.com")
    );
    let before = hash(&cluster.get("/openapi/v3").await.ok()).expect("a document");
    let document = cluster.get(&before).await.ok();
    let schemas = &document["components"]["schemas"];
    let kind = &schemas["com.example.stable.v1.CronTab"];
    assert_eq!(
        kind["x-kubernetes-group-version-kind"],
        json!([{ "group": "stable.example.com", "version": "v1", "kind": "CronTab" }])
    );
    assert_eq!(kind["properties"]["spec"]["properties"]["color"]["enum"], json!(["red", "green"]));
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name}");
    }
    let one = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"];
    assert!(one["patch"]["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
    let mut changed = defined;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["more"] =
        json!({ "type": "string" });
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    cluster.put(&format!("{DEFINITIONS}/crontabs.stable.example.com"), &changed).await.ok();
    let begun = Instant::now();
    while hash(&cluster.get("/openapi/v3").await.ok()) == Some(before.clone()) {
        assert!(begun.elapsed() < Duration::from_secs(5), "the hash follows the schema");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A definition of a cluster-scoped kind with a schema as large as operators have them.
fn large(n: usize) -> Value {
    let fields: serde_json::Map<String, Value> = (0..300)
        .map(|field| {
            let inner = json!({ "type": "object", "description": "Some words on what it is for, as operators write them.", "properties": {
                "name": { "type": "string", "pattern": "^[a-z]+$", "maxLength": 63 }, "count": { "type": "integer", "minimum": 0, "default": field },
                "quantity": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] } } });
            (format!("field{field}"), inner)
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("things{n}.big.example.com") },
        "spec": {
            "group": "big.example.com", "scope": "Cluster",
            "names": { "plural": format!("things{n}"), "kind": format!("Thing{n}") },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": { "type": "object", "properties": fields } } } } }],
        },
    })
}

#[tokio::test]
async fn many_large_definitions_are_served_soon() {
    const COUNT: usize = 60;
    let cluster = Cluster::new().await;
    let begun = Instant::now();
    for n in 0..COUNT {
        cluster.post(DEFINITIONS, &large(n)).await.ok();
    }
    for n in 0..COUNT {
        let path = format!("{DEFINITIONS}/things{n}.big.example.com");
        while condition(&cluster.get(&path).await.ok(), "Established") != "True" {
            assert!(begun.elapsed() < Duration::from_mins(1), "{n} definitions were served in a minute");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let resources = cluster.get("/apis/big.example.com/v1").await.ok();
    assert_eq!(resources["resources"].as_array().unwrap().len(), COUNT);
    let last = format!("/apis/big.example.com/v1/things{}", COUNT - 1);
    let thing = json!({ "metadata": { "name": "a" }, "spec": { "field7": { "name": "x" } } });
    let thing = cluster.post(&last, &thing).await.ok();
    assert_eq!(thing["spec"]["field7"], json!({ "name": "x", "count": 7 }));
    assert_eq!(thing["metadata"].get("namespace"), None);
    assert_eq!(
        cluster.get(&format!("/apis/big.example.com/v1/namespaces/default/things{}", COUNT - 1)).await.code,
        404
    );
}

#[tokio::test]
async fn a_client_without_types_works_with_custom_objects() {
    use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let client = cluster.client();
    let found = kube::discovery::Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let kind = kube::core::GroupVersionKind::gvk("stable.example.com", "v1", "CronTab");
    let (resource, _) = found.resolve_gvk(&kind).expect("discovery lists the kind");
    let api: Api<DynamicObject> = Api::default_namespaced_with(client, &resource);
    let new = DynamicObject::new("a", &resource).data(json!({ "spec": { "color": "red" } }));
    api.create(&PostParams::default(), &new).await.unwrap();
    let applied = json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "spec": { "replicas": 2 } });
    let applied = api.patch("a", &PatchParams::apply("tester"), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(applied.data["spec"]["replicas"], 2);
    let metadata = api.list_metadata(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 1);
    assert_eq!(api.get_scale("a").await.unwrap().spec.unwrap().replicas, Some(2));
}
