//! Creating, changing and deleting through the public door, over a real log.
#![allow(clippy::unwrap_used)]

mod common;

use common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, PODS, SERVICES, config_map, deployment, pod};
use serde_json::{Value, json};

#[tokio::test]
async fn an_object_is_created_read_replaced_and_deleted() {
    let cluster = Cluster::new().await;
    let created = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await;
    assert_eq!(created.code, 201);
    let mut object = created.ok();
    assert_eq!(object["metadata"]["namespace"], "default");
    assert!(object["metadata"]["uid"].is_string() && object["metadata"]["creationTimestamp"].is_string());
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(cluster.get(&path).await.ok(), object);
    object["data"]["k"] = "2".into();
    let replaced = cluster.put(&path, &object).await.ok();
    assert_ne!(replaced["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert_eq!(replaced["metadata"]["uid"], object["metadata"]["uid"]);
    let status = cluster.delete(&path).await.ok();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"]["name"], "a");
    let missing = cluster.get(&path).await.failure();
    assert_eq!(missing, (404, r#"configmaps "a" not found"#.to_owned()));
}

#[tokio::test]
async fn a_taken_name_and_a_stale_revision_are_conflicts() {
    let cluster = Cluster::new().await;
    let object = config_map("a", &json!({}), "1");
    let first = cluster.post(CONFIG_MAPS, &object).await.ok();
    assert_eq!(cluster.post(CONFIG_MAPS, &object).await.failure(), (409, r#"configmaps "a" already exists"#.into()));
    let path = format!("{CONFIG_MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    cluster.put(&path, &second).await.ok();
    second["data"]["k"] = "3".into();
    let (code, message) = cluster.put(&path, &second).await.failure();
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    let mut unconditional = second;
    unconditional["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(cluster.put(&path, &unconditional).await.ok()["data"]["k"], "3");
    let mut other = first;
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    other["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(cluster.put(&path, &other).await.code, 409);
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_revision() {
    let cluster = Cluster::new().await;
    let object = cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let path = format!("{DEPLOYMENTS}/web");
    assert_eq!(cluster.put(&path, &object).await.ok(), object);
    let patched = cluster.patch(&path, "merge", &json!({"spec": {"replicas": 2}})).await.ok();
    assert_eq!(patched["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn names_are_generated_and_kept_apart() {
    let cluster = Cluster::new().await;
    let object = json!({"metadata": {"generateName": "job-"}});
    let mut names = std::collections::HashSet::new();
    for _ in 0..20 {
        let name = cluster.post(CONFIG_MAPS, &object).await.ok()["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("job-") && name.len() == 9);
        assert!(names.insert(name));
    }
    let (code, message) = cluster.post(CONFIG_MAPS, &json!({"metadata": {}})).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("name or generateName is required"), "{message}");
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_warned_of_or_ignored() {
    let cluster = Cluster::new().await;
    let body = r#"{"metadata":{"name":"a"},"spec":{"replicas":1,"replicas":2,"replica":3,
        "selector":{"matchLabels":{"app":"a"}},
        "template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"name":"m","image":"i","imag":"x"}]}}}}"#;
    let post =
        async |query: &str| cluster.call("POST", &format!("{DEPLOYMENTS}{query}"), "application/json", body).await;
    let (code, message) = post("?fieldValidation=Strict").await.failure();
    assert_eq!(code, 400);
    for part in [
        r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: "#,
        r#"unknown field "spec.replica""#,
        r#"unknown field "spec.template.spec.containers[0].imag""#,
        r#"duplicate field "spec.replicas""#,
    ] {
        assert!(message.contains(part), "{message}");
    }
    let warned = post("?dryRun=All").await;
    assert_eq!(warned.headers.get_all("warning").iter().count(), 3);
    assert_eq!(warned.ok()["spec"]["replicas"], 2);
    let silent = post("?fieldValidation=Ignore").await;
    assert!(silent.headers.get("warning").is_none());
    assert_eq!(silent.ok()["spec"].get("replica"), None);
    assert_eq!(post("?fieldValidation=Often").await.code, 400);
}

#[tokio::test]
async fn wrong_types_and_broken_rules_name_the_field() {
    let cluster = Cluster::new().await;
    let mut wrong = deployment("web");
    wrong["spec"]["replicas"] = "three".into();
    let (code, message) = cluster.post(DEPLOYMENTS, &wrong).await.failure();
    assert!(code == 400 && message.contains("spec.replicas"), "{message}");
    wrong["spec"]["replicas"] = (-1).into();
    let reply = cluster.post(DEPLOYMENTS, &wrong).await;
    let (code, message) = reply.failure();
    assert_eq!(code, 422);
    assert!(message.starts_with(r#"Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1"#), "{message}");
    assert_eq!(reply.value()["details"]["causes"][0]["field"], "spec.replicas");
    let reply = cluster.call("POST", CONFIG_MAPS, "application/json", "{").await;
    assert_eq!(reply.failure().0, 400);
    assert_eq!(cluster.call("POST", CONFIG_MAPS, "text/html", "<p>").await.failure().0, 415);
    let other_kind = cluster.post(CONFIG_MAPS, &pod("a", &json!({}))).await.failure();
    assert_eq!(other_kind.0, 400);
}

#[tokio::test]
async fn status_and_spec_are_written_through_their_own_doors() {
    let cluster = Cluster::new().await;
    let mut object = cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    assert_eq!(object["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/web");
    object["status"] = json!({"replicas": 9, "observedGeneration": 1});
    object["spec"]["replicas"] = 5.into();
    let replaced = cluster.put(&path, &object).await.ok();
    assert_eq!((&replaced["spec"]["replicas"], &replaced["metadata"]["generation"]), (&json!(5), &json!(2)));
    assert!(replaced["status"].get("replicas").is_none());
    object["metadata"]["resourceVersion"] = replaced["metadata"]["resourceVersion"].clone();
    object["spec"]["replicas"] = 7.into();
    let status = cluster.put(&format!("{path}/status"), &object).await.ok();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(5), &json!(9)));
    assert_eq!(status["metadata"]["generation"], 2);
    assert_eq!(cluster.get(&format!("{path}/status")).await.ok(), status);
    let patched = cluster.patch(&format!("{path}/status"), "merge", &json!({"status": {"replicas": 3}})).await.ok();
    assert_eq!(patched["status"]["replicas"], 3);
}

#[tokio::test]
async fn scale_is_read_and_written() {
    let cluster = Cluster::new().await;
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let path = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = cluster.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=web")));
    scale["spec"]["replicas"] = 4.into();
    assert_eq!(cluster.put(&path, &scale).await.ok()["spec"]["replicas"], 4);
    assert_eq!(cluster.put(&path, &scale).await.code, 409, "the scale is stale now");
    for kind in ["merge", "strategic-merge"] {
        let count = if kind == "merge" { 5 } else { 6 };
        let reply = cluster.patch(&path, kind, &json!({"spec": {"replicas": count}})).await.ok();
        assert_eq!(reply["spec"]["replicas"], count);
    }
    assert_eq!(cluster.get(&format!("{DEPLOYMENTS}/web")).await.ok()["spec"]["replicas"], 6);
    assert_eq!(cluster.patch(&path, "merge", &json!({"spec": {"replicas": -1}})).await.failure().0, 422);
}

#[tokio::test]
async fn a_dry_run_goes_through_all_motions_but_the_last() {
    let cluster = Cluster::new().await;
    let created = cluster.post(&format!("{SERVICES}?dryRun=All"), &service("web", &json!({}))).await.ok();
    assert!(created["spec"]["clusterIP"].is_string() && created["metadata"]["uid"].is_string());
    assert_eq!(cluster.get(&format!("{SERVICES}/web")).await.code, 404);
    let live = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let patched = cluster.patch(&format!("{path}?dryRun=All"), "merge", &json!({"data": {"k": "2"}})).await.ok();
    assert_eq!(patched["data"]["k"], "2");
    cluster.delete(&format!("{path}?dryRun=All")).await.ok();
    assert_eq!(cluster.get(&path).await.ok(), live);
    assert_eq!(cluster.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("b", &json!({}), "1")).await.code, 400);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let cluster = Cluster::new().await;
    let mut object = config_map("a", &json!({}), "1");
    object["metadata"]["finalizers"] = json!(["example.com/first", "example.com/second"]);
    cluster.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let terminating = cluster.delete(&path).await.ok();
    assert_eq!(terminating["kind"], "ConfigMap");
    assert!(terminating["metadata"]["deletionTimestamp"].is_string());
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let (code, message) = cluster.patch(&path, "merge", &finalizers(json!(["example.com/third"]))).await.failure();
    assert!(code == 422 && message.contains("no new finalizers can be added"), "{message}");
    cluster.patch(&path, "merge", &finalizers(json!(["example.com/second"]))).await.ok();
    assert_eq!(cluster.get(&path).await.code, 200);
    cluster.patch(&path, "merge", &finalizers(Value::Null)).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_bound_pod_goes_gracefully_and_an_unbound_one_at_once() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("unbound", &json!({}))).await.ok();
    assert_eq!(cluster.delete(&format!("{PODS}/unbound")).await.ok()["kind"], "Pod");
    assert_eq!(cluster.get(&format!("{PODS}/unbound")).await.code, 404);

    cluster.post(PODS, &pod("bound", &json!({}))).await.ok();
    let path = format!("{PODS}/bound");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "alpha"}});
    assert_eq!(cluster.post(&format!("{path}/binding"), &binding).await.code, 201);
    assert_eq!(cluster.post(&format!("{path}/binding"), &binding).await.failure().0, 409);
    let live = cluster.get(&path).await.ok();
    assert_eq!((&live["spec"]["nodeName"], &live["spec"]["serviceAccountName"]), (&json!("alpha"), &json!("default")));
    assert_eq!(live["status"]["conditions"][0]["type"], "PodScheduled");
    let terminating = cluster.delete(&path).await.ok();
    assert_eq!(terminating["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(cluster.get(&path).await.code, 200);
    cluster.delete(&format!("{path}?gracePeriodSeconds=0")).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn an_eviction_is_a_delete() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    assert_eq!(cluster.post(&format!("{PODS}/a/eviction"), &eviction).await.code, 201);
    assert_eq!(cluster.get(&format!("{PODS}/a")).await.code, 404);
}

#[tokio::test]
async fn preconditions_of_a_delete_must_hold() {
    let cluster = Cluster::new().await;
    let object = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let delete = async |body: Value| cluster.call("DELETE", &path, "application/json", body.to_string()).await.code;
    assert_eq!(delete(json!({"preconditions": {"uid": "other"}})).await, 409);
    assert_eq!(delete(json!({"preconditions": {"resourceVersion": "1"}})).await, 409);
    assert_eq!(delete(json!({"preconditions": {"uid": object["metadata"]["uid"]}})).await, 200);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::new().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster.post(CONFIG_MAPS, &config_map(name, &json!({"tier": tier}), "1")).await.ok();
    }
    let deleted = cluster.delete(&format!("{CONFIG_MAPS}?labelSelector=tier%3Dx")).await.ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = cluster.get(CONFIG_MAPS).await.ok();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_must_be_there_and_stay() {
    let cluster = Cluster::new().await;
    let missing = cluster.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a", &json!({}), "1")).await;
    assert_eq!(missing.failure(), (404, r#"namespaces "nowhere" not found"#.into()));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    cluster.post("/api/v1/namespaces", &namespace).await.ok();
    let maps = "/api/v1/namespaces/team/configmaps";
    cluster.post(maps, &config_map("a", &json!({}), "1")).await.ok();
    let mut terminating = cluster.delete("/api/v1/namespaces/team").await.ok();
    assert_eq!(terminating["status"]["phase"], "Terminating");
    let reply = cluster.post(maps, &config_map("b", &json!({}), "1")).await;
    assert_eq!(reply.failure().0, 403);
    assert_eq!(reply.value()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    terminating["spec"]["finalizers"] = json!([]);
    cluster.put("/api/v1/namespaces/team/finalize", &terminating).await.ok();
    assert_eq!(cluster.get("/api/v1/namespaces/team").await.code, 404);
    for name in ["default", "kube-system"] {
        assert_eq!(cluster.delete(&format!("/api/v1/namespaces/{name}")).await.failure().0, 403);
    }
}

fn service(name: &str, more: &Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "protocol": "TCP"}]}});
    for (key, value) in more.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    service
}

#[tokio::test]
async fn services_get_addresses_and_ports_of_their_own_under_races() {
    let cluster = Cluster::new().await;
    let cluster = &cluster;
    let create = |i: usize| async move {
        let created = cluster.post(SERVICES, &service(&format!("s{i}"), &json!({"type": "NodePort"}))).await.ok();
        (created["spec"]["clusterIP"].clone(), created["spec"]["ports"][0]["nodePort"].clone())
    };
    let created: Vec<(Value, Value)> = futures::future::join_all((0..50).map(create)).await;
    let addresses: std::collections::HashSet<_> = created.iter().map(|(address, _)| address.to_string()).collect();
    let ports: std::collections::HashSet<_> = created.iter().map(|(_, port)| port.to_string()).collect();
    assert_eq!((addresses.len(), ports.len()), (50, 50));

    let taken = json!({"clusterIP": created[0].0});
    let (code, message) = cluster.post(SERVICES, &service("twin", &taken)).await.failure();
    assert!(code == 422 && message.contains("provided IP is already allocated"), "{message}");
    cluster.delete(&format!("{SERVICES}/s0")).await.ok();
    cluster.post(SERVICES, &service("twin", &taken)).await.ok();
    let (code, _) = cluster.post(SERVICES, &service("far", &json!({"clusterIP": "192.0.2.1"}))).await.failure();
    assert_eq!(code, 422);
}

#[tokio::test]
async fn the_cluster_is_born_with_its_namespaces_and_its_own_service() {
    let cluster = Cluster::new().await;
    let kubernetes = cluster.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.73.128.1");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = cluster.get(slices).await.ok();
    assert_eq!(
        (&slice["endpoints"][0]["addresses"][0], &slice["ports"][0]["port"]),
        (&json!("10.73.128.1"), &json!(6443))
    );
    let revision = cluster.store.revision();
    let again = Cluster::at(cluster.close().await).await;
    assert_eq!(again.store.revision(), revision, "a second start writes nothing");
    assert_eq!(again.get(&format!("{SERVICES}/kubernetes")).await.ok(), kubernetes);
}

#[tokio::test]
async fn a_protobuf_body_is_understood() {
    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        [&bytes[..], content].concat()
    }
    let metadata = [field(1, b"from-protobuf"), field(3, b"default")].concat();
    let data = [field(1, b"key"), field(2, b"value")].concat();
    let object = [field(1, &metadata), field(2, &data)].concat();
    let types = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let envelope = [b"k8s\0".to_vec(), field(1, &types), field(2, &object), field(3, b""), field(4, b"")].concat();
    let cluster = Cluster::new().await;
    let created = cluster.call("POST", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", envelope).await.ok();
    assert_eq!((&created["metadata"]["name"], &created["data"]), (&json!("from-protobuf"), &json!({"key": "value"})));
    let garbage = cluster.call("POST", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", &b"k8s\0\x0a\xff"[..]).await;
    assert_eq!(garbage.failure().0, 400);
}

#[tokio::test]
async fn yaml_bodies_are_understood_and_large_ones_refused() {
    let cluster = Cluster::new().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: \"1\"\n";
    assert_eq!(cluster.call("POST", CONFIG_MAPS, "application/yaml", body).await.ok()["data"]["k"], "1");
    let large = config_map("big", &json!({}), &"x".repeat(3 * 1024 * 1024));
    assert_eq!(cluster.post(CONFIG_MAPS, &large).await.failure().0, 413);
}

#[tokio::test]
async fn an_autoscaler_of_the_first_version_is_judged_as_one_of_the_second() {
    let cluster = Cluster::new().await;
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let scaler = |name: &str| json!({"metadata": {"name": name}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}});
    let created = cluster.post(&path("v1"), &scaler("a")).await.ok();
    assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 80);
    let second = cluster.get(&format!("{}/a", path("v2"))).await.ok();
    assert_eq!(
        second["spec"]["metrics"][0]["resource"]["target"],
        json!({"type": "Utilization", "averageUtilization": 80})
    );
    let wrong = json!([{"type": "Pods", "pods": {"targetAverageValue": "-1"}}]).to_string();
    let annotations = json!({"autoscaling.alpha.kubernetes.io/metrics": wrong});
    let mut bad = scaler("b");
    bad["metadata"]["annotations"] = annotations.clone();
    let (code, text) = cluster.post(&path("v1"), &bad).await.failure();
    assert!(code == 422 && text.contains("spec.metrics[0].pods.metric"), "{text}");
    let changed = json!({"metadata": {"annotations": annotations}});
    let (code, text) = cluster.patch(&format!("{}/a", path("v1")), "merge", &changed).await.failure();
    assert!(code == 422 && text.contains("spec.metrics[0].pods"), "{text}");
}
