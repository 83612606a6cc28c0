//! The built-in plugins, as their users see them.

use serde_json::{Value, json};

use crate::common::{Cluster, DEPLOYMENTS, PODS, deployment, pod};

const RANGES: &str = "/api/v1/namespaces/default/limitranges";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const NAMESPACES: &str = "/api/v1/namespaces";

#[tokio::test]
async fn a_pod_gets_what_every_pod_gets() {
    let cluster = Cluster::new().await;
    let made = cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    let keys: Vec<&Value> = spec["tolerations"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
    let mut own = pod("b", &json!({}));
    own["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(cluster.post(PODS, &own).await.ok()["spec"]["tolerations"], json!([{"operator": "Exists"}]));
}

#[tokio::test]
async fn how_long_a_pod_stays_on_a_lost_node_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let log = shipway_store::Log::open(folder.path(), shipway_store::Options::default()).unwrap();
    let config = shipway_apiserver::Config { toleration_seconds: 2, ..crate::common::config() };
    let cluster = Cluster::with(log, folder, config).await;
    let made = cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    assert_eq!(made["spec"]["tolerations"][0]["tolerationSeconds"], 2);
}

#[tokio::test]
async fn storage_is_held_while_it_may_be_in_use() {
    let cluster = Cluster::new().await;
    let modes = json!(["ReadWriteOnce"]);
    let volume = json!({"metadata": {"name": "v", "finalizers": ["example.com/mine"]},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": modes, "hostPath": {"path": "/data"}}});
    let made = cluster.post("/api/v1/persistentvolumes", &volume).await.ok();
    assert_eq!(made["metadata"]["finalizers"], json!(["example.com/mine", "kubernetes.io/pv-protection"]));
    let claim = json!({"metadata": {"name": "c"},
        "spec": {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let made = cluster.post(claims, &claim).await.ok();
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    cluster.delete(&format!("{claims}/c")).await.ok();
    assert!(!cluster.get(&format!("{claims}/c")).await.ok()["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn a_node_lets_go_of_the_volumes_that_it_keeps_and_changes_nothing_else() {
    let cluster = Cluster::new().await;
    let volume = json!({
        "metadata": {"name": "v", "labels": {"shipway.dev/node": "alpha"}, "finalizers": ["shipway.dev/folder", "a/b"]},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}},
    });
    cluster.post("/api/v1/persistentvolumes", &volume).await.ok();
    let patch = async |node: &str, patch: Value| {
        let kind = "application/merge-patch+json";
        let asked = crate::common::request("PATCH", "/api/v1/persistentvolumes/v", kind, patch.to_string());
        cluster.send(shipway_apiserver::Identity::node(node), asked).await.code.as_u16()
    };
    let left = json!({"metadata": {"finalizers": ["a/b", "kubernetes.io/pv-protection"]}});
    assert_eq!(patch("beta", left.clone()).await, 403, "another node");
    assert_eq!(patch("alpha", json!({"metadata": {"finalizers": ["shipway.dev/folder"]}})).await, 403, "others' holds");
    assert_eq!(patch("alpha", json!({"spec": {"capacity": {"storage": "9Gi"}}})).await, 403);
    assert_eq!(patch("alpha", json!({"metadata": {"labels": {"shipway.dev/node": "beta"}}})).await, 403);
    assert_eq!(patch("alpha", left).await, 200);
    let list = async |node: &str, query: &str| {
        let asked = crate::common::request("GET", &format!("/api/v1/persistentvolumes{query}"), "", "");
        cluster.send(shipway_apiserver::Identity::node(node), asked).await.code.as_u16()
    };
    assert_eq!(list("alpha", "?labelSelector=shipway.dev%2Fnode%3Dalpha").await, 200);
    for query in
        ["", "?labelSelector=shipway.dev%2Fnode%3Dbeta", "?labelSelector=a%20notin%20(b,shipway.dev%2Fnode%3Dalpha,c)"]
    {
        assert_eq!(list("alpha", query).await, 403, "{query}");
    }
    assert_eq!((list("alpha", "/v").await, list("beta", "/v").await), (200, 403));
}

#[tokio::test]
async fn the_account_of_a_pod_has_to_be_there() {
    let cluster = Cluster::new().await;
    let mut own = pod("a", &json!({}));
    own["spec"]["serviceAccountName"] = "robot".into();
    let missing =
        r#"pods "a" is forbidden: error looking up service account default/robot: serviceaccount "robot" not found"#;
    assert_eq!(cluster.post(PODS, &own).await.failure(), (403, missing.to_owned()));
    let account = json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "key"}]});
    cluster.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    assert_eq!(cluster.post(PODS, &own).await.ok()["spec"]["imagePullSecrets"], json!([{"name": "key"}]));
}

#[tokio::test]
async fn a_pod_gets_a_token_unless_it_or_its_account_declines() {
    let cluster = Cluster::new().await;
    let made = cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    let volume = &made["spec"]["volumes"][0];
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]);
    assert_eq!(volume["projected"], json!({"sources": sources, "defaultMode": 420}));
    let mount =
        json!({"name": volume["name"], "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    let account = json!({"metadata": {"name": "shy"}, "automountServiceAccountToken": false});
    cluster.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    let volumes = async |name: &str, said: Value| {
        let mut own = pod(name, &json!({}));
        own["spec"]["serviceAccountName"] = "shy".into();
        own["spec"]["automountServiceAccountToken"] = said;
        cluster.post(PODS, &own).await.ok()["spec"]["volumes"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((volumes("b", Value::Null).await, volumes("c", json!(true)).await), (0, 1));
}

#[tokio::test]
async fn a_pod_that_is_applied_twice_keeps_its_token() {
    let cluster = Cluster::new().await;
    let path = format!("{PODS}/a?fieldManager=me");
    let first = cluster.patch(&path, "apply", &pod("a", &json!({}))).await.ok();
    let second = cluster.patch(&path, "apply", &pod("a", &json!({"x": "y"}))).await.ok();
    assert!(first["spec"]["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!((&first["spec"], &second["metadata"]["labels"]["x"]), (&second["spec"], &json!("y")));
}

#[tokio::test]
async fn a_pod_waits_for_the_default_account_of_a_new_namespace() {
    let cluster = Cluster::new().await;
    cluster.post(NAMESPACES, &json!({"metadata": {"name": "new"}})).await.ok();
    let late = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        cluster.post("/api/v1/namespaces/new/serviceaccounts", &json!({"metadata": {"name": "default"}})).await.ok();
    };
    let body = pod("a", &json!({}));
    let (made, ()) = tokio::join!(cluster.post("/api/v1/namespaces/new/pods", &body), late);
    made.ok();
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let cluster = Cluster::new().await;
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}},
        {"type": "Pod", "max": {"memory": "1Gi"}},
    ]);
    cluster.post(RANGES, &json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await.ok();
    let mut own = pod("a", &json!({}));
    own["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "512Mi"}});
    let made = cluster.post(PODS, &own).await.ok();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!((&resources["requests"]["cpu"], &resources["limits"]["cpu"]), (&json!("100m"), &json!("500m")));
    let said = "LimitRanger plugin set: cpu request for container main; cpu limit for container main";
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"], said);
    let mut large = pod("b", &json!({}));
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2", "memory": "2Gi"}});
    let (code, message) = cluster.post(PODS, &large).await.failure();
    assert_eq!(code, 403);
    let refused = "pods \"b\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage \
                   per Pod is 1Gi, but limit is 2Gi]";
    assert_eq!(message, refused);
}

#[tokio::test]
async fn limit_ranges_bound_pods_ratios_and_claims() {
    let cluster = Cluster::new().await;
    let limits = json!([
        {"type": "Pod", "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"memory": "2"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}},
        {"type": "Container", "defaultRequest": {"cpu": "50m"}, "min": {"memory": "16Mi"}},
    ]);
    cluster.post(RANGES, &json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await.ok();
    let sized = |name: &str, requests: Value, limits: Value| {
        let mut pod = pod(name, &json!({}));
        pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
        pod
    };
    let made =
        cluster.post(PODS, &sized("a", json!({"cpu": "200m"}), json!({"cpu": "1", "memory": "64Mi"}))).await.ok();
    let requests = &made["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!((&requests["cpu"], &requests["memory"]), (&json!("200m"), &json!("64Mi")), "a limit is a request, too");
    assert!(made["spec"].get("initContainers").is_none());
    let table = [
        (
            json!({"cpu": "50m"}),
            json!({"cpu": "1", "memory": "64Mi"}),
            "minimum cpu usage per Pod is 100m, but request is 50m",
        ),
        (
            json!({"cpu": "1", "memory": "8Mi"}),
            json!({"cpu": "1", "memory": "8Mi"}),
            "minimum memory usage per Container is 16Mi, but request is 8Mi",
        ),
        (json!({"cpu": "1"}), json!({"cpu": "3", "memory": "64Mi"}), "maximum cpu usage per Pod is 2, but limit is 3"),
        (
            json!({"cpu": "1", "memory": "20Mi"}),
            json!({"cpu": "1", "memory": "50Mi"}),
            "memory max limit to request ratio per Pod is 2, but provided ratio is 2.500000",
        ),
    ];
    for (requests, limits, why) in table {
        let (code, message) = cluster.post(PODS, &sized("b", requests, limits)).await.failure();
        assert_eq!((code, message), (403, format!("pods \"b\" is forbidden: {why}")));
    }
    let larger = json!({"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "3"}}}]}});
    let (code, message) = cluster.patch(&format!("{PODS}/a/resize"), "strategic-merge", &larger).await.failure();
    assert_eq!((code, message.contains("maximum cpu usage per Pod is 2, but limit is 3")), (403, true), "{message}");
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "x",
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    for (size, why) in [
        ("500Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"),
        ("6Gi", "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"),
    ] {
        let refused = format!("persistentvolumeclaims \"c\" is forbidden: {why}");
        assert_eq!(cluster.post(claims, &claim(size)).await.failure(), (403, refused));
    }
    cluster.post(claims, &claim("5Gi")).await.ok();
}

#[tokio::test]
async fn priority_classes_become_numbers() {
    let cluster = Cluster::new().await;
    let mut own = pod("a", &json!({}));
    own["spec"]["priorityClassName"] = "system-node-critical".into();
    assert_eq!(cluster.post(PODS, &own).await.ok()["spec"]["priority"], 2_000_001_000);
    own["metadata"]["name"] = "b".into();
    own["spec"]["priorityClassName"] = "high".into();
    let missing = (403, r#"pods "b" is forbidden: no PriorityClass with name high was found"#.to_owned());
    assert_eq!(cluster.post(PODS, &own).await.failure(), missing);
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value, "globalDefault": true, "preemptionPolicy": "Never"});
    cluster.post(CLASSES, &class("high", 1000)).await.ok();
    let (code, message) = cluster.post(CLASSES, &class("higher", 2000)).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.ends_with("PriorityClass high is already marked as default. Only one default can exist"),
        "{message}"
    );
    let spec = cluster.post(PODS, &pod("b", &json!({}))).await.ok()["spec"].clone();
    assert_eq!(
        (&spec["priorityClassName"], &spec["priority"], &spec["preemptionPolicy"]),
        (&json!("high"), &json!(1000), &json!("Never"))
    );
    let mut forged = pod("c", &json!({}));
    forged["spec"]["priority"] = 7.into();
    assert_eq!(cluster.post(PODS, &forged).await.code, 403);
}

async fn namespace(cluster: &Cluster, labels: &Value) -> String {
    cluster.post(NAMESPACES, &json!({"metadata": {"name": "safe", "labels": labels}})).await.ok();
    cluster.post("/api/v1/namespaces/safe/serviceaccounts", &json!({"metadata": {"name": "default"}})).await.ok();
    "/api/v1/namespaces/safe/pods".to_owned()
}

#[tokio::test]
async fn pod_security_enforces_warns_and_looks_into_templates() {
    let cluster = Cluster::new().await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    let pods = namespace(&cluster, &labels).await;
    let mut privileged = pod("a", &json!({}));
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let (code, message) = cluster.post(&pods, &privileged).await.failure();
    assert_eq!(code, 403);
    let refused = "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"main\" must \
                   not set securityContext.privileged=true)";
    assert_eq!(message, refused);
    let reply = cluster.post(&pods, &pod("a", &json!({}))).await;
    reply.ok();
    let joining = json!({"spec": {"ephemeralContainers": [
        {"name": "late", "image": "busybox", "securityContext": {"privileged": true}}]}});
    let late = cluster.patch(&format!("{pods}/a/ephemeralcontainers"), "strategic-merge", &joining).await;
    let (code, message) = late.failure();
    assert_eq!((code, message.contains("privileged (container \"late\"")), (403, true), "{message}");
    let warning = reply.headers["warning"].to_str().unwrap();
    let expected = "299 - \"would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false (container \
                    \\\"main\\\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities";
    assert!(warning.starts_with(expected), "{warning}");
    let reply = cluster.post("/apis/apps/v1/namespaces/safe/deployments", &deployment("web")).await;
    reply.ok();
    assert!(reply.headers["warning"].to_str().unwrap().contains("would violate PodSecurity"));
    assert!(cluster.post(DEPLOYMENTS, &deployment("web")).await.headers.get("warning").is_none());
}

#[tokio::test]
async fn pod_security_labels_are_checked_and_a_rise_names_pods() {
    let cluster = Cluster::new().await;
    let pods = namespace(&cluster, &json!({})).await;
    cluster.post(&pods, &pod("old", &json!({}))).await.ok();
    let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let path = format!("{NAMESPACES}/safe");
    let (code, message) = cluster.patch(&path, "merge", &label("stern")).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("must be one of privileged, baseline, restricted"), "{message}");
    let reply = cluster.patch(&path, "merge", &label("restricted")).await;
    reply.ok();
    let warnings: Vec<&str> = reply.headers.get_all("warning").iter().map(|one| one.to_str().unwrap()).collect();
    assert!(warnings[0].contains("existing pods in namespace"), "{warnings:?}");
    assert!(warnings[1].contains("old: allowPrivilegeEscalation"), "{warnings:?}");
    let annotate = json!({"metadata": {"labels": {"x": "y"}}});
    cluster.patch(&format!("{pods}/old"), "merge", &annotate).await.ok();
}
