//! What a quota says is used is what there is, whoever made or removed it and whatever crashed meanwhile: the server counts in
//! the transaction of each write, so that no controller has to count again.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use shipway_sim::{Cluster, Part};

use super::{MINUTE, seconds};

fn quota(hard: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}})
}

fn generous() -> Value {
    json!({"pods": "100", "requests.cpu": "100", "configmaps": "100", "count/jobs.batch": "100", "count/pods": "1000"})
}

fn template(app: &str, more: &Value) -> Value {
    let mut spec =
        json!({"containers": [{"name": "main", "image": "app:1", "resources": {"requests": {"cpu": "100m"}}}]});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"labels": {"app": app}, "annotations": {"sim/exit": "0", "sim/after": "5s"}}, "spec": spec})
}

fn deployment(replicas: u32) -> Value {
    let mut template = template("web", &json!({}));
    template["metadata"]["annotations"] = json!({});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"completions": 3, "parallelism": 3, "template": template(name, &json!({"restartPolicy": "Never"}))},
    })
}

async fn used(cluster: &Cluster) -> BTreeMap<String, Quantity> {
    let quota: ResourceQuota = cluster.get("q").await.unwrap();
    quota.status.unwrap().used.unwrap()
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// What the objects that are there amount to, for what [`generous`] names.
async fn counted(cluster: &Cluster) -> BTreeMap<String, Quantity> {
    let pods: Vec<Pod> = cluster.pods("").await;
    let live = pods.iter().filter(|pod| !is_over(pod)).count();
    let maps = cluster.list::<ConfigMap>("default", "").await.len();
    let jobs = cluster.list::<Job>("default", "").await.len();
    let cpu = if live % 10 == 0 { format!("{}", live / 10) } else { format!("{}m", live * 100) };
    let amounts = [
        ("pods", live.to_string()),
        ("requests.cpu", cpu),
        ("configmaps", maps.to_string()),
        ("count/jobs.batch", jobs.to_string()),
        ("count/pods", pods.len().to_string()),
    ];
    amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect()
}

#[test]
fn pods_that_are_over_or_collected_are_given_back() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(quota(&generous())).await;
        cluster.apply(deployment(4)).await;
        cluster.apply(job("sums")).await;
        let over =
            async |cluster: &Cluster| cluster.pods("app=sums").await.iter().filter(|pod| is_over(pod)).count() == 3;
        cluster.until("the job's pods are over", MINUTE, over).await;
        cluster.settle().await;
        let now = used(&cluster).await;
        assert_eq!((&now["pods"].0[..], &now["requests.cpu"].0[..], &now["count/pods"].0[..]), ("4", "400m", "7"));
        assert_eq!(now, counted(&cluster).await);
        cluster.delete::<Deployment>("web").await;
        cluster.delete_with::<Job>("sums", json!({"propagationPolicy": "Background"})).await;
        cluster.settle().await;
        assert!(cluster.pods("").await.is_empty());
        let now = used(&cluster).await;
        assert_eq!((&now["pods"].0[..], &now["requests.cpu"].0[..], &now["count/pods"].0[..]), ("0", "0", "0"));
        assert_eq!(now, counted(&cluster).await);
    });
}

#[test]
fn a_quota_whose_limits_change_counts_what_is_there() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(deployment(3)).await;
        cluster.settle().await;
        cluster.apply(quota(&json!({"pods": "2"}))).await;
        assert_eq!(used(&cluster).await["pods"].0, "3", "more than there may be, and nobody is sent away");
        cluster.scale::<Deployment>("web", 5).await;
        cluster.always("no pod comes", MINUTE, async |cluster| cluster.pods("app=web").await.len() <= 3).await;
        cluster.apply(quota(&generous())).await;
        // Who was refused tries again; no limit that goes up wakes it.
        cluster.until("all five are there", MINUTE * 2, async |cluster| cluster.pods("app=web").await.len() == 5).await;
        cluster.settle().await;
        assert_eq!(used(&cluster).await, counted(&cluster).await);
        cluster.apply(quota(&json!({"secrets": "5"}))).await;
        let secrets = cluster.list::<Secret>("default", "").await.len();
        assert_eq!(used(&cluster).await, BTreeMap::from([("secrets".to_owned(), Quantity(secrets.to_string()))]));
    });
}

#[test]
fn a_count_survives_crashes_between_any_two_writes() {
    for seed in 1..=4 {
        Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
            cluster.apply(quota(&generous())).await;
            cluster.apply(deployment(1)).await;
            for round in 0..8 {
                cluster.scale::<Deployment>("web", fastrand::i32(0..8)).await;
                cluster.apply(job(&format!("job-{round}"))).await;
                if round > 1 {
                    let name = format!("job-{}", round - 2);
                    cluster.delete_with::<Job>(&name, json!({"propagationPolicy": "Background"})).await;
                }
                cluster.run_for(std::time::Duration::from_millis(fastrand::u64(1..3000))).await;
                let part = [Part::ApiServer, Part::Controllers, Part::Scheduler][fastrand::usize(0..3)];
                cluster.restart(part).await;
                assert_eq!(used(&cluster).await.len(), 5);
            }
            cluster.run_for(seconds(60)).await;
            cluster.settle().await;
            assert_eq!(used(&cluster).await, counted(&cluster).await, "seed {seed}");
        });
    }
}
