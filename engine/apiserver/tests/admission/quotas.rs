//! Quotas: never exceeded, given back, and right after whatever happened.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, PODS, SERVICES, config_map, deployment, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

async fn limit(cluster: &Cluster, spec: &Value) -> Value {
    cluster.post(QUOTAS, &json!({"metadata": {"name": "q"}, "spec": spec})).await.ok()
}

async fn used(cluster: &Cluster) -> Value {
    cluster.get(&format!("{QUOTAS}/q")).await.ok()["status"]["used"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_creators_at_once_get_what_the_quota_holds() {
    let cluster = Arc::new(Cluster::new().await);
    limit(&cluster, &json!({"hard": {"pods": "10"}})).await;
    let tries = (0..50).map(|at| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.post(PODS, &pod(&format!("p{at}"), &json!({}))).await.code.as_u16() })
    });
    let codes: Vec<u16> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 403)), "{codes:?}");
    assert_eq!(used(&cluster).await, json!({"pods": "10"}));
    let there = cluster.get(PODS).await.ok();
    let names = there["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
    let deletes = names.take(4).map(async |name| cluster.delete(&format!("{PODS}/{name}")).await.ok());
    join_all(deletes).await;
    assert_eq!(used(&cluster).await, json!({"pods": "6"}));
    cluster.post(PODS, &pod("again", &json!({}))).await.ok();
    assert_eq!(used(&cluster).await, json!({"pods": "7"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quota_counts_those_who_were_on_their_way_when_it_came() {
    for _ in 0..5 {
        let cluster = Arc::new(Cluster::new().await);
        let creates = (0..30).map(|at| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                cluster.post(CONFIG_MAPS, &config_map(&format!("m{at}"), &json!({}), "1")).await.code.is_success()
            })
        });
        let creates: Vec<_> = creates.collect();
        let hard = json!({"hard": {"configmaps": "1000"}});
        let (made, _) = tokio::join!(join_all(creates), limit(&cluster, &hard));
        assert!(made.into_iter().all(Result::unwrap));
        let there = cluster.get(CONFIG_MAPS).await.ok()["items"].as_array().unwrap().len();
        assert_eq!(used(&cluster).await, json!({"configmaps": there.to_string()}));
    }
}

#[tokio::test]
async fn what_is_there_already_counts_and_a_restart_counts_again() {
    let cluster = Cluster::new().await;
    for at in 0..3 {
        cluster.post(CONFIG_MAPS, &config_map(&format!("m{at}"), &json!({}), "1")).await.ok();
    }
    let quota = limit(&cluster, &json!({"hard": {"configmaps": "3", "count/secrets": "1"}})).await;
    let status =
        json!({"hard": {"configmaps": "3", "count/secrets": "1"}, "used": {"configmaps": "3", "count/secrets": "0"}});
    assert_eq!(quota["status"], status);
    let (code, message) = cluster.post(CONFIG_MAPS, &config_map("more", &json!({}), "1")).await.failure();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"configmaps "more" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"#
    );
    let dir = cluster.close().await;
    let cluster = Cluster::at(dir).await;
    assert_eq!(used(&cluster).await, status["used"]);
    cluster.delete(&format!("{CONFIG_MAPS}/m0")).await.ok();
    assert_eq!(used(&cluster).await["configmaps"], "2");
}

#[tokio::test]
async fn nobody_but_the_server_says_what_is_used() {
    let cluster = Cluster::new().await;
    limit(&cluster, &json!({"hard": {"configmaps": "1"}})).await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let lie = json!({"status": {"used": {"configmaps": "0"}}});
    cluster.patch(&format!("{QUOTAS}/q/status"), "merge", &lie).await.ok();
    assert_eq!(used(&cluster).await, json!({"configmaps": "1"}));
    assert_eq!(cluster.post(CONFIG_MAPS, &config_map("b", &json!({}), "1")).await.code, 403);
    let more = cluster
        .patch(&format!("{QUOTAS}/q"), "merge", &json!({"spec": {"hard": {"configmaps": "2", "pods": "5"}}}))
        .await
        .ok();
    assert_eq!(more["status"]["used"], json!({"configmaps": "1", "pods": "0"}));
    cluster.post(CONFIG_MAPS, &config_map("b", &json!({}), "1")).await.ok();
    assert_eq!(cluster.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("c", &json!({}), "1")).await.code, 403);
}

fn sized(name: &str, requests: &Value, limits: &Value) -> Value {
    let mut pod = pod(name, &json!({}));
    pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
    pod
}

