//! Streams and other requests below an object: who is asked before they begin.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::util::BoxCloneSyncService;

use crate::common::{Cluster, DEPLOYMENTS, PODS, SERVICES, deployment, pod};
use crate::hook::Hook;

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const EXEC: &str = "/api/v1/namespaces/default/pods/a/exec?command=ls&command=-l&container=main&stdout=true";

/// The requests that reached the node.
type Reached = Arc<Mutex<Vec<String>>>;

/// A cluster with a pod on a node that remembers what it is asked.
async fn cluster() -> (Cluster, Reached) {
    let cluster = Cluster::new().await;
    let reached = Reached::default();
    let seen = reached.clone();
    let node = tower::service_fn(move |request: http::Request<shipway_apiserver::Body>| {
        seen.lock().unwrap().push(request.uri().to_string());
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        async move { Ok(Response::new(body)) }
    });
    cluster.server.register_node("alpha", BoxCloneSyncService::new(node));
    cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    cluster.post(&format!("{PODS}/a/binding"), &json!({"target": {"name": "alpha"}})).await.ok();
    (cluster, reached)
}

async fn configure(cluster: &Cluster, hook: &Hook, kind: &str, target: &str, resources: &[&str], fields: &Value) {
    let mut webhook = hook.webhook(target, fields);
    webhook["rules"] = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}]);
    let body = json!({"metadata": {"name": "one"}, "webhooks": [webhook]});
    cluster.post(&format!("{ADMISSION}/{kind}webhookconfigurations"), &body).await.ok();
}

#[tokio::test]
async fn a_webhook_that_refuses_a_command_refuses_it_before_the_node_hears_of_it() {
    let ((cluster, reached), hook) = (cluster().await, Hook::start().await);
    cluster.get(EXEC).await;
    assert_eq!(reached.lock().unwrap().len(), 1);
    configure(&cluster, &hook, "validating", "/deny", &["pods/exec"], &json!({})).await;
    let (code, message) = cluster.get(EXEC).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (403, r#"admission webhook "hook.example.com" denied the request: not today"#)
    );
    assert_eq!(reached.lock().unwrap().len(), 1);
    let asked = &hook.asked("/deny")[0];
    assert_eq!(asked["operation"], "CONNECT");
    assert_eq!(asked["kind"], json!({"group": "", "version": "v1", "kind": "PodExecOptions"}));
    assert_eq!((&asked["name"], &asked["subResource"]), (&json!("a"), &json!("exec")));
    let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "main", "command": ["ls", "-l"]});
    assert_eq!((&asked["object"], &asked["options"]), (&options, &Value::Null));
}

#[tokio::test]
async fn a_webhook_that_hangs_refuses_a_command_or_lets_it_pass() {
    for (policy, reaches) in [("Fail", 0), ("Ignore", 1)] {
        let ((cluster, reached), hook) = (cluster().await, Hook::start().await);
        let fields = json!({"timeoutSeconds": 1, "failurePolicy": policy});
        configure(&cluster, &hook, "validating", "/stall", &["pods/exec"], &fields).await;
        let start = Instant::now();
        assert_eq!(cluster.get(EXEC).await.code.as_u16(), if reaches == 0 { 500 } else { 200 });
        assert!(start.elapsed() < Duration::from_secs(8));
        assert_eq!(reached.lock().unwrap().len(), reaches);
    }
}

#[tokio::test]
async fn every_kind_of_stream_is_judged() {
    let ((cluster, _), hook) = (cluster().await, Hook::start().await);
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    cluster.post(SERVICES, &service).await.ok();
    cluster.post("/api/v1/nodes", &json!({"metadata": {"name": "alpha"}})).await.ok();
    configure(&cluster, &hook, "validating", "/deny", &["*/*"], &json!({})).await;
    let table = [
        (format!("{PODS}/a/attach?container=main"), "PodAttachOptions", json!({"container": "main"})),
        (format!("{PODS}/a/portforward?ports=80,81"), "PodPortForwardOptions", json!({"ports": [80, 81]})),
        (format!("{PODS}/a/proxy/x/y?dryRun=no"), "PodProxyOptions", json!({"path": "x/y"})),
        (format!("{SERVICES}/s/proxy/"), "ServiceProxyOptions", json!({"path": ""})),
        ("/api/v1/nodes/alpha/proxy/pods".to_owned(), "NodeProxyOptions", json!({"path": "pods"})),
    ];
    for (at, (path, kind, options)) in table.into_iter().enumerate() {
        assert_eq!(cluster.get(&path).await.failure().0, 403, "{path}");
        let asked = &hook.asked("/deny")[at]["object"];
        assert_eq!(asked["kind"], kind);
        for (field, value) in options.as_object().unwrap() {
            assert_eq!(asked[field], *value, "{path}");
        }
    }
}

#[tokio::test]
async fn a_webhook_may_change_what_is_run() {
    let ((cluster, reached), hook) = (cluster().await, Hook::start().await);
    configure(&cluster, &hook, "mutating", "/set/command/0/true%20&", &["pods/exec"], &json!({})).await;
    cluster.get(EXEC).await;
    let uri = reached.lock().unwrap()[0].clone();
    assert_eq!(uri, "/exec/default/a/main?stdout=true&container=main&command=true%2520%26&command=-l");
}

