//! Webhooks: who is asked, what the answer does, and what a webhook that fails costs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, PODS, config_map, deployment, pod};
use crate::hook::Hook;

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

async fn configure(cluster: &Cluster, path: &str, name: &str, webhooks: Value) {
    cluster.post(path, &json!({"metadata": {"name": name}, "webhooks": webhooks})).await.ok();
}

async fn cluster_with(path: &str, target: &str, fields: &Value) -> (Cluster, Hook) {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    configure(&cluster, path, "one", json!([hook.webhook(target, fields)])).await;
    (cluster, hook)
}

async fn try_create(cluster: &Cluster) -> (u16, String) {
    let reply = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await;
    if reply.code.is_success() { (reply.code.as_u16(), String::new()) } else { reply.failure() }
}

#[tokio::test]
async fn a_webhook_is_asked_in_full_and_allows() {
    let (cluster, hook) = cluster_with(VALIDATING, "/allow", &json!({})).await;
    assert_eq!(try_create(&cluster).await.0, 201);
    let asked = hook.asked("/allow");
    assert_eq!(asked.len(), 1);
    let request = &asked[0];
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"]),
        (&json!("CREATE"), &json!("a"), &json!("default"))
    );
    assert_eq!(
        (&request["object"]["data"]["k"], &request["oldObject"], &request["dryRun"]),
        (&json!("1"), &Value::Null, &json!(false))
    );
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", &json!({"data": {"k": "2"}})).await.ok();
    let update = &hook.asked("/allow")[1];
    assert_eq!(
        (&update["operation"], &update["oldObject"]["data"]["k"], &update["object"]["data"]["k"]),
        (&json!("UPDATE"), &json!("1"), &json!("2"))
    );
    cluster.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(hook.asked("/allow").len(), 2, "deletes are not in the rules");
}

