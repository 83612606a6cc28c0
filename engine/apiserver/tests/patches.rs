//! The four ways to patch, and who owns what afterwards.
#![allow(clippy::unwrap_used)]

mod common;

use common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, config_map, deployment};
use serde_json::{Value, json};

#[tokio::test]
async fn each_kind_of_patch_does_what_it_says() {
    let cluster = Cluster::new().await;
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let path = format!("{DEPLOYMENTS}/web");
    let merged = cluster.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "1"}}})).await.ok();
    assert_eq!((&merged["metadata"]["labels"]["a"], &merged["metadata"]["generation"]), (&json!("1"), &json!(1)));
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/replicas", "value": 3}]);
    assert_eq!(cluster.patch(&path, "json", &json_patch).await.ok()["spec"]["replicas"], 3);
    assert_eq!(cluster.patch(&path, "json", &json_patch).await.failure().0, 422);
    let sidecar = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "busybox"}]}}}});
    let containers =
        &cluster.patch(&path, "strategic-merge", &sidecar).await.ok()["spec"]["template"]["spec"]["containers"];
    let names: Vec<&Value> = containers.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&&json!("main")) && names.contains(&&json!("side")));
    assert_eq!(cluster.patch(&path, "strategic-merge", &json!({"spec": {"template": 7}})).await.failure().0, 400);
    assert_eq!(cluster.call("PATCH", &path, "application/json", "{}").await.failure().0, 415);
    assert_eq!(cluster.patch(&format!("{DEPLOYMENTS}/none"), "merge", &json!({})).await.failure().0, 404);
    let strict = format!("{path}?fieldValidation=Strict");
    assert_eq!(cluster.patch(&strict, "merge", &json!({"spec": {"replica": 1}})).await.failure().0, 400);
}

#[tokio::test]
async fn a_patch_that_asks_for_too_much_is_refused_as_too_large() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let many = vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); 10_001];
    let reply = cluster.patch(&path, "json", &json!(many)).await;
    assert_eq!((reply.failure().0, &reply.value()["reason"]), (413, &json!("RequestEntityTooLarge")));
    let front = vec![json!({"op": "add", "path": "/x/0", "value": 0}); 9_990];
    let shifts = [vec![json!({"op": "add", "path": "/x", "value": vec![0; 2000]})], front].concat();
    let (code, text) = cluster.patch(&path, "json", &json!(shifts)).await.failure();
    assert!(code == 413 && text.contains("move or shift more than"), "{text}");
    let mut copies = vec![json!({"op": "add", "path": "/x", "value": "x".repeat(1 << 20)})];
    copies.extend((0..4).map(|at| json!({"op": "copy", "from": "/x", "path": format!("/y{at}")})));
    let (code, text) = cluster.patch(&path, "json", &json!(copies)).await.failure();
    assert!(code == 422 && text.contains("copy operations"), "{text}");
    assert_eq!(cluster.get(&path).await.ok()["data"]["k"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_many_writers_are_all_kept() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let cluster = &cluster;
    let path = format!("{CONFIG_MAPS}/a");
    let path = &path;
    let writer = |i: usize| async move {
        cluster.patch(path, "merge", &json!({"data": {format!("k{i}"): "x"}})).await.ok();
    };
    futures::future::join_all((0..10).map(writer)).await;
    assert_eq!(cluster.get(path).await.ok()["data"].as_object().unwrap().len(), 11);
    let stale = json!({"metadata": {"resourceVersion": "2"}, "data": {"k": "2"}});
    assert_eq!(cluster.patch(path, "merge", &stale).await.failure().0, 409);
}

#[tokio::test]
async fn an_apply_creates_owns_and_conflicts() {
    let cluster = Cluster::new().await;
    let path = format!("{DEPLOYMENTS}/web");
    let applied = |replicas: i64| {
        let mut object = deployment("web");
        object["spec"]["replicas"] = replicas.into();
        object
    };
    let created = cluster.patch(&format!("{path}?fieldManager=one"), "apply", &applied(2)).await;
    assert_eq!(created.code, 201);
    let managed = &created.ok()["metadata"]["managedFields"];
    assert_eq!((&managed[0]["manager"], &managed[0]["operation"]), (&json!("one"), &json!("Apply")));
    let again = cluster.patch(&format!("{path}?fieldManager=one"), "apply", &applied(2)).await;
    assert_eq!((again.code.as_u16(), &again.ok()), (200, &created.ok()), "nothing changed");

    let reply = cluster.patch(&format!("{path}?fieldManager=two"), "apply", &applied(3)).await;
    let (code, message) = reply.failure();
    assert_eq!(code, 409);
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let cause = &reply.value()["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldManagerConflict"), &json!(".spec.replicas")));
    let forced = cluster.patch(&format!("{path}?fieldManager=two&force=true"), "apply", &applied(3)).await.ok();
    assert_eq!((&forced["spec"]["replicas"], &forced["metadata"]["generation"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn an_apply_removes_what_it_no_longer_names() {
    let cluster = Cluster::new().await;
    let path = format!("{CONFIG_MAPS}/a?fieldManager=one");
    let object =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    cluster.patch(&path, "apply", &object(json!({"x": "1", "y": "2"}))).await.ok();
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", &json!({"data": {"z": "3"}})).await.ok();
    let applied = cluster.patch(&path, "apply", &object(json!({"x": "1"}))).await.ok();
    assert_eq!(applied["data"], json!({"x": "1", "z": "3"}));
    let managers: Vec<&Value> =
        applied["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| &entry["manager"]).collect();
    assert_eq!(managers.len(), 2);
    assert!(managers.contains(&&json!("tester")), "the manager of an update is the program: {managers:?}");
}

#[tokio::test]
async fn an_apply_that_is_not_well_formed_is_refused() {
    let cluster = Cluster::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let object = config_map("a", &json!({}), "1");
    assert_eq!(cluster.patch(&path, "apply", &object).await.failure().0, 400, "no field manager");
    let named = format!("{path}?fieldManager=one");
    let mut other = object.clone();
    other["metadata"]["name"] = "b".into();
    assert_eq!(cluster.patch(&named, "apply", &other).await.failure().0, 400);
    let mut managed = object.clone();
    managed["metadata"]["managedFields"] = json!([{"manager": "one"}]);
    assert_eq!(cluster.patch(&named, "apply", &managed).await.failure().0, 400);
    let mut versioned = object;
    versioned["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(cluster.patch(&named, "apply", &versioned).await.failure().0, 409);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n";
    assert_eq!(cluster.call("PATCH", &named, "application/apply-patch+yaml", yaml).await.ok()["data"]["k"], "v");
}