#[tokio::test]
async fn a_policy_judges_commands() {
    let (cluster, reached) = cluster().await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]},
        "validations": [{"expression": "object.command[0] != 'ls'", "message": "no lists"}]}});
    cluster.post(&format!("{ADMISSION}/validatingadmissionpolicies"), &policy).await.ok();
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    cluster.post(&format!("{ADMISSION}/validatingadmissionpolicybindings"), &binding).await.ok();
    let (code, message) = cluster.get(EXEC).await.failure();
    assert_eq!(code, 422);
    assert!(message.ends_with("denied request: no lists"), "{message}");
    cluster.get(&format!("{PODS}/a/exec?command=id&container=main")).await;
    assert_eq!(reached.lock().unwrap().as_slice(), ["/exec/default/a/main?command=id&container=main"]);
}

#[tokio::test]
async fn a_token_is_judged_as_what_is_asked_for() {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"spec": {"audiences": ["me"]}});
    configure(&cluster, &hook, "validating", "/deny", &["serviceaccounts/token"], &json!({})).await;
    assert_eq!(cluster.post(path, &request).await.failure().0, 403);
    let asked = &hook.asked("/deny")[0];
    assert_eq!(asked["kind"], json!({"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}));
    assert_eq!((&asked["operation"], &asked["subResource"]), (&json!("CREATE"), &json!("token")));
    assert_eq!((&asked["name"], &asked["object"]["spec"]["audiences"]), (&json!("default"), &json!(["me"])));
}

fn signing_request(name: &str) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    json!({"metadata": {"name": name}, "spec": {"signerName": "example.com/x", "usages": ["client auth"],
        "request": BASE64_STANDARD.encode(request)}})
}

#[tokio::test]
async fn writes_below_an_object_reach_whoever_names_them() {
    let ((cluster, _), hook) = (cluster().await, Hook::start().await);
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let signing = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    cluster.post(signing, &signing_request("csr")).await.ok();
    cluster.post(PODS, &pod("b", &json!({}))).await.ok();
    let names = ["pods/ephemeralcontainers", "pods/binding", "pods/eviction", "deployments/scale", "*/approval"];
    configure(&cluster, &hook, "validating", "/deny", &names, &json!({})).await;
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "busybox"}]}});
    let approval = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}});
    let refused = [
        cluster.patch(&format!("{PODS}/a/ephemeralcontainers"), "strategic-merge", &debug).await,
        cluster.post(&format!("{PODS}/b/binding"), &json!({"target": {"name": "alpha"}})).await,
        cluster.post(&format!("{PODS}/a/eviction"), &json!({"metadata": {"name": "a"}})).await,
        cluster.patch(&format!("{DEPLOYMENTS}/web/scale"), "merge", &json!({"spec": {"replicas": 3}})).await,
        cluster.patch(&format!("{signing}/csr/approval"), "merge", &approval).await,
    ];
    assert!(refused.iter().all(|reply| reply.code == 403), "{:?}", refused.map(|reply| reply.bytes));
    let asked = hook.asked("/deny");
    let brief: Vec<&str> = asked.iter().map(|one| one["subResource"].as_str().unwrap()).collect();
    assert_eq!(brief, ["ephemeralcontainers", "binding", "eviction", "scale", "approval"]);
    assert_eq!(asked[0]["object"]["spec"]["ephemeralContainers"][0]["name"], "d");
    assert_eq!(asked[4]["object"]["status"]["conditions"][0]["type"], "Approved");
}

#[tokio::test]
async fn a_webhook_changes_no_more_of_a_pod_than_its_ephemeral_containers() {
    let ((cluster, _), hook) = (cluster().await, Hook::start().await);
    configure(&cluster, &hook, "mutating", "/label/tier/front", &["pods/ephemeralcontainers"], &json!({})).await;
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "busybox"}], "nodeName": "beta"}});
    let made = cluster.patch(&format!("{PODS}/a/ephemeralcontainers"), "strategic-merge", &debug).await.ok();
    assert_eq!(made["spec"]["ephemeralContainers"][0]["name"], "d");
    assert_eq!((&made["metadata"]["labels"]["tier"], &made["spec"]["nodeName"]), (&Value::Null, &json!("alpha")));
    assert_eq!(hook.asked("/label/tier/front").len(), 1);
}

#[tokio::test]
async fn an_eviction_is_judged_as_such_and_no_deletion() {
    let ((cluster, _), hook) = (cluster().await, Hook::start().await);
    configure(&cluster, &hook, "validating", "/deny", &["pods"], &json!({})).await;
    assert_eq!(cluster.delete(&format!("{PODS}/a")).await.code, 403);
    let eviction = format!("{PODS}/a/eviction");
    cluster.post(&format!("{eviction}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.ok();
    assert!(cluster.get(&format!("{PODS}/a")).await.ok()["metadata"]["deletionTimestamp"].is_null());
    cluster.post(&eviction, &json!({"metadata": {"name": "a"}})).await.ok();
    assert_eq!(hook.asked("/deny").len(), 1);
    assert_ne!(cluster.get(&format!("{PODS}/a")).await.value()["metadata"]["deletionTimestamp"], Value::Null);
}
