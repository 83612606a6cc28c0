//! Group versions that another server serves, and the objects that say so.
#![allow(clippy::unwrap_used)]

mod behind;
mod common;

use std::sync::atomic::Ordering;

use behind::{Behind, api_service, service};
use common::{Cluster, Events, PODS, SERVICES, request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shipway_apiserver::Identity;
use shipway_apiserver::pki::FrontProxy;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A cluster over the store in a folder, with a front proxy.
async fn open(front: FrontProxy, dir: tempfile::TempDir) -> Cluster {
    let store = shipway_store::Log::open(dir.path(), shipway_store::Options::default()).unwrap();
    let mut config = common::config();
    config.front_proxy = Some(std::sync::Arc::new(front));
    Cluster::with(store, dir, config).await
}

/// A cluster with a server behind it that has been found.
async fn with_server() -> (Cluster, Behind) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = open(FrontProxy::open(&dir.path().join("pki")).unwrap(), dir).await;
    let published = cluster.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    let front = published.ok()["data"]["requestheader-client-ca-file"].as_str().unwrap().to_owned();
    let behind = Behind::start(&front).await;
    cluster.post(SERVICES, &service()).await.ok();
    cluster.post(API_SERVICES, &api_service(&behind)).await.ok();
    until(&cluster, "True", "Passed").await;
    (cluster, behind)
}

/// Waits until the object of the server says so; gives its message.
async fn until(cluster: &Cluster, status: &str, reason: &str) -> String {
    let mut events: Events =
        cluster.watch(&format!("{API_SERVICES}?watch=1&fieldSelector=metadata.name%3Dv1.example.com")).await;
    loop {
        let event = events.next().await.unwrap();
        let condition = &event["object"]["status"]["conditions"][0];
        if condition["status"] == status && condition["reason"] == reason {
            return condition["message"].as_str().unwrap().to_owned();
        }
    }
}

