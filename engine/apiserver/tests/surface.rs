//! What clients find beside the objects: other media types, documents, probes, names of requests, subresources.
#![allow(clippy::unwrap_used)]

mod common;

use common::{CONFIG_MAPS, Cluster, PODS, Reply, config_map, pod, request};
use serde_json::{Value, json};
use shipway_apiserver::Identity;

async fn get_as(cluster: &Cluster, path: &str, accept: &str) -> Reply {
    let mut asked = request("GET", path, "", "");
    asked.headers_mut().insert("accept", accept.parse().unwrap());
    cluster.send(Identity::admin(), asked).await
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_part_of_the_control_plane_is_healthy_while_it_follows_the_api() {
    const PATH: &str = "/api/v1/componentstatuses";
    let cluster = Cluster::new().await;
    let health = async |name: &str| {
        let object = cluster.get(&format!("{PATH}/{name}")).await.ok();
        assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("ComponentStatus"), &json!("v1")));
        object["conditions"][0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!((health("etcd-0").await.as_str(), health("scheduler").await.as_str()), ("True", "False"));
    let watching = cluster.stream(Identity::scheduler(), request("GET", "/api/v1/pods?watch=1", "", "")).await;
    assert_eq!((health("scheduler").await.as_str(), health("controller-manager").await.as_str()), ("True", "False"));
    let informers = Identity::controller("shared-informers");
    let informed = cluster.stream(informers, request("GET", "/api/v1/pods?watch=1", "", "")).await;
    assert_eq!(health("controller-manager").await, "True");
    drop((watching, informed));
    assert_eq!((health("scheduler").await.as_str(), health("controller-manager").await.as_str()), ("False", "False"));
    let list = cluster.get(PATH).await;
    assert!(list.headers["warning"].to_str().unwrap().contains("v1 ComponentStatus is deprecated in v1.19+"));
    let list = list.ok();
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(
        (list["kind"].as_str(), names),
        (Some("ComponentStatusList"), vec!["controller-manager", "etcd-0", "scheduler"])
    );
    let one = cluster.get(&format!("{PATH}?fieldSelector=metadata.name%3Detcd-0")).await.ok();
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let table = get_as(&cluster, PATH, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    assert_eq!(cluster.get(&format!("{PATH}/other")).await.failure().0, 404);
    for (method, path) in
        [("POST", PATH.to_owned()), ("DELETE", format!("{PATH}/etcd-0")), ("GET", format!("{PATH}?watch=1"))]
    {
        assert_eq!(cluster.call(method, &path, "application/json", "{}").await.failure().0, 405, "{method}");
    }
}

#[tokio::test]
async fn where_the_time_goes_is_told_to_administrators() {
    const PATH: &str = "/debug/profile?seconds=1";
    let cluster = Cluster::new().await;
    let (profile, again, ()) = tokio::join!(
        cluster.get(PATH),
        async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            cluster.get(PATH).await
        },
        async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            cluster.send(Identity::scheduler(), request("GET", PODS, "", "")).await.ok();
        },
    );
    let profile = text(&profile);
    for part in ["of processor time", "memory: ", "threads:\n", "requests: ", "who"] {
        assert!(profile.contains(part), "{part}\n{profile}");
    }
    let row =
        profile.lines().find(|line| line.contains("system:kube-scheduler")).unwrap_or_else(|| panic!("{profile}"));
    assert!(row.ends_with("list pods"), "{row}");
    assert_eq!(again.failure().0, 503, "one at a time");
    assert_eq!(cluster.send(Identity::new("jane", &[]), request("GET", PATH, "", "")).await.failure().0, 403);
    for wrong in ["0", "61", "x"] {
        assert_eq!(cluster.get(&format!("/debug/profile?seconds={wrong}")).await.failure().0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn collections_take_what_their_kind_says() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.delete("/api/v1/namespaces").await.failure().0, 405);
    assert_eq!(cluster.get("/api/v1/namespaces/default").await.code, 200);
}

#[tokio::test]
async fn the_document_of_version_2_comes_in_both_forms_and_once() {
    let cluster = Cluster::new().await;
    let json = cluster.get("/openapi/v2").await;
    let document = json.ok();
    assert_eq!(document["swagger"], "2.0");
    let tag = json.headers["etag"].clone();
    let known = async |accept: &str, tag: &http::HeaderValue| {
        let mut asked = request("GET", "/openapi/v2", "", "");
        asked.headers_mut().insert("if-none-match", tag.clone());
        asked.headers_mut().insert("accept", accept.parse().unwrap());
        cluster.send(Identity::admin(), asked).await
    };
    assert_eq!(known("application/json", &tag).await.code, 304);
    let gnostic = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let binary = known(&gnostic.replace("v2.v1", "v2@v1"), &tag).await;
    assert_eq!((binary.code.as_u16(), binary.headers["content-type"].to_str().unwrap()), (200, gnostic));
    assert!(binary.bytes.starts_with(b"\x0a\x032.0") && binary.headers["etag"] != tag);
    assert_eq!(get_as(&cluster, "/openapi/v2", "text/html").await.failure().0, 406);
    // A definition changes the document.
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": {"cron": {"type": "string"}}}}}}}],
        },
    });
    let mut events = cluster.watch("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?watch=1").await;
    cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.ok();
    while !events.next().await.unwrap().to_string().contains("\"Established\"") {}
    let document = known("application/json", &tag).await.ok();
    let kind = &document["definitions"]["com.example.stable.v1.CronTab"];
    assert_eq!(kind["properties"]["spec"]["properties"]["cron"]["type"], "string");
    assert_eq!(kind["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    assert!(document["paths"].get("/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}").is_some());
}

