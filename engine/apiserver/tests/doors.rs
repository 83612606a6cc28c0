//! Every door that must stay shut has somebody knocking here; and what is open to everybody is open.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::listening::Listening;
use common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, PODS, Reply, config_map, deployment, pod, request};
use http::Request;
use http_body_util::BodyExt;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use shipway_apiserver::Identity;
use shipway_apiserver::pki::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn code(cluster: &Cluster, identity: &Identity, method: &str, path: &str, body: &Value) -> u16 {
    let content = if body.is_null() { String::new() } else { body.to_string() };
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    cluster.send(identity.clone(), request(method, path, kind, content)).await.code.as_u16()
}

#[tokio::test]
async fn whoever_has_no_rule_is_refused_everywhere() {
    let cluster = Cluster::new().await;
    let jane = Identity::new("jane", &["developers"]);
    for (method, path) in [
        ("GET", "/api/v1/pods"),
        ("GET", "/api/v1/namespaces/default/secrets/x"),
        ("POST", PODS),
        ("PUT", "/api/v1/namespaces/default/pods/x"),
        ("PATCH", "/api/v1/nodes/x/status"),
        ("DELETE", DEPLOYMENTS),
        ("DELETE", "/api/v1/namespaces/kube-system"),
        ("GET", "/api/v1/namespaces/default/pods/x/log"),
        ("POST", "/api/v1/namespaces/default/pods/x/binding"),
        ("GET", "/apis/unknown/v1/things"),
        ("GET", "/metrics"),
    ] {
        assert_eq!(code(&cluster, &jane, method, path, &Value::Null).await, 403, "{method} {path}");
    }
    let reply = cluster.send(jane, request("GET", PODS, "", "")).await.failure().1;
    let expected = "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \
                    \"default\"";
    assert_eq!(reply, expected);
}

#[tokio::test]
async fn a_node_keeps_to_itself() {
    let cluster = Cluster::new().await;
    let (alpha, beta) = (Identity::node("alpha"), Identity::node("beta"));
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    assert_eq!(code(&cluster, &alpha, "POST", "/api/v1/nodes", &node("beta")).await, 403);
    assert_eq!(code(&cluster, &alpha, "POST", "/api/v1/nodes", &node("alpha")).await, 201);
    let status = json!({"status": {"phase": "x"}});
    assert_eq!(code(&cluster, &beta, "PATCH", "/api/v1/nodes/alpha/status", &status).await, 403);
    assert_eq!(code(&cluster, &alpha, "PATCH", "/api/v1/nodes/alpha/status", &status).await, 200);
    assert_eq!(code(&cluster, &alpha, "DELETE", "/api/v1/nodes/alpha", &Value::Null).await, 403);

    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(code(&cluster, &alpha, "POST", leases, &lease("beta")).await, 403);
    assert_eq!(code(&cluster, &alpha, "POST", leases, &lease("alpha")).await, 201);
    assert_eq!(code(&cluster, &beta, "PATCH", &format!("{leases}/alpha"), &lease("alpha")).await, 403);
    let elsewhere = leases.replace("kube-node-lease", "kube-system");
    assert_eq!(code(&cluster, &alpha, "POST", &elsewhere, &lease("alpha")).await, 403);

    cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    let path = format!("{PODS}/a");
    let binding = json!({"target": {"kind": "Node", "name": "alpha"}});
    assert_eq!(code(&cluster, &alpha, "POST", &format!("{path}/binding"), &binding).await, 403);
    assert_eq!(code(&cluster, &Identity::scheduler(), "POST", &format!("{path}/binding"), &binding).await, 201);
    let status = json!({"status": {"phase": "Running"}});
    assert_eq!(code(&cluster, &beta, "PATCH", &format!("{path}/status"), &status).await, 403);
    assert_eq!(code(&cluster, &alpha, "PATCH", &format!("{path}/status"), &status).await, 200);
    assert_eq!(code(&cluster, &alpha, "PATCH", &path, &json!({"metadata": {"labels": {"a": "b"}}})).await, 403);
    let annotation = json!({"metadata": {"annotations": {"a": "b"}}});
    assert_eq!(code(&cluster, &beta, "PATCH", &path, &annotation).await, 403);
    assert_eq!(code(&cluster, &alpha, "PATCH", &path, &annotation).await, 200);
    assert_eq!(code(&cluster, &beta, "DELETE", &path, &Value::Null).await, 403);
    assert_eq!(code(&cluster, &alpha, "DELETE", &format!("{path}?gracePeriodSeconds=0"), &Value::Null).await, 200);
    assert_eq!(code(&cluster, &alpha, "POST", PODS, &pod("b", &json!({}))).await, 403);
    let secret = json!({"metadata": {"name": "s"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(code(&cluster, &alpha, "POST", secrets, &secret).await, 403);
    assert_eq!(code(&cluster, &alpha, "GET", secrets, &Value::Null).await, 403);
}

#[tokio::test]
async fn an_apply_makes_nothing_that_a_post_would_not() {
    let cluster = Cluster::new().await;
    let apply = async |identity: Identity, path: &str, object: &Value| {
        let path = format!("{path}?fieldManager=x");
        let sent = request("PATCH", &path, "application/apply-patch+yaml", object.to_string());
        cluster.send(identity, sent).await.code.as_u16()
    };
    let object = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "evil"}});
    let mut evil = object("Pod");
    evil["spec"] = json!({"nodeName": "beta", "containers": [{"name": "c", "image": "i"}]});
    assert_eq!(apply(Identity::node("alpha"), &format!("{PODS}/evil"), &evil).await, 403);
    let controller = Identity::controller("generic-garbage-collector");
    let secret = "/api/v1/namespaces/default/secrets/evil";
    assert_eq!(apply(controller.clone(), secret, &object("Secret")).await, 403);
    assert_eq!(apply(controller, "/api/v1/nodes/evil", &object("Node")).await, 403);
    assert_eq!(apply(Identity::admin(), &format!("{CONFIG_MAPS}/evil"), &object("ConfigMap")).await, 201);
}