#[tokio::test]
async fn a_denial_reaches_the_client_as_the_webhook_worded_it() {
    for path in [VALIDATING, MUTATING] {
        let (cluster, _hook) = cluster_with(path, "/deny", &json!({})).await;
        let reply = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await;
        let denied = (403, r#"admission webhook "hook.example.com" denied the request: not today"#.to_owned());
        assert_eq!(reply.failure(), denied);
        assert_eq!(reply.value()["reason"], "Forbidden");
        assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    }
}

#[tokio::test]
async fn deletes_and_collections_are_judged_with_what_goes() {
    let rules = json!([{"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    let cluster = Cluster::new().await;
    let hook = Hook::start().await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({"app": "web"}), "1")).await.ok();
    let selector = json!({"matchLabels": {"app": "web"}});
    let webhook = hook.webhook("/deny", &json!({"rules": rules, "objectSelector": selector}));
    configure(&cluster, VALIDATING, "one", json!([webhook])).await;
    assert_eq!(cluster.delete(&format!("{CONFIG_MAPS}/a")).await.code, 403);
    assert_eq!(cluster.delete(CONFIG_MAPS).await.code, 403);
    let asked = hook.asked("/deny");
    assert_eq!((&asked[0]["object"], &asked[0]["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("a")));
    cluster.delete(&format!("{VALIDATING}/one")).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
}

#[tokio::test]
async fn a_patch_changes_the_object_and_belongs_to_who_asked() {
    let (cluster, _hook) = cluster_with(MUTATING, "/label/tier/front", &json!({})).await;
    let made = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    assert_eq!(made["metadata"]["labels"]["tier"], "front");
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1"}});
    let path = format!("{CONFIG_MAPS}/b?fieldManager=me");
    for _ in 0..2 {
        let object = cluster.patch(&path, "apply", &applied).await.ok();
        assert_eq!(object["metadata"]["labels"]["tier"], "front");
        let managers = object["metadata"]["managedFields"].as_array().unwrap();
        let of = |operation: &str| {
            managers.iter().find(|one| one["operation"] == operation && one["manager"] == "me").unwrap()
        };
        assert!(of("Apply")["fieldsV1"]["f:data"]["f:x"].is_object());
        assert!(of("Apply")["fieldsV1"]["f:metadata"].is_null());
        assert!(of("Update")["fieldsV1"]["f:metadata"]["f:labels"]["f:tier"].is_object(), "{managers:?}");
    }
}

#[tokio::test]
async fn mutating_webhooks_run_in_order_and_once_more_where_asked() {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let count = hook.webhook("/count", &json!({"reinvocationPolicy": "IfNeeded", "name": "count.example.com"}));
    configure(&cluster, MUTATING, "a-first", json!([count])).await;
    configure(&cluster, MUTATING, "b-second", json!([hook.webhook("/label/late/yes", &json!({}))])).await;
    let made = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    assert_eq!(made["metadata"]["labels"], json!({"counted": "n2", "late": "yes"}));
    assert_eq!((hook.asked("/count").len(), hook.asked("/label/late/yes").len()), (2, 1));
}

#[tokio::test]
async fn a_webhook_that_hangs_costs_its_time_and_no_more() {
    for (policy, code) in [("Fail", 500), ("Ignore", 201)] {
        let fields = json!({"timeoutSeconds": 1, "failurePolicy": policy});
        for path in [VALIDATING, MUTATING] {
            let (cluster, _hook) = cluster_with(path, "/stall", &fields).await;
            let start = Instant::now();
            let (own, message) = try_create(&cluster).await;
            assert_eq!(own, code, "{message}");
            assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&start.elapsed()));
            if policy == "Fail" {
                let head = "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: Post";
                assert!(message.starts_with(head) && message.ends_with("context deadline exceeded"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn several_validating_webhooks_wait_together() {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let fields =
        |at: usize| json!({"name": format!("w{at}.example.com"), "timeoutSeconds": 1, "failurePolicy": "Ignore"});
    let webhooks: Vec<Value> = (0..5).map(|at| hook.webhook("/stall", &fields(at))).collect();
    configure(&cluster, VALIDATING, "many", webhooks.into()).await;
    let start = Instant::now();
    assert_eq!(try_create(&cluster).await.0, 201);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn replies_that_make_no_sense_are_failures() {
    let table = [("/prose", "is no JSON"), ("/flood", "is longer than"), ("/wronguid", "expected response.uid=")];
    for (target, part) in table {
        let (cluster, _hook) = cluster_with(VALIDATING, target, &json!({})).await;
        let (code, message) = try_create(&cluster).await;
        assert_eq!(code, 500);
        assert!(message.contains("failed calling webhook \"hook.example.com\"") && message.contains(part), "{message}");
        let (cluster, _hook) = cluster_with(VALIDATING, target, &json!({"failurePolicy": "Ignore"})).await;
        assert_eq!(try_create(&cluster).await.0, 201);
    }
}

#[tokio::test]
async fn patches_that_do_not_fit_are_refused_and_unknown_fields_dropped() {
    let table = [("/badpatch", "nothing at"), ("/rename", "metadata.name may not be changed"), ("/wrongtype", "data")];
    for (target, part) in table {
        let (cluster, _hook) = cluster_with(MUTATING, target, &json!({})).await;
        let (code, message) = try_create(&cluster).await;
        assert_eq!(code, 500, "{message}");
        assert!(message.contains(part), "{message}");
    }
    let (cluster, _hook) = cluster_with(MUTATING, "/unknownfield", &json!({})).await;
    let made = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    assert_eq!(made.get("nonsense"), None);
}

#[tokio::test]
async fn a_certificate_that_the_bundle_does_not_vouch_for_is_a_failure() {
    let (cluster, hook, stranger) = (Cluster::new().await, Hook::start().await, Hook::start().await);
    let mut webhook = hook.webhook("/allow", &json!({}));
    webhook["clientConfig"]["caBundle"] = stranger.bundle.as_str().into();
    configure(&cluster, VALIDATING, "one", json!([webhook])).await;
    let (code, message) = try_create(&cluster).await;
    assert_eq!(code, 500);
    assert!(message.contains("failed to call webhook"), "{message}");
    assert_eq!(hook.asked("/allow").len(), 0);
}

#[tokio::test]
async fn rules_and_selectors_choose_who_is_asked() {
    let table = [
        (
            json!({"rules": [{"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}),
            false,
        ),
        (json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}), true),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": ["*"]}]}),
            false,
        ),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/status"]}]}),
            false,
        ),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "Cluster"}]}),
            false,
        ),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}), true),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["default"]}]}}),
            false,
        ),
        (json!({"objectSelector": {"matchLabels": {"app": "web"}}}), true),
        (json!({"objectSelector": {"matchLabels": {"app": "db"}}}), false),
        (json!({"matchConditions": [{"name": "x", "expression": "object.data.k == '1'"}]}), true),
        (json!({"matchConditions": [{"name": "x", "expression": "request.userInfo.username != 'admin'"}]}), false),
        (
            json!({"matchConditions": [{"name": "x", "expression": "object.missing == 1"}, {"name": "y", "expression": "false"}]}),
            false,
        ),
    ];
    for (fields, meant) in table {
        let (cluster, _hook) = cluster_with(VALIDATING, "/deny", &fields).await;
        let reply = cluster.post(CONFIG_MAPS, &config_map("a", &json!({"app": "web"}), "1")).await;
        assert_eq!(reply.code.as_u16(), if meant { 403 } else { 201 }, "{fields}");
    }
}