#[tokio::test]
async fn amounts_are_counted_and_have_to_be_said() {
    let cluster = Cluster::new().await;
    limit(&cluster, &json!({"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}})).await;
    let (code, message) = cluster.post(PODS, &pod("a", &json!({}))).await.failure();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"pods "a" is forbidden: failed quota: q: must specify limits.memory for: main; requests.cpu for: main"#
    );
    cluster.post(PODS, &sized("a", &json!({"cpu": "600m"}), &json!({"memory": "256Mi"}))).await.ok();
    assert_eq!(used(&cluster).await, json!({"limits.memory": "256Mi", "requests.cpu": "600m"}));
    let (_, message) =
        cluster.post(PODS, &sized("b", &json!({"cpu": "500m"}), &json!({"memory": "256Mi"}))).await.failure();
    assert!(
        message.ends_with(
            "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
        ),
        "{message}"
    );
    let over = json!({"status": {"phase": "Succeeded"}});
    cluster.patch(&format!("{PODS}/a/status"), "merge", &over).await.ok();
    assert_eq!(used(&cluster).await, json!({"limits.memory": "0", "requests.cpu": "0"}));
    cluster.post(PODS, &sized("b", &json!({"cpu": "500m"}), &json!({"memory": "256Mi"}))).await.ok();
}

#[tokio::test]
async fn an_update_pays_the_difference() {
    let cluster = Cluster::new().await;
    limit(&cluster, &json!({"hard": {"services": "5", "services.nodeports": "1"}})).await;
    let service =
        |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    cluster.post(SERVICES, &service("one", "ClusterIP")).await.ok();
    let before = used(&cluster).await["services"].as_str().unwrap().parse::<u32>().unwrap();
    cluster.patch(&format!("{SERVICES}/one"), "merge", &json!({"spec": {"type": "NodePort"}})).await.ok();
    assert_eq!(used(&cluster).await["services.nodeports"], "1");
    assert_eq!(cluster.post(SERVICES, &service("two", "NodePort")).await.code, 403);
    cluster.patch(&format!("{SERVICES}/one"), "merge", &json!({"spec": {"type": "ClusterIP"}})).await.ok();
    assert_eq!(used(&cluster).await, json!({"services": before.to_string(), "services.nodeports": "0"}));
    cluster.post(SERVICES, &service("two", "NodePort")).await.ok();
}

#[tokio::test]
async fn scopes_choose_which_pods_count() {
    let cluster = Cluster::new().await;
    limit(&cluster, &json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]})).await;
    cluster.post(PODS, &pod("idle", &json!({}))).await.ok();
    assert_eq!(cluster.post(PODS, &pod("idle-too", &json!({}))).await.code, 403);
    cluster.post(PODS, &sized("busy", &json!({"cpu": "1"}), &json!({}))).await.ok();
    assert_eq!(used(&cluster).await, json!({"pods": "1"}));
}

#[tokio::test]
async fn quotas_count_quotas_and_go_with_themselves() {
    let cluster = Cluster::new().await;
    let quota = limit(&cluster, &json!({"hard": {"resourcequotas": "1"}})).await;
    assert_eq!(quota["status"]["used"], json!({"resourcequotas": "1"}));
    let second = json!({"metadata": {"name": "r"}, "spec": {"hard": {}}});
    assert_eq!(cluster.post(QUOTAS, &second).await.code, 403);
    cluster.delete(&format!("{QUOTAS}/q")).await.ok();
    cluster.post(QUOTAS, &second).await.ok();
}

#[tokio::test]
async fn kinds_ports_and_claims_are_counted_by_their_names() {
    let cluster = Cluster::new().await;
    let gold = "gold.storageclass.storage.k8s.io";
    let hard = json!({
        "count/deployments.apps": "1", "services.loadbalancers": "1", "services.nodeports": "3",
        "persistentvolumeclaims": "3", "requests.storage": "10Gi",
        "gold.storageclass.storage.k8s.io/requests.storage": "4Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
    });
    limit(&cluster, &json!({ "hard": hard })).await;
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let (code, message) = cluster.post(DEPLOYMENTS, &deployment("other")).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.ends_with(
            "requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1"
        ),
        "{message}"
    );

    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    cluster.post(SERVICES, &service("lb", json!({"type": "LoadBalancer", "ports": ports}))).await.ok();
    let counted = used(&cluster).await;
    assert_eq!((&counted["services.loadbalancers"], &counted["services.nodeports"]), (&json!("1"), &json!("2")));
    assert_eq!(
        cluster.post(SERVICES, &service("lb2", json!({"type": "LoadBalancer", "ports": [{"port": 80}]}))).await.code,
        403
    );
    let plain = json!({"spec": {"type": "ClusterIP"}});
    cluster.patch(&format!("{SERVICES}/lb"), "merge", &plain).await.ok();
    let counted = used(&cluster).await;
    assert_eq!((&counted["services.loadbalancers"], &counted["services.nodeports"]), (&json!("0"), &json!("0")));

    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, class: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": class,
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    cluster.post(claims, &claim("a", "gold", "3Gi")).await.ok();
    cluster.post(claims, &claim("b", "tin", "5Gi")).await.ok();
    assert_eq!(cluster.post(claims, &claim("c", "gold", "1Gi")).await.code, 403, "one claim of that class");
    assert_eq!(cluster.post(claims, &claim("c", "tin", "3Gi")).await.code, 403, "ten of all");
    let counted = used(&cluster).await;
    assert_eq!((&counted["requests.storage"], &counted["persistentvolumeclaims"]), (&json!("8Gi"), &json!("2")));
    let of_gold = (&counted[&format!("{gold}/requests.storage")], &counted[&format!("{gold}/persistentvolumeclaims")]);
    assert_eq!(of_gold, (&json!("3Gi"), &json!("1")));
    cluster.delete(&format!("{claims}/a?gracePeriodSeconds=0")).await.ok();
}