#[tokio::test]
async fn objects_lists_and_failures_come_as_yaml_to_whom_asks_for_it() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "yes")).await.ok();
    let yaml = "application/yaml";
    let one = get_as(&cluster, &format!("{CONFIG_MAPS}/a"), yaml).await;
    assert_eq!(one.headers["content-type"], yaml);
    let body = text(&one);
    assert!(body.starts_with("apiVersion: v1\n") || body.starts_with("kind: ConfigMap\n"), "{body}");
    assert!(body.contains("\ndata:\n  k: \"yes\"\n"), "{body}");
    let list = text(&get_as(&cluster, CONFIG_MAPS, yaml).await);
    assert!(list.contains("kind: ConfigMapList\n") && list.contains("\nitems:\n- "), "{list}");
    let missing = get_as(&cluster, &format!("{CONFIG_MAPS}/b"), yaml).await;
    assert_eq!((missing.code.as_u16(), missing.headers["content-type"].to_str().unwrap()), (404, yaml));
    assert!(text(&missing).contains("reason: NotFound\n"));
    assert!(text(&get_as(&cluster, "/apis", yaml).await).contains("kind: APIGroupList\n"));
    assert_eq!(get_as(&cluster, &format!("{CONFIG_MAPS}?watch=1"), yaml).await.code, 406);
    let json = get_as(&cluster, &format!("{CONFIG_MAPS}/a"), "application/json, application/yaml").await;
    assert_eq!(json.ok()["data"]["k"], "yes");
}

#[tokio::test]
async fn every_answer_carries_the_name_of_its_request() {
    let cluster = Cluster::new().await;
    let named = |reply: &Reply| reply.headers["audit-id"].to_str().unwrap().to_owned();
    let (first, second) = (cluster.get("/version").await, cluster.get("/nowhere").await);
    assert_eq!((named(&first).len(), second.code.as_u16()), (36, 404));
    assert_ne!(named(&first), named(&second));
    let with = async |name: &str| {
        let mut asked = request("GET", CONFIG_MAPS, "", "");
        asked.headers_mut().insert("audit-id", name.parse().unwrap());
        named(&cluster.send(Identity::admin(), asked).await)
    };
    assert_eq!(with("mine-1").await, "mine-1");
    assert_eq!(with(&"x".repeat(65)).await.len(), 36);
}