fn condition(object: &Value) -> (&str, &str) {
    let condition = &object["status"]["conditions"][0];
    (condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
}

#[tokio::test]
async fn what_is_served_here_has_objects_that_are_available() {
    let cluster = Cluster::new().await;
    let apps = cluster.get(&format!("{API_SERVICES}/v1.apps")).await.ok();
    assert_eq!(condition(&apps), ("True", "Local"));
    assert_eq!(
        apps["spec"],
        json!({"version": "v1", "groupPriorityMinimum": 17_800, "versionPriority": 15, "group": "apps"})
    );
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let core = cluster.get(&format!("{API_SERVICES}/v1.")).await.ok();
    assert_eq!((core["spec"].get("group"), core["spec"]["groupPriorityMinimum"].as_u64()), (None, Some(18_000)));
    let all = cluster.get(API_SERVICES).await.ok()["items"].as_array().unwrap().len();
    let groups = cluster.get("/apis").await.ok();
    let versions = groups["groups"].as_array().unwrap().iter().map(|group| group["versions"].as_array().unwrap().len());
    assert_eq!(all, versions.sum::<usize>() + 1);
    assert_eq!(groups["groups"][0]["name"], "apiregistration.k8s.io");
    assert_eq!(groups["groups"][1]["name"], "apps");
    // A start that finds them changes nothing.
    let before = apps["metadata"]["resourceVersion"].clone();
    let cluster = Cluster::at(cluster.close().await).await;
    assert_eq!(cluster.get(&format!("{API_SERVICES}/v1.apps")).await.ok()["metadata"]["resourceVersion"], before);
}

#[tokio::test]
async fn what_a_definition_serves_has_an_object_as_long_as_it_is_served() {
    let cluster = Cluster::new().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut events = cluster
        .watch(&format!("{API_SERVICES}?watch=1&labelSelector=kube-aggregator.kubernetes.io/automanaged%3Dtrue"))
        .await;
    cluster.post(definitions, &definition).await.ok();
    assert_eq!(events.brief().await, common::brief("ADDED", "v1.stable.example.com"));
    let object = cluster.get(&format!("{API_SERVICES}/v1.stable.example.com")).await.ok();
    assert_eq!(condition(&object), ("True", "Local"));
    assert_eq!(
        (&object["spec"]["groupPriorityMinimum"], &object["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );
    cluster.delete(&format!("{definitions}/crontabs.stable.example.com")).await.ok();
    assert_eq!(events.brief().await, common::brief("DELETED", "v1.stable.example.com"));
}

#[tokio::test]
async fn a_request_goes_to_the_server_behind_in_the_callers_name() {
    let (cluster, _behind) = with_server().await;
    let mut asked = request("POST", &format!("{THINGS}/a/deep/er?x=1"), "application/json", "{\"a\":1}");
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("x-remote-user", "forged"),
        ("x-remote-extra-forged", "forged"),
        ("x-remote-group", "system:masters"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let jane = Identity::new("jane", &["developers"]);
    // Whoever has no rule for the resource is refused, however deep the path is.
    let refused = cluster.send(jane.clone(), request("GET", &format!("{THINGS}/a/deep/er/still"), "", "")).await;
    let message = refused.failure().1;
    assert!(message.contains("cannot get resource \"things/deep\" in API group \"example.com\""), "{message}");
    let rules = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "things"},
        "rules": [{"apiGroups": ["example.com"], "resources": ["things", "things/deep"], "verbs": ["*"]}]});
    let root = "/apis/rbac.authorization.k8s.io/v1";
    cluster.post(&format!("{root}/clusterroles"), &rules).await.ok();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "things"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "things"}});
    cluster.post(&format!("{root}/clusterrolebindings"), &binding).await.ok();
    let echo = cluster.send(jane, asked).await.ok();
    assert_eq!((&echo["method"], &echo["body"]), (&json!("POST"), &json!("{\"a\":1}")));
    assert_eq!(echo["uri"], format!("{THINGS}/a/deep/er?x=1"));
    let expected = json!({"user": ["jane"], "groups": ["developers", "system:authenticated"], "forged": [],
        "authorization": [], "impersonate": []});
    assert_eq!(echo["headers"], expected);
    let mut acting = request("GET", THINGS, "", "");
    acting.headers_mut().insert("impersonate-user", "joe".parse().unwrap());
    acting.headers_mut().insert("impersonate-group", "system:masters".parse().unwrap());
    let echo = cluster.send(Identity::admin(), acting).await.ok();
    assert_eq!((&echo["headers"]["user"], &echo["headers"]["impersonate"]), (&json!(["joe"]), &json!([])));
    for path in ["a//b", "../pods", "%2e%2e/pods"] {
        assert_eq!(cluster.get(&format!("{THINGS}/{path}")).await.failure().0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_watch_passes_through_as_it_comes() {
    let (cluster, behind) = with_server().await;
    let response = cluster.stream(Identity::admin(), request("GET", &format!("{THINGS}?watch=1"), "", "")).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    for text in ["one\n", "two\n"] {
        behind.tell(text);
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), text);
    }
    assert_eq!(behind.watchers(), 1);
}

