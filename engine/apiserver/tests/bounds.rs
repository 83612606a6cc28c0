//! What a hostile or hasty client may make the server do has bounds, and what it did is written down.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::listening::Listening;
use common::{CONFIG_MAPS, Cluster, PODS, config_map, request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shipway_apiserver::{AuditConfig, Identity, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn with(change: impl FnOnce(&mut shipway_apiserver::Config, &std::path::Path)) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let store = shipway_store::Log::open(dir.path(), shipway_store::Options::default()).unwrap();
    let mut config = common::config();
    change(&mut config, dir.path());
    Cluster::with(store, dir, config).await
}

async fn view(cluster: &Cluster, users: &[&str]) {
    let subjects: Vec<Value> = users.iter().map(|name| json!({"kind": "User", "name": name})).collect();
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let binding = json!({"metadata": {"name": "viewers"}, "roleRef": role, "subjects": subjects});
    cluster.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok();
}

#[tokio::test]
async fn who_has_too_much_in_flight_is_told_to_come_back_and_the_system_goes_on() {
    let limits = Limits { user: 2, users: 3, user_long: 2, users_long: 3, system: 1000 };
    let cluster = with(|config, _| config.limits = limits).await;
    view(&cluster, &["jane", "joe"]).await;
    let (jane, joe) = (Identity::new("jane", &[]), Identity::new("joe", &[]));
    let watch = |who: &Identity| cluster.stream(who.clone(), request("GET", &format!("{PODS}?watch=1"), "", ""));
    let mut held = vec![watch(&jane).await, watch(&jane).await];
    assert!(held.iter().all(|reply| reply.status() == 200));
    let refused = watch(&jane).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse::<http::HeaderValue>().unwrap())
    );
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["reason"], &status["details"]["retryAfterSeconds"]), (&json!("TooManyRequests"), &json!(1)));
    assert_eq!(
        cluster.send(jane.clone(), request("GET", PODS, "", "")).await.code,
        200,
        "short ones are counted apart"
    );
    held.push(watch(&joe).await);
    assert_eq!(watch(&joe).await.status(), 429, "all users have a bound together");
    for system in [Identity::admin(), Identity::controller("shared-informers"), Identity::scheduler()] {
        held.push(cluster.stream(system, request("GET", "/api/v1/pods?watch=1", "", "")).await);
        assert_eq!(held.last().unwrap().status(), 200);
    }
    drop(held);
    assert_eq!(watch(&jane).await.status(), 200, "what has ended counts no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_user_drowns_neither_others_nor_the_system() {
    let limits = Limits { user: 4, users: 8, ..Limits::default() };
    let cluster = std::sync::Arc::new(with(|config, _| config.limits = limits).await);
    view(&cluster, &["flood", "joe"]).await;
    for at in 0..200 {
        cluster.post(CONFIG_MAPS, &config_map(&format!("m{at}"), &json!({}), &"x".repeat(1000))).await.ok();
    }
    // Replies that are not read keep their requests in flight: the worst that one user can do.
    let mut stuck = Vec::new();
    for _ in 0..50 {
        stuck.push(cluster.stream(Identity::new("flood", &[]), request("GET", CONFIG_MAPS, "", "")).await);
    }
    let answered = stuck.iter().filter(|reply| reply.status() == 200).count();
    assert_eq!((answered, stuck.iter().filter(|reply| reply.status() == 429).count()), (4, 46));
    let (node, loops) = (Identity::node("alpha"), Identity::controller("generic-garbage-collector"));
    let began = std::time::Instant::now();
    for _ in 0..50 {
        for (who, path) in [(&node, "/api/v1/nodes"), (&loops, PODS), (&Identity::scheduler(), "/api/v1/pods")] {
            assert_eq!(cluster.send(who.clone(), request("GET", path, "", "")).await.code, 200, "{}", who.user);
        }
        assert_eq!(cluster.send(Identity::new("joe", &[]), request("GET", PODS, "", "")).await.code, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    let watch = request("GET", &format!("{PODS}?watch=1"), "", "");
    assert_eq!(cluster.stream(Identity::new("flood", &[]), watch).await.status(), 200, "watches are counted apart");
    drop(stuck);
    assert_eq!(cluster.send(Identity::new("flood", &[]), request("GET", PODS, "", "")).await.code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_no_more_than_what_is_public() {
    let listening = Listening::new().await;
    for (path, expected) in [
        ("/healthz", 200),
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/api", 403),
        ("/apis", 403),
        ("/", 403),
        ("/openapi/v3", 403),
        ("/metrics", 403),
        ("/api/v1/pods", 403),
        ("/api/v1/namespaces/kube-system/secrets", 403),
        ("//api/v1/pods", 403),
        ("/healthz/../api/v1/pods", 403),
        ("/healthz/..%2f..%2fapi", 403),
        ("/version/../api/v1/secrets", 403),
        ("/./api/v1/pods", 403),
        ("/%61pi/v1/pods", 403),
        ("/api//v1/pods", 403),
        ("/apis/..", 403),
        ("/healthz//", 403),
    ] {
        assert_eq!(listening.get(path, None, false, None).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn tricks_with_paths_reach_no_other_namespace() {
    let cluster = Cluster::new().await;
    let own = json!([{"kind": "User", "name": "jane"}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"});
    let binding = json!({"metadata": {"name": "own"}, "roleRef": role, "subjects": own});
    cluster.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.ok();
    cluster.post("/api/v1/namespaces/kube-system/secrets", &json!({"metadata": {"name": "s"}})).await.ok();
    let jane = Identity::new("jane", &[]);
    let get = async |path: &str| cluster.send(jane.clone(), request("GET", path, "", "")).await.code.as_u16();
    assert_eq!(get("/api/v1/namespaces/default/secrets").await, 200);
    for path in [
        "/api/v1/namespaces/kube-system/secrets/s",
        "/api/v1/namespaces/default/secrets/..%2fkube-system%2fs",
        "/api/v1/namespaces/default%2f..%2fkube-system/secrets/s",
        "/api/v1/namespaces/default/../kube-system/secrets/s",
        "/api/v1/namespaces/default/%2e%2e/kube-system/secrets/s",
        "/api/v1/namespaces//secrets/s",
        "/api/v1/namespaces/default//secrets",
        "//api/v1/namespaces/kube-system/secrets/s",
        "/api/v1/secrets",
        "/api/v1/watch/namespaces/kube-system/secrets",
        "/api/v1/namespaces/default/secrets%00/s",
    ] {
        let code = get(path).await;
        assert!(matches!(code, 400 | 403 | 404), "{path}: {code}");
    }
}

#[tokio::test]
async fn bodies_that_are_traps_are_refused() {
    let cluster = Cluster::new().await;
    let deep = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let nested = format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":{deep}}}");
    assert_eq!(cluster.call("POST", CONFIG_MAPS, "application/json", nested).await.code, 400);
    let yaml = format!("data: {}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(cluster.call("POST", CONFIG_MAPS, "application/yaml", yaml).await.code, 400);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let began = std::time::Instant::now();
    assert_eq!(cluster.call("POST", CONFIG_MAPS, "application/yaml", bomb).await.code, 400);
    assert!(began.elapsed() < Duration::from_secs(20));
    let large = config_map("a", &json!({}), &"x".repeat(4 << 20)).to_string();
    assert_eq!(cluster.call("POST", CONFIG_MAPS, "application/json", large).await.code, 413);
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let mut request =
            request("POST", CONFIG_MAPS, "application/json", config_map("a", &json!({}), "x").to_string());
        request.headers_mut().insert("content-encoding", coding.parse().unwrap());
        assert_eq!(cluster.send(Identity::admin(), request).await.code, 415, "{coding}");
    }
    for body in ["[]", "null", "1", "\"x\"", "{\"spec\": 1}", "{\"spec\": []}", "{"] {
        for path in [
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            CONFIG_MAPS,
        ] {
            let code = cluster.call("POST", path, "application/json", body).await.code.as_u16();
            assert!((400..500).contains(&code), "{path} {body}: {code}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_trickles_is_cut_off() {
    let listening = Listening::new().await;
    let mut stream = listening.connect(None, false).await;
    let began = std::time::Instant::now();
    let trickle = async {
        for byte in b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            .iter()
            .cycle()
        {
            if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), trickle).await.expect("the server ends the connection");
    assert!(began.elapsed() >= Duration::from_secs(5));
    let mut idle = listening.connect(None, true).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), idle.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "who says nothing does not stay");
}

const POLICY: &str = r"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [admin], verbs: [create], resources: [{group: rbac.authorization.k8s.io}]}
- {level: RequestResponse}
";

#[tokio::test]
async fn what_was_asked_is_written_down_without_its_secrets() {
    let mut log = std::path::PathBuf::new();
    let cluster = with(|config, dir| {
        std::fs::write(dir.join("policy.yaml"), POLICY).unwrap();
        log = dir.join("audit.log");
        config.audit = Some(AuditConfig::new(dir.join("policy.yaml"), log.clone()));
    })
    .await;
    cluster.post(CONFIG_MAPS, &config_map("plain", &json!({}), "visible")).await.ok();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hush-hush"}});
    cluster.post("/api/v1/namespaces/default/secrets", &secret).await.ok();
    let issued =
        cluster.post("/api/v1/namespaces/default/serviceaccounts/default/token", &json!({"spec": {}})).await.ok();
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", &json!({"spec": {"token": token}})).await.ok();
    let mut acted = request("GET", PODS, "", "");
    acted.headers_mut().insert("impersonate-user", "jane".parse().unwrap());
    assert_eq!(cluster.send(Identity::admin(), acted).await.code, 403);
    view(&cluster, &["jane"]).await;
    drop(cluster.watch(&format!("{PODS}?watch=1")).await);
    let dir = cluster.close().await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("hush-hush") && !text.contains(&token) && !text.contains("aHVzaC1odXNo"));
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |verb: &str, resource: &str, stage: &str| {
        let found = events.iter().filter(|event| event["objectRef"]["resource"] == resource && event["verb"] == verb);
        found.clone().find(|event| event["stage"] == stage).unwrap_or_else(|| panic!("{verb} {resource} {stage}"))
    };
    let made = find("create", "configmaps", "ResponseComplete");
    assert_eq!(
        (&made["requestObject"]["data"]["k"], &made["responseObject"]["data"]["k"]),
        (&json!("visible"), &json!("visible"))
    );
    assert_eq!((&made["user"]["username"], &made["responseStatus"]["code"]), (&json!("admin"), &json!(201)));
    assert_eq!(
        (&made["annotations"]["authorization.k8s.io/decision"], &made["kind"]),
        (&json!("allow"), &json!("Event"))
    );
    assert_eq!(find("create", "secrets", "ResponseComplete")["level"], "Metadata");
    let refused = find("list", "pods", "ResponseComplete");
    assert_eq!(
        (&refused["impersonatedUser"]["username"], &refused["responseStatus"]["reason"]),
        (&json!("jane"), &json!("Forbidden"))
    );
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    find("watch", "pods", "ResponseStarted");
    find("watch", "pods", "ResponseComplete");
    assert!(!events.iter().any(|event| event["stage"] == "RequestReceived"));
    assert!(
        !events
            .iter()
            .any(|event| event["objectRef"]["resource"] == "clusterrolebindings" && event["verb"] == "create")
    );
    drop(dir);
}