#[tokio::test]
async fn what_a_node_is_to_others_is_not_its_own_to_say() {
    let cluster = Cluster::new().await;
    let alpha = Identity::node("alpha");
    let labelled = |labels: Value| json!({"metadata": {"name": "alpha", "labels": labels}});
    let refused =
        labelled(json!({"node-role.kubernetes.io/control-plane": "", "a.node-restriction.kubernetes.io/x": "y"}));
    let sent = request("POST", "/api/v1/nodes", "application/json", refused.to_string());
    let (status, message) = cluster.send(alpha.clone(), sent).await.failure();
    let expected = "nodes \"alpha\" is forbidden: node \"alpha\" is not allowed to set the following labels: \
                    a.node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane";
    assert_eq!((status, message.as_str()), (403, expected));
    let own = json!({"kubernetes.io/hostname": "alpha", "node.kubernetes.io/x": "1", "x.kubelet.kubernetes.io/y": "2", "example.com/z": "3"});
    assert_eq!(code(&cluster, &alpha, "POST", "/api/v1/nodes", &labelled(own)).await, 201);
    let path = "/api/v1/nodes/alpha";
    let table = [
        (json!({"metadata": {"labels": {"example.com/z": "4"}}}), 200),
        (json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "true"}}}), 403),
        (json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}), 403),
        (json!({"spec": {"unschedulable": true}}), 200),
    ];
    for (change, expected) in table {
        assert_eq!(code(&cluster, &alpha, "PATCH", path, &change).await, expected, "{change}");
    }
    cluster
        .patch(path, "merge", &json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "true"}}}))
        .await
        .ok();
    let without = json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": null}}});
    assert_eq!(code(&cluster, &alpha, "PATCH", path, &without).await, 403, "nor to take one away");
}