#[tokio::test]
async fn every_scope_takes_in_its_pods() {
    let class = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let table = [
        (json!({"scopes": ["BestEffort"]}), ["idle", "ends", "high"].as_slice()),
        (json!({"scopes": ["NotBestEffort"]}), &["busy"]),
        (json!({"scopes": ["Terminating"]}), &["ends"]),
        (json!({"scopes": ["NotTerminating"]}), &["busy", "high", "idle"]),
        (json!({"scopes": ["BestEffort", "NotTerminating"]}), &["high", "idle"]),
        (class("In", json!(["high", "other"])), &["high"]),
        (class("NotIn", json!(["high"])), &["busy", "ends", "idle"]),
        (class("Exists", Value::Null), &["high"]),
        (class("DoesNotExist", Value::Null), &["busy", "ends", "idle"]),
    ];
    let cluster = Cluster::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    cluster.post(classes, &json!({"metadata": {"name": "high"}, "value": 1000})).await.ok();
    for (at, (scope, _)) in table.iter().enumerate() {
        let mut spec = scope.clone();
        spec["hard"] = json!({"pods": "10"});
        if let Some(one) = spec.pointer_mut("/scopeSelector/matchExpressions/0").and_then(Value::as_object_mut) {
            one.retain(|_, value| !value.is_null());
        }
        cluster.post(QUOTAS, &json!({"metadata": {"name": format!("q{at}")}, "spec": spec})).await.ok();
    }
    let mut ends = pod("ends", &json!({}));
    ends["spec"]["activeDeadlineSeconds"] = 60.into();
    let mut high = pod("high", &json!({}));
    high["spec"]["priorityClassName"] = "high".into();
    for one in [pod("idle", &json!({})), sized("busy", &json!({"cpu": "1"}), &json!({})), ends, high] {
        cluster.post(PODS, &one).await.ok();
    }
    let counted =
        async |at: usize| cluster.get(&format!("{QUOTAS}/q{at}")).await.ok()["status"]["used"]["pods"].clone();
    for (at, (scope, pods)) in table.iter().enumerate() {
        assert_eq!(counted(at).await, pods.len().to_string(), "{scope}");
    }
    // A pod that gets a deadline moves from one scope to the other.
    cluster.patch(&format!("{PODS}/idle"), "merge", &json!({"spec": {"activeDeadlineSeconds": 30}})).await.ok();
    assert_eq!((counted(2).await, counted(3).await), (json!("2"), json!("2")));
    for name in ["idle", "busy", "ends", "high"] {
        let over = json!({"status": {"phase": "Failed"}});
        cluster.patch(&format!("{PODS}/{name}/status"), "merge", &over).await.ok();
    }
    for at in 0..table.len() {
        assert_eq!(counted(at).await, "0", "what is over counts no more");
    }
}

#[tokio::test]
async fn storage_of_the_node_is_counted() {
    let cluster = Cluster::new().await;
    let hard = json!({"requests.ephemeral-storage": "2Gi", "limits.ephemeral-storage": "4Gi", "requests.example.com/gpu": "1"});
    limit(&cluster, &json!({ "hard": hard })).await;
    let own = sized(
        "a",
        &json!({"ephemeral-storage": "1Gi", "example.com/gpu": "1"}),
        &json!({"ephemeral-storage": "3Gi", "example.com/gpu": "1"}),
    );
    cluster.post(PODS, &own).await.ok();
    let counted = json!({"limits.ephemeral-storage": "3Gi", "requests.ephemeral-storage": "1Gi", "requests.example.com/gpu": "1"});
    assert_eq!(used(&cluster).await, counted);
    let more = sized("b", &json!({"ephemeral-storage": "1Gi"}), &json!({"ephemeral-storage": "2Gi"}));
    let (code, message) = cluster.post(PODS, &more).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.contains("requested: limits.ephemeral-storage=2Gi, used: limits.ephemeral-storage=3Gi"),
        "{message}"
    );
}
