//! Evictions and the budgets that they keep to.

use serde_json::{Value, json};

use shipway_apiserver::Identity;

use crate::common::{Cluster, PODS, Reply, pod, request};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A running pod of an app.
async fn running(cluster: &Cluster, name: &str, ready: &str) {
    cluster.post(PODS, &pod(name, &json!({"app": "web"}))).await.ok();
    cluster.post(&format!("{PODS}/{name}/binding"), &json!({"target": {"name": "alpha"}})).await.ok();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    cluster.patch(&format!("{PODS}/{name}/status"), "merge", &status).await.ok();
}

/// A budget as its controller has found it.
async fn budget(cluster: &Cluster, name: &str, allowed: i64, healthy: i64, fields: &Value) {
    let mut spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    cluster.post(BUDGETS, &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": 1, "expectedPods": 2}});
    cluster.patch(&format!("{BUDGETS}/{name}/status"), "merge", &status).await.ok();
}

async fn evict(cluster: &Cluster, name: &str) -> Reply {
    cluster.post(&format!("{PODS}/{name}/eviction"), &json!({"metadata": {"name": name}})).await
}

#[tokio::test]
async fn a_budget_lets_as_many_go_as_it_says() {
    let cluster = Cluster::new().await;
    for name in ["a", "b"] {
        running(&cluster, name, "True").await;
    }
    budget(&cluster, "q", 1, 2, &json!({})).await;
    let dry = format!("{PODS}/a/eviction?dryRun=All");
    cluster.post(&dry, &json!({})).await.ok();
    let before = cluster.get(&format!("{BUDGETS}/q")).await.ok();
    assert_eq!(before["status"]["disruptionsAllowed"], 1, "a dry run takes nothing");
    evict(&cluster, "a").await.ok();
    let after = cluster.get(&format!("{BUDGETS}/q")).await.ok();
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
    assert!(after["status"]["disruptedPods"]["a"].is_string());
    let reply = evict(&cluster, "b").await;
    let message = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
    assert_eq!(reply.failure(), (429, message));
    let cause = json!([{"reason": "DisruptionBudget", "message": "The disruption budget q needs 1 healthy pods and has 2 currently"}]);
    assert_eq!(reply.value()["details"]["causes"], cause);
    assert!(reply.headers.get("retry-after").is_none(), "clients ask again when they like");
    assert_eq!(evict(&cluster, "a").await.code, 201, "what is going already may go");
    assert_eq!(cluster.delete(&format!("{PODS}/b")).await.code, 200, "a deletion asks nobody");
}

#[tokio::test]
async fn an_evicted_pod_says_so() {
    let cluster = Cluster::new().await;
    for name in ["a", "b"] {
        running(&cluster, name, "True").await;
    }
    let said = async |name: &str| {
        let conditions = cluster.get(&format!("{PODS}/{name}")).await.ok()["status"]["conditions"].clone();
        let mut all = conditions.as_array().unwrap().clone().into_iter();
        (all.len(), all.find(|one| one["type"] == "DisruptionTarget"))
    };
    cluster.post(&format!("{PODS}/a/eviction?dryRun=All"), &json!({})).await.ok();
    assert_eq!(said("a").await, (1, None));
    evict(&cluster, "a").await.ok();
    evict(&cluster, "a").await.ok();
    let (count, said_of_a) = said("a").await;
    let told = said_of_a.unwrap();
    assert_eq!((count, &told["status"], &told["reason"]), (2, &json!("True"), &json!("EvictionByEvictionAPI")));
    assert!(told["lastTransitionTime"].is_string());
    cluster.delete(&format!("{PODS}/b")).await.ok();
    assert_eq!(said("b").await, (1, None), "who is only deleted is not evicted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_evictions_never_share_one_disruption() {
    let cluster = Cluster::new().await;
    let names: Vec<String> = (0..8).map(|at| format!("p{at}")).collect();
    for name in &names {
        running(&cluster, name, "True").await;
    }
    budget(&cluster, "q", 3, 8, &json!({})).await;
    let codes = futures::future::join_all(names.iter().map(|name| evict(&cluster, name))).await;
    let codes: Vec<u16> = codes.iter().map(|reply| reply.code.as_u16()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 3, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 429)), "{codes:?}");
}

#[tokio::test]
async fn pods_that_serve_nobody_go_as_the_budget_says() {
    let table = [
        (0, 1, json!({}), 201),
        (0, 0, json!({}), 429),
        (0, 0, json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}), 201),
        (0, 1, json!({"selector": {"matchLabels": {"app": "other"}}}), 201),
    ];
    for (allowed, healthy, fields, code) in table {
        let cluster = Cluster::new().await;
        running(&cluster, "a", "False").await;
        budget(&cluster, "q", allowed, healthy, &fields).await;
        assert_eq!(evict(&cluster, "a").await.code, code, "{fields} {healthy}");
    }
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("pending", &json!({"app": "web"}))).await.ok();
    budget(&cluster, "q", 0, 0, &json!({})).await;
    evict(&cluster, "pending").await.ok();
}

#[tokio::test]
async fn what_nobody_has_counted_yet_or_twice_is_refused() {
    let cluster = Cluster::new().await;
    running(&cluster, "a", "True").await;
    let spec = json!({"minAvailable": 1, "selector": {}});
    cluster.post(BUDGETS, &json!({"metadata": {"name": "new"}, "spec": spec})).await.ok();
    let reply = evict(&cluster, "a").await;
    assert_eq!((reply.code.as_u16(), &reply.value()["details"]["retryAfterSeconds"]), (429, &json!(10)));
    budget(&cluster, "q", 1, 2, &json!({})).await;
    let several = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!(evict(&cluster, "a").await.failure(), (500, several.to_owned()));
    let other = cluster.post(&format!("{PODS}/a/eviction"), &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(other.failure(), (400, "name in URL does not match name in Eviction object".to_owned()));
}

#[tokio::test]
async fn a_node_spends_no_budget_of_pods_that_run_elsewhere() {
    let cluster = Cluster::new().await;
    running(&cluster, "a", "True").await;
    budget(&cluster, "q", 1, 2, &json!({})).await;
    let body = json!({"metadata": {"name": "a"}}).to_string();
    let ask = |node: &str| {
        let asked = request("POST", &format!("{PODS}/a/eviction"), "application/json", body.clone());
        cluster.send(Identity::node(node), asked)
    };
    assert_eq!(ask("beta").await.code, 403);
    let untouched = cluster.get(&format!("{BUDGETS}/q")).await.ok();
    assert_eq!(untouched["status"]["disruptionsAllowed"], 1);
    assert_eq!(ask("alpha").await.code, 201);
}