#[tokio::test]
async fn the_engines_own_parts_do_their_work_and_no_more() {
    let cluster = Cluster::new().await;
    let namespaces = "/api/v1/namespaces";
    let (secrets, roles) = ("/api/v1/namespaces/default/secrets", "/apis/rbac.authorization.k8s.io/v1/clusterroles");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let wide =
        json!({"metadata": {"name": "wide"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    cluster.post(roles, &json!({"metadata": {"name": "view-more"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}})).await.ok();
    cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    cluster.post(secrets, &json!({"metadata": {"name": "s"}})).await.ok();
    cluster.post(namespaces, &json!({"metadata": {"name": "gone"}, "spec": {"finalizers": ["kubernetes"]}})).await.ok();
    let set = json!({"metadata": {"name": "web"}, "spec": deployment("web")["spec"]});
    let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": []});
    let more = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let (secret, role) = (format!("{secrets}/s"), format!("{roles}/view-more"));
    let finalize = json!({"metadata": {"name": "gone"}, "spec": {"finalizers": []}});
    let table = [
        ("deployment-controller", "POST", sets, &set, 201),
        ("deployment-controller", "POST", PODS, &pod("b", &json!({})), 403),
        ("deployment-controller", "POST", DEPLOYMENTS, &deployment("web"), 403),
        ("replicaset-controller", "POST", PODS, &pod("b", &json!({})), 201),
        ("replicaset-controller", "DELETE", &format!("{PODS}/b"), &Value::Null, 200),
        ("replicaset-controller", "POST", sets, &set, 403),
        ("replicaset-controller", "GET", secrets, &Value::Null, 403),
        ("endpointslice-controller", "POST", slices, &slice, 201),
        ("endpointslice-controller", "PATCH", &format!("{PODS}/a"), &label, 403),
        (
            "service-account-controller",
            "POST",
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "x"}}),
            201,
        ),
        ("service-account-controller", "POST", "/api/v1/namespaces/default/serviceaccounts/x/token", &json!({}), 403),
        ("clusterrole-aggregation-controller", "PATCH", &role, &more, 200),
        ("clusterrole-aggregation-controller", "POST", roles, &wide, 403),
        ("generic-garbage-collector", "PATCH", &secret, &label, 200),
        ("generic-garbage-collector", "POST", secrets, &json!({"metadata": {"name": "t"}}), 403),
        ("generic-garbage-collector", "PATCH", &role, &json!({"rules": wide["rules"]}), 403),
        ("generic-garbage-collector", "DELETE", secrets, &Value::Null, 403),
        ("namespace-controller", "PATCH", &secret, &label, 403),
        ("namespace-controller", "DELETE", secrets, &Value::Null, 200),
        ("namespace-controller", "PUT", "/api/v1/namespaces/gone/finalize", &finalize, 200),
        ("shared-informers", "GET", "/api/v1/pods", &Value::Null, 200),
        ("shared-informers", "GET", "/api/v1/secrets", &Value::Null, 403),
        ("service-proxy", "GET", "/api/v1/services", &Value::Null, 200),
        ("service-proxy", "GET", "/api/v1/pods", &Value::Null, 403),
        ("sleeper", "GET", "/apis/apps/v1/deployments", &Value::Null, 200),
        ("sleeper", "GET", "/api/v1/pods", &Value::Null, 403),
        ("service-proxy", "GET", "/apis/networking.k8s.io/v1/networkpolicies", &Value::Null, 200),
        ("service-proxy", "POST", "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", &Value::Null, 403),
    ];
    for (name, method, path, body, expected) in table {
        let answered = code(&cluster, &Identity::controller(name), method, path, body).await;
        assert_eq!(answered, expected, "{name} {method} {path}");
    }
    let scheduler = Identity::scheduler();
    assert_eq!(code(&cluster, &scheduler, "GET", "/api/v1/pods", &Value::Null).await, 200);
    assert_eq!(code(&cluster, &scheduler, "GET", "/api/v1/secrets", &Value::Null).await, 403);
    assert_eq!(code(&cluster, &scheduler, "POST", PODS, &pod("b", &json!({}))).await, 403);
    assert_eq!(code(&cluster, &scheduler, "PATCH", &format!("{PODS}/a"), &json!({})).await, 403);
}

#[tokio::test]
async fn whoever_bears_the_name_of_a_controller_is_no_part_of_the_system() {
    let cluster = Cluster::new().await;
    let group = Identity::new("jane", &["system:controllers"]);
    assert_eq!(code(&cluster, &group, "GET", "/api/v1/pods", &Value::Null).await, 403);
    assert_eq!(code(&cluster, &group, "DELETE", PODS, &Value::Null).await, 403);
}