#[tokio::test]
async fn probes_tell_their_checks_and_leave_out_what_they_are_told_to() {
    let cluster = Cluster::new().await;
    assert_eq!(text(&cluster.get("/livez").await), "ok");
    assert_eq!(text(&cluster.get("/livez?verbose").await), "[+]ping ok\n[+]etcd ok\nlivez check passed\n");
    let verbose = text(&cluster.get("/readyz?verbose&exclude=etcd&exclude=other").await);
    let expected = "[+]ping ok\n[+]etcd excluded: ok\n[+]informer-sync ok\n[+]shutdown ok\nwarn: some health checks cannot \
                    be excluded: no matches for \"other\"\nreadyz check passed\n";
    assert_eq!(verbose, expected);
    assert_eq!(text(&cluster.get("/readyz/shutdown").await), "ok");
    assert_eq!(cluster.get("/livez/shutdown").await.code, 404);
    cluster.server.close().await;
    let failed = cluster.get("/readyz").await;
    assert_eq!(failed.code, 500);
    let told = text(&failed);
    assert!(
        told.contains("[-]etcd failed: ")
            && told.contains("[-]shutdown failed: ")
            && told.ends_with("readyz check failed\n"),
        "{told}"
    );
    assert_eq!(cluster.get("/livez?exclude=etcd").await.code, 200);
    assert_eq!(cluster.get("/livez/etcd").await.code, 500);
}

/// A pod with resources, running nowhere.
async fn sized(cluster: &Cluster) -> Value {
    let mut pod = pod("a", &json!({}));
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    cluster.post(PODS, &pod).await.ok()
}

#[tokio::test]
async fn a_resize_changes_resources_and_nothing_else() {
    let cluster = Cluster::new().await;
    let before = sized(&cluster).await;
    let path = format!("{PODS}/a/resize");
    assert_eq!(cluster.get(&path).await.ok(), before);
    let wish = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"activeDeadlineSeconds": 5, "containers": [
        {"name": "main", "image": "other", "resources": {"requests": {"cpu": "150m"}}}]}});
    let after = cluster.patch(&path, "strategic-merge", &wish).await.ok();
    let container = &after["spec"]["containers"][0];
    assert_eq!(container["resources"], json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "200m"}}));
    assert_eq!((&container["image"], after["spec"].get("activeDeadlineSeconds")), (&json!("busybox"), None));
    assert_eq!(after["metadata"].get("labels"), before["metadata"].get("labels"));
    assert_eq!(after["metadata"]["generation"].as_i64(), before["metadata"]["generation"].as_i64().map(|old| old + 1));
    let mut wish = after.clone();
    wish["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("300m");
    let (code, message) = cluster.put(&path, &wish).await.failure();
    assert!(code == 422 && message.contains("must be less than or equal to cpu limit of 200m"), "{message}");
    wish["spec"]["containers"][0]["resources"] = json!({});
    let (code, message) = cluster.put(&path, &wish).await.failure();
    assert!(code == 422 && message.contains("QOS Class may not change"), "{message}");
    wish["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}});
    wish["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(cluster.put(&path, &wish).await.failure().0, 409);
    assert_eq!(cluster.call("DELETE", &path, "", "").await.failure().0, 405);
}

#[tokio::test]
async fn a_binding_may_name_its_pod_itself() {
    let cluster = Cluster::new().await;
    sized(&cluster).await;
    let bindings = "/api/v1/namespaces/default/bindings";
    let binding = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"kind": "Node", "name": "alpha"}})
    };
    assert_eq!(cluster.post(bindings, &binding("other")).await.failure().0, 404);
    assert_eq!(cluster.post(bindings, &json!({"target": {"name": "alpha"}})).await.failure().0, 400);
    let reply = cluster.post(bindings, &binding("a")).await;
    assert_eq!((reply.code.as_u16(), &reply.ok()["status"]), (201, &json!("Success")));
    assert_eq!(cluster.get(&format!("{PODS}/a")).await.ok()["spec"]["nodeName"], "alpha");
    assert_eq!(cluster.post(bindings, &binding("a")).await.failure().0, 409);
    assert_eq!(cluster.get(bindings).await.failure().0, 405);
    let jane = Identity::new("jane", &[]);
    let refused = cluster.send(jane, request("POST", bindings, "application/json", binding("a").to_string())).await;
    assert_eq!(refused.failure().0, 403);
}