#[tokio::test]
async fn discovery_shows_what_the_other_server_serves_in_its_order() {
    let (cluster, behind) = with_server().await;
    let groups = cluster.get("/apis").await.ok();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "example.com", "apps"]);
    let group = cluster.get("/apis/example.com").await.ok();
    assert_eq!(group["preferredVersion"], json!({"groupVersion": "example.com/v1", "version": "v1"}));
    let plain = cluster.get("/apis/example.com/v1").await.ok();
    assert_eq!(plain["resources"][0]["name"], "things");
    let aggregated = async || {
        let mut asked = request("GET", "/apis", "", "");
        asked.headers_mut().insert("accept", AGGREGATED.parse().unwrap());
        let list = cluster.send(Identity::admin(), asked).await.ok();
        let items = list["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["metadata"]["name"] == "example.com").unwrap()
    };
    let version = &aggregated().await["versions"][0];
    assert_eq!(version["freshness"], "Current");
    let kind = json!({"group": "example.com", "version": "v1", "kind": "Thing"});
    let thing = json!({"resource": "things", "responseKind": kind, "scope": "Namespaced", "singularResource": "thing",
        "verbs": ["get", "list"], "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}]});
    assert_eq!(version["resources"], json!([thing]));
    let index = cluster.get("/openapi/v3").await.ok();
    assert_eq!(index["paths"]["apis/example.com/v1"]["serverRelativeURL"], "/openapi/v3/apis/example.com/v1");
    let document = cluster.get("/openapi/v3/apis/example.com/v1").await.ok();
    assert_eq!(document["uri"], "/openapi/v3/apis/example.com/v1");
    drop(behind);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_said_to_be_unavailable() {
    let (cluster, behind) = with_server().await;
    behind.well.store(false, Ordering::SeqCst);
    // Another look is taken when the object changes what it says about the server.
    let wish = json!({"spec": {"insecureSkipTLSVerify": true, "caBundle": null}});
    cluster.patch(&format!("{API_SERVICES}/v1.example.com"), "merge", &wish).await.ok();
    let message = until(&cluster, "False", "FailedDiscoveryCheck").await;
    assert!(message.contains("bad status from https://behind.default.svc:"), "{message}");
    assert_eq!(cluster.get(THINGS).await.failure().0, 503);
    assert_eq!(cluster.get("/apis").await.ok()["groups"][1]["name"], "example.com");
    behind.well.store(true, Ordering::SeqCst);
    cluster
        .patch(
            &format!("{API_SERVICES}/v1.example.com"),
            "merge",
            &json!({"spec": {"insecureSkipTLSVerify": false,
        "caBundle": behind.bundle}}),
        )
        .await
        .ok();
    until(&cluster, "True", "Passed").await;
    assert_eq!(cluster.get(THINGS).await.ok()["kind"], "Echo");
    cluster.delete(&format!("{SERVICES}/behind")).await.ok();
    let message = until(&cluster, "False", "ServiceNotFound").await;
    assert_eq!(message, "service/behind in \"default\" is not present");
    cluster.delete(&format!("{API_SERVICES}/v1.example.com")).await.ok();
    assert_eq!(cluster.get(THINGS).await.failure().0, 404);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_believed() {
    let (cluster, behind) = with_server().await;
    let dir = tempfile::tempdir().unwrap();
    let other = shipway_apiserver::pki::Authority::open(dir.path()).unwrap();
    let mut wish = api_service(&behind);
    wish["spec"]["caBundle"] = {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(other.ca_pem()).into()
    };
    cluster.patch(&format!("{API_SERVICES}/v1.example.com"), "merge", &wish).await.ok();
    let message = until(&cluster, "False", "FailedDiscoveryCheck").await;
    assert!(message.contains("tls to"), "{message}");
}

#[tokio::test]
async fn what_is_compiled_in_cannot_be_taken_over() {
    let (cluster, behind) = with_server().await;
    let mut spec = api_service(&behind)["spec"].clone();
    spec["group"] = Value::Null;
    let wish = json!({"spec": {"service": spec["service"], "caBundle": spec["caBundle"]}});
    cluster.patch(&format!("{API_SERVICES}/v1.apps"), "merge", &wish).await.ok();
    assert_eq!(cluster.get("/apis/apps/v1/deployments").await.ok()["kind"], "DeploymentList");
    assert_eq!(cluster.get(PODS).await.ok()["kind"], "PodList");
}

#[tokio::test]
async fn the_front_proxy_outlives_a_restart_and_others_keys_stay() {
    let folder = tempfile::tempdir().unwrap();
    let first = FrontProxy::open(folder.path()).unwrap();
    let again = FrontProxy::open(folder.path()).unwrap();
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let cluster = open(first, tempfile::tempdir().unwrap()).await;
    let published = cluster.patch(path, "merge", &json!({"data": {"mine": "x"}})).await.ok();
    assert_eq!(published["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert!(published["data"]["client-ca-file"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let cluster = open(again, cluster.close().await).await;
    assert_eq!(cluster.get(path).await.ok(), published);
}