#[tokio::test]
async fn acting_for_others_needs_a_rule() {
    let cluster = Cluster::new().await;
    let as_jane = |identity: Identity| {
        let mut request = request("GET", PODS, "", "");
        request.headers_mut().insert("impersonate-user", "jane".parse().unwrap());
        cluster.send(identity, request)
    };
    let (code, message) = as_jane(Identity::scheduler()).await.failure();
    assert!(code == 403 && message.contains("cannot impersonate resource \"users\""), "{message}");
    let (code, message) = as_jane(Identity::admin()).await.failure();
    assert!(code == 403 && message.contains("User \"jane\" cannot list"), "{message}");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_said_not_to_be() {
    let cluster = Cluster::new().await;
    for path in [
        "/api/v1/things",
        "/apis/apps/v2/deployments",
        "/nowhere",
        "/api/v1/pods/x",
        "/api/v1/namespaces/default/nodes",
        "/apis/none",
    ] {
        assert_eq!(cluster.get(path).await.failure().0, 404, "{path}");
    }
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let named = format!("{CONFIG_MAPS}/a");
    for (method, path) in [
        ("POST", named.as_str()),
        ("PUT", CONFIG_MAPS),
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/version"),
        ("HEAD", CONFIG_MAPS),
    ] {
        let reply = cluster.call(method, path, "application/json", "{}").await;
        assert_eq!(reply.code, 405, "{method} {path}");
    }
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?x={}", "y".repeat(20_000))).await.failure().0, 414);
    assert_eq!(cluster.get(&format!("{named}/scale")).await.failure().0, 404);
}

#[tokio::test]
async fn one_may_ask_what_one_is_and_may_do() {
    let cluster = Cluster::new().await;
    let ask = async |identity: Identity, path: &str, spec: Value| {
        let body = json!({"spec": spec}).to_string();
        let reply: Reply = cluster.send(identity, request("POST", path, "application/json", body)).await;
        assert_eq!(reply.code, 201);
        reply.ok()["status"].clone()
    };
    let access = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let create = json!({"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}});
    assert_eq!(ask(Identity::admin(), access, create.clone()).await["allowed"], true);
    assert_eq!(ask(Identity::scheduler(), access, create).await["allowed"], false);
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    assert_eq!(
        ask(Identity::admin(), rules, json!({"namespace": "default"})).await["resourceRules"][0]["verbs"][0],
        "*"
    );
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    assert_eq!(ask(Identity::scheduler(), own, json!({})).await["userInfo"]["username"], "system:kube-scheduler");
}

/// A request body that panics when it is read.
struct Trap;

impl http_body::Body for Trap {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        panic!("the trap is sprung")
    }
}

#[tokio::test]
async fn a_panic_becomes_a_reply() {
    use tower::ServiceExt;
    let cluster = Cluster::new().await;
    let request = Request::post(CONFIG_MAPS).body(Trap).unwrap();
    let reply = cluster.server.in_process(Identity::admin()).oneshot(request).await.unwrap();
    assert_eq!(reply.status(), 500);
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    assert_eq!(cluster.get(CONFIG_MAPS).await.code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_opens_and_nothing_else_does() {
    let listening = Listening::new().await;
    let admin = listening.authority.issue_client(&Identity::admin()).unwrap();
    for http2 in [false, true] {
        assert_eq!(listening.get("/api/v1/namespaces", Some(&admin), http2, None).await.0, 200);
        let (code, text) = listening.get("/api/v1/namespaces", None, http2, None).await;
        assert!(code == 403 && text.contains("system:anonymous"), "{text}");
        assert_eq!(listening.get("/api/v1/namespaces", None, http2, Some("nonsense")).await.0, 401);
        assert_eq!(listening.get("/api", None, http2, None).await.0, 403);
        for open in ["/version", "/version/", "/healthz", "/livez", "/readyz", "/readyz?verbose"] {
            assert_eq!(listening.get(open, None, http2, None).await.0, 200, "{open}");
        }
    }
    let node = listening.authority.issue_client(&Identity::node("alpha")).unwrap();
    assert_eq!(listening.get("/api/v1/nodes", Some(&node), true, None).await.0, 200);
    assert_eq!(listening.get("/api/v1/events", Some(&node), true, None).await.0, 403);
    listening.stop.cancel();
    listening.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused() {
    let listening = Listening::new().await;
    let dir = tempfile::tempdir().unwrap();
    let stranger = Authority::open(dir.path()).unwrap().issue_client(&Identity::admin()).unwrap();
    let stream = tokio::net::TcpStream::connect(listening.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(listening.tls(Some(&stranger))));
    let Ok(mut stream) = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await else { return };
    // With TLS 1.3 the refusal reaches the client with its first read.
    let request = b"GET /api/v1/secrets HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let written = stream.write_all(request).await;
    let mut reply = Vec::new();
    let read = stream.read_to_end(&mut reply).await;
    assert!(written.is_err() || read.is_err());
    assert!(reply.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_watches_and_the_server() {
    let listening = Listening::new().await;
    let admin = listening.authority.issue_client(&Identity::admin()).unwrap();
    let watch = listening.get("/api/v1/pods?watch=1", Some(&admin), true, None);
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        listening.stop.cancel();
    };
    let ((code, _), ()) = futures::join!(watch, stop);
    assert_eq!(code, 200);
    tokio::time::timeout(std::time::Duration::from_secs(3), listening.task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_ends_in_time_ends_its_body_and_leaves_the_connection_open() {
    let listening = Listening::new().await;
    let admin = listening.authority.issue_client(&Identity::admin()).unwrap();
    listening.cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "x")).await.ok();
    let mut stream = listening.connect(Some(&admin), false).await;
    for more in ["", "&allowWatchBookmarks=true", "&labelSelector=none"] {
        let request = format!("GET {CONFIG_MAPS}?watch=1&timeoutSeconds=1{more} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        let whole = async {
            while !reply.ends_with(b"\r\n0\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut reply).await.unwrap(), 0, "the connection was closed");
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(5), whole).await;
        let text = String::from_utf8_lossy(&reply).to_lowercase();
        assert!(waited.is_ok(), "the body has no end: {text}");
        assert!(text.starts_with("http/1.1 200") && text.contains("\r\ntransfer-encoding: chunked"), "{text}");
        assert!(!text.contains("\r\nconnection: close"), "{text}");
    }
}