#[tokio::test]
async fn conditions_see_the_object_in_the_version_that_the_webhook_asked_for() {
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["*"]}]);
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let target = json!({"type": "Utilization", "averageUtilization": 70});
    let autoscaler = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}});
    for (expression, meant) in [
        ("object.apiVersion == 'autoscaling/v1' && object.spec.targetCPUUtilizationPercentage == 70", true),
        ("request.kind.version == 'v1' && request.requestKind.version == 'v2'", true),
        ("request.resource.version == 'v1' && request.requestResource.version == 'v2'", true),
        ("has(object.spec.metrics)", false),
    ] {
        for configurations in [VALIDATING, MUTATING] {
            let conditions = json!([{"name": "x", "expression": expression}]);
            let fields = json!({"rules": rules, "matchConditions": conditions});
            let (cluster, hook) = cluster_with(configurations, "/allow", &fields).await;
            cluster.post(path, &autoscaler).await.ok();
            assert_eq!(hook.asked("/allow").len(), usize::from(meant), "{expression}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn dear_conditions_do_not_hold_up_other_requests() {
    let numbers = format!("{:?}", (0..1000).collect::<Vec<_>>());
    let expression = format!("{numbers}.all(a, {numbers}.all(b, a + b >= 0))");
    let fields = json!({"matchConditions": [{"name": "x", "expression": expression}], "failurePolicy": "Ignore"});
    let (cluster, _hook) = cluster_with(VALIDATING, "/allow", &fields).await;
    let cluster = std::sync::Arc::new(cluster);
    let (own, begun) = (cluster.clone(), Instant::now());
    let dear = tokio::spawn(async move { try_create(&own).await.0 });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let other = tokio::spawn(async move { cluster.get(CONFIG_MAPS).await.code });
    assert_eq!(other.await.unwrap(), 200);
    let quick = begun.elapsed();
    assert_eq!(dear.await.unwrap(), 201);
    let slow = begun.elapsed();
    assert!(slow > Duration::from_millis(200) && quick * 2 < slow, "{quick:?} {slow:?}");
}

#[tokio::test]
async fn a_condition_that_fails_counts_as_the_policy_says() {
    let condition = json!([{"name": "broken", "expression": "object.missing == 1"}]);
    for (policy, code) in [("Fail", 403), ("Ignore", 201)] {
        let fields = json!({"matchConditions": condition, "failurePolicy": policy});
        let (cluster, hook) = cluster_with(VALIDATING, "/allow", &fields).await;
        assert_eq!(try_create(&cluster).await.0, code);
        assert_eq!(hook.asked("/allow").len(), 0);
    }
}

#[tokio::test]
async fn a_dry_run_reaches_webhooks_that_say_they_have_no_side_effects() {
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    for effects in ["None", "NoneOnDryRun"] {
        let (cluster, hook) = cluster_with(VALIDATING, "/allow", &json!({"sideEffects": effects})).await;
        let reply = cluster.post(&dry, &config_map("a", &json!({}), "1")).await;
        assert_eq!(reply.code.as_u16(), 201);
        assert_eq!(hook.asked("/allow")[0]["dryRun"], true);
        assert_eq!(hook.asked("/allow")[0]["options"]["dryRun"], json!(["All"]));
    }
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let configuration = json!([hook.webhook("/allow", &json!({"sideEffects": "Some"}))]);
    let refused = cluster.post(VALIDATING, &json!({"metadata": {"name": "one"}, "webhooks": configuration})).await;
    assert!(refused.failure().1.contains("webhooks[0].sideEffects"));
}

#[tokio::test]
async fn warnings_ride_in_headers() {
    let (cluster, _hook) = cluster_with(VALIDATING, "/warn", &json!({})).await;
    let reply = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await;
    assert_eq!(reply.headers["warning"], r#"299 - "mind the gap""#);
}

#[tokio::test]
async fn what_configures_webhooks_is_out_of_their_reach() {
    let rules = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    let (cluster, hook) = cluster_with(VALIDATING, "/deny", &json!({"rules": rules})).await;
    assert_eq!(cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.code, 403);
    cluster.delete(&format!("{VALIDATING}/one")).await.ok();
    assert_eq!(try_create(&cluster).await.0, 201);
    assert_eq!(hook.asked("/deny").len(), 1);
}

#[tokio::test]
async fn scale_and_status_are_judged_as_what_they_are() {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let rule = |resource: &str| json!([{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": [resource]}]);
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    configure(
        &cluster,
        VALIDATING,
        "one",
        json!([hook.webhook("/allow", &json!({"rules": rule("deployments/scale")}))]),
    )
    .await;
    configure(
        &cluster,
        VALIDATING,
        "two",
        json!([hook.webhook("/warn", &json!({"rules": rule("deployments/status")}))]),
    )
    .await;
    let path = format!("{DEPLOYMENTS}/web");
    cluster.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": 5}})).await.ok();
    let scale = &hook.asked("/allow")[0];
    assert_eq!((&scale["kind"]["kind"], &scale["object"]["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    assert_eq!((&scale["oldObject"]["spec"]["replicas"], &scale["subResource"]), (&json!(2), &json!("scale")));
    cluster.patch(&format!("{path}/status"), "merge", &json!({"status": {"replicas": 1}})).await.ok();
    assert_eq!(hook.asked("/warn")[0]["subResource"], "status");
    cluster.patch(&path, "merge", &json!({"spec": {"replicas": 6}})).await.ok();
    assert_eq!((hook.asked("/allow").len(), hook.asked("/warn").len()), (1, 1));
}

#[tokio::test]
async fn bindings_and_evictions_are_judged_once() {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let rules = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods/binding", "pods/eviction"]}]);
    cluster.post(PODS, &pod("a", &json!({}))).await.ok();
    configure(&cluster, VALIDATING, "one", json!([hook.webhook("/allow", &json!({"rules": rules}))])).await;
    cluster.post(&format!("{PODS}/a/binding"), &json!({"target": {"name": "alpha"}})).await.ok();
    cluster.post(&format!("{PODS}/a/eviction"), &json!({"metadata": {"name": "a"}})).await.ok();
    let asked = hook.asked("/allow");
    let brief: Vec<_> = asked.iter().map(|one| (&one["operation"], &one["kind"]["kind"])).collect();
    assert_eq!(brief, [(&json!("CREATE"), &json!("Binding")), (&json!("CREATE"), &json!("Eviction"))]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anybody_is_asked() {
    let (cluster, hook) = cluster_with(MUTATING, "/allow", &json!({})).await;
    let reply = cluster.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a", &json!({}), "1")).await;
    assert_eq!(reply.failure(), (404, r#"namespaces "nowhere" not found"#.to_owned()));
    let reply = cluster.post("/api/v1/namespaces/nowhere/pods", &pod("a", &json!({}))).await;
    assert_eq!(reply.failure(), (404, r#"namespaces "nowhere" not found"#.to_owned()));
    assert_eq!(hook.asked("/allow").len(), 0);
}

#[tokio::test]
async fn a_configuration_that_could_never_work_is_refused() {
    let (cluster, hook) = (Cluster::new().await, Hook::start().await);
    let plain = hook.webhook("/allow", &json!({"clientConfig": {"url": "http://example.com/"}}));
    let broken = hook.webhook("/allow", &json!({"matchConditions": [{"name": "x", "expression": "object."}]}));
    for (webhook, field) in [(plain, "webhooks[0].clientConfig"), (broken, "webhooks[0].matchConditions[0].expression")]
    {
        let (code, message) =
            cluster.post(VALIDATING, &json!({"metadata": {"name": "x"}, "webhooks": [webhook]})).await.failure();
        assert_eq!(code, 422);
        assert!(message.contains(field), "{message}");
    }
}
