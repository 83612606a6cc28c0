//! What the documentation says of deployments, replica sets and replication controllers.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, ReplicationController};
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::{Cluster, NodeOptions, Part};

const MINUTE: Duration = Duration::from_mins(1);

/// A deployment `web` of `replicas` pods of `image`; `more` is merged into its specification.
#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn web(replicas: i32, image: &str, more: Value) -> Value {
    let mut spec = json!({
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": {"sim/ready-after": "1s"}},
            "spec": {"containers": [{"name": "main", "image": image}]},
        },
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn set(kind: &str, name: &str, replicas: i32, labels: &Value) -> Value {
    let (version, selector) = match kind {
        "ReplicaSet" => ("apps/v1", json!({"matchLabels": labels})),
        _ => ("v1", labels.clone()),
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": selector, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "app:1"}]}}}})
}

fn rolling(surge: &Value, unavailable: &Value) -> Value {
    json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}})
}

async fn deployment(cluster: &Cluster) -> Deployment {
    cluster.get("web").await.unwrap()
}

async fn condition(cluster: &Cluster, kind: &str) -> Option<DeploymentCondition> {
    let conditions = deployment(cluster).await.status?.conditions?;
    conditions.into_iter().find(|condition| condition.type_ == kind)
}

async fn reason(cluster: &Cluster, kind: &str) -> String {
    let found = condition(cluster, kind).await;
    found.map_or_else(String::new, |it| format!("{} {}", it.status, it.reason.unwrap_or_default()))
}

async fn available(cluster: &Cluster) -> usize {
    cluster.pods("app=web").await.iter().filter(|pod| is_ready(pod)).count()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

fn images(pods: &[Pod]) -> Vec<String> {
    let mut images: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect();
    images.sort();
    images
}

async fn sizes(cluster: &Cluster) -> Vec<(String, i32)> {
    let sets: Vec<ReplicaSet> = cluster.list("default", "").await;
    let mut sizes: Vec<_> = sets
        .iter()
        .map(|set| {
            let spec = set.spec.as_ref().unwrap();
            let image = spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            (image, spec.replicas.unwrap())
        })
        .collect();
    sizes.sort();
    sizes
}

#[test]
fn surge_and_unavailability_bound_every_step_of_a_rollout() {
    // Pods, surge, unavailable; then the most there may be and the fewest that must be ready.
    let table = [
        (4, json!(1), json!(0), 5, 4),
        (4, json!(0), json!(1), 4, 3),
        (3, json!("100%"), json!(0), 6, 3),
        (10, json!("25%"), json!("25%"), 13, 8),
        (3, json!("1%"), json!("1%"), 4, 3),
        (2, json!(0), json!("100%"), 2, 0),
    ];
    for (replicas, surge, unavailable, most, fewest) in table {
        Cluster::builder().nodes(2).run(async |cluster| {
            let way = rolling(&surge, &unavailable);
            cluster.apply(web(replicas, "app:1", way.clone())).await;
            cluster.settle().await;
            cluster.apply(web(replicas, "app:2", way)).await;
            let within = async |cluster: &Cluster| {
                let there = cluster.pods("app=web").await;
                let active = there.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
                active <= most && available(cluster).await >= fewest
            };
            cluster.always("within its bounds", MINUTE, within).await;
            let pods = cluster.pods("app=web").await;
            assert_eq!(images(&pods), vec!["app:2"; usize::try_from(replicas).unwrap()], "{surge} {unavailable}");
        });
    }
}

#[test]
fn recreate_has_never_two_versions_at_once() {
    Cluster::builder().run(async |cluster| {
        let way = json!({"strategy": {"type": "Recreate"}});
        cluster.apply(web(3, "app:1", way.clone())).await;
        cluster.settle().await;
        cluster.apply(web(3, "app:2", way)).await;
        let one = async |cluster: &Cluster| {
            let mut images = images(&cluster.pods("app=web").await);
            images.dedup();
            images.len() <= 1
        };
        cluster.always("one version", MINUTE, one).await;
        assert_eq!(images(&cluster.pods("app=web").await), ["app:2"; 3]);
    });
}

#[test]
fn a_new_version_that_never_works_stops_the_rollout_and_exceeds_its_deadline() {
    Cluster::builder().run(async |cluster| {
        let way = json!({"progressDeadlineSeconds": 60});
        cluster.apply(web(4, "app:1", way.clone())).await;
        cluster.settle().await;
        let mut broken = web(4, "app:2", way);
        broken["spec"]["template"]["metadata"]["annotations"] = json!({"sim/ready-after": "10h"});
        cluster.apply(broken).await;
        let serving = async |cluster: &Cluster| available(cluster).await >= 3;
        cluster.always("the former version serves", Duration::from_secs(50), serving).await;
        assert_eq!(reason(&cluster, "Progressing").await, "True ReplicaSetUpdated");
        cluster.always("and goes on serving", MINUTE, serving).await;
        assert_eq!(reason(&cluster, "Progressing").await, "False ProgressDeadlineExceeded");
        assert_eq!(reason(&cluster, "Available").await, "True MinimumReplicasAvailable");
        // The way back is another change of the template.
        cluster.apply(web(4, "app:1", json!({"progressDeadlineSeconds": 60}))).await;
        cluster.settle().await;
        assert_eq!(reason(&cluster, "Progressing").await, "True NewReplicaSetAvailable");
        assert_eq!(images(&cluster.pods("app=web").await), ["app:1"; 4]);
    });
}

#[test]
fn a_former_template_brings_its_replica_set_back_with_a_new_number() {
    Cluster::builder().run(async |cluster| {
        for image in ["app:1", "app:2", "app:1"] {
            cluster.apply(web(2, image, json!({}))).await;
            cluster.settle().await;
        }
        assert_eq!(sizes(&cluster).await, [("app:1".to_owned(), 2), ("app:2".to_owned(), 0)]);
        let sets: Vec<ReplicaSet> = cluster.list("default", "").await;
        let mut numbers: Vec<_> =
            sets.iter().map(|set| set.annotations()["deployment.kubernetes.io/revision"].clone()).collect();
        numbers.sort();
        assert_eq!(numbers, ["2", "3"]);
        assert_eq!(deployment(&cluster).await.annotations()["deployment.kubernetes.io/revision"], "3");
    });
}

#[test]
fn no_more_old_revisions_are_kept_than_asked_for() {
    Cluster::builder().run(async |cluster| {
        for version in 0..6 {
            cluster.apply(web(1, &format!("app:{version}"), json!({"revisionHistoryLimit": 2}))).await;
            cluster.settle().await;
        }
        let images: Vec<_> = sizes(&cluster).await.into_iter().map(|(image, _)| image).collect();
        assert_eq!(images, ["app:3", "app:4", "app:5"]);
    });
}

#[test]
fn a_paused_deployment_scales_and_rolls_out_nothing_until_it_goes_on() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(2, "app:1", json!({}))).await;
        cluster.settle().await;
        cluster.apply(web(4, "app:2", json!({"paused": true}))).await;
        cluster.settle().await;
        assert_eq!(images(&cluster.pods("app=web").await), ["app:1"; 4]);
        assert_eq!(reason(&cluster, "Progressing").await, "Unknown DeploymentPaused");
        cluster.apply(web(4, "app:2", json!({"paused": false}))).await;
        cluster.settle().await;
        assert_eq!(images(&cluster.pods("app=web").await), ["app:2"; 4]);
        assert_eq!(reason(&cluster, "Progressing").await, "True NewReplicaSetAvailable");
    });
}

#[test]
fn a_change_of_size_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    Cluster::builder().run(async |cluster| {
        let way = rolling(&json!(3), &json!(2));
        cluster.apply(web(10, "app:1", way.clone())).await;
        cluster.settle().await;
        let mut stuck = web(10, "app:2", way.clone());
        stuck["spec"]["template"]["metadata"]["annotations"] = json!({"sim/ready-after": "10h"});
        cluster.apply(stuck.clone()).await;
        cluster.settle().await;
        assert_eq!(sizes(&cluster).await, [("app:1".to_owned(), 8), ("app:2".to_owned(), 5)]);
        stuck["spec"]["replicas"] = json!(15);
        cluster.apply(stuck).await;
        cluster.settle().await;
        assert_eq!(sizes(&cluster).await, [("app:1".to_owned(), 11), ("app:2".to_owned(), 7)]);
    });
}

#[test]
fn a_pod_counts_as_available_only_after_it_was_ready_for_long_enough() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(1, "app:1", json!({"minReadySeconds": 30}))).await;
        cluster.run_for(Duration::from_secs(20)).await;
        let status = deployment(&cluster).await.status.unwrap();
        assert_eq!((status.ready_replicas, status.available_replicas.unwrap_or(0)), (Some(1), 0));
        cluster.run_for(Duration::from_secs(20)).await;
        assert_eq!(deployment(&cluster).await.status.unwrap().available_replicas, Some(1));
        // Asking for less does not begin a new revision.
        cluster.apply(web(1, "app:1", json!({"minReadySeconds": 5}))).await;
        cluster.settle().await;
        let sets: Vec<ReplicaSet> = cluster.list("default", "").await;
        assert_eq!(sets.len(), 1);
        assert_eq!(sets[0].spec.as_ref().unwrap().min_ready_seconds, Some(5));
    });
}

#[test]
fn what_a_quota_refuses_is_told_and_made_later() {
    Cluster::builder().run(async |cluster| {
        cluster
            .apply(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
            "spec": {"hard": {"pods": "2"}}}))
            .await;
        cluster.settle().await;
        cluster.apply(web(3, "app:1", json!({}))).await;
        cluster.run_for(Duration::from_secs(30)).await;
        assert_eq!(cluster.pods("app=web").await.len(), 2);
        assert_eq!(reason(&cluster, "ReplicaFailure").await, "True FailedCreate");
        let told: Vec<Event> = cluster.list("default", "").await;
        let failed = told.iter().find(|event| event.reason.as_deref() == Some("FailedCreate")).unwrap();
        assert!(failed.message.as_ref().unwrap().contains("exceeded quota: few"), "{:?}", failed.message);
        cluster
            .apply(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
            "spec": {"hard": {"pods": "9"}}}))
            .await;
        cluster.until("all are there", Duration::from_mins(20), async |cluster| available(cluster).await == 3).await;
        cluster.settle().await;
        assert_eq!(condition(&cluster, "ReplicaFailure").await, None);
    });
}

#[test]
fn two_kinds_keep_a_number_of_pods() {
    for kind in ["ReplicaSet", "ReplicationController"] {
        Cluster::builder().run(async |cluster| {
            cluster.apply(set(kind, "web", 3, &json!({"app": "web"}))).await;
            cluster.settle().await;
            let before = cluster.pods("app=web").await;
            assert_eq!(before.len(), 3, "{kind}");
            cluster.delete::<Pod>(&before[0].name_any()).await;
            cluster.settle().await;
            assert_eq!(available(&cluster).await, 3, "{kind}");
            let fewer = async |replicas| {
                let spec = json!({"spec": {"replicas": replicas}});
                match kind {
                    "ReplicaSet" => cluster.patch::<ReplicaSet>("web", spec).await,
                    _ => cluster.patch::<ReplicationController>("web", spec).await,
                }
            };
            fewer(1).await;
            cluster.settle().await;
            assert_eq!(cluster.pods("app=web").await.len(), 1, "{kind}");
            fewer(0).await;
            cluster.settle().await;
            assert_eq!(cluster.pods("app=web").await.len(), 0, "{kind}");
        });
    }
}

#[test]
fn a_pod_that_is_relabelled_is_let_go_and_replaced_and_one_that_fits_is_taken_over() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(set("ReplicaSet", "web", 2, &json!({"app": "web"}))).await;
        cluster.settle().await;
        let free = cluster.pods("app=web").await.remove(0);
        cluster.patch::<Pod>(&free.name_any(), json!({"metadata": {"labels": {"app": "debug"}}})).await;
        cluster.settle().await;
        assert_eq!(cluster.pods("app=web").await.len(), 2);
        let left = cluster.get::<Pod>(&free.name_any()).await.unwrap();
        assert!(left.owner_references().is_empty() && left.metadata.deletion_timestamp.is_none());
        // Back again there is one too many, and one of the three goes.
        cluster.patch::<Pod>(&free.name_any(), json!({"metadata": {"labels": {"app": "web"}}})).await;
        cluster.settle().await;
        let pods = cluster.pods("app=web").await;
        assert_eq!(pods.len(), 2);
        assert!(pods.iter().all(|pod| pod.owner_references().len() == 1));
    });
}

#[test]
fn pods_that_are_there_already_are_taken_over_instead_of_made() {
    Cluster::builder().run(async |cluster| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "early", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "app:1"}]}});
        cluster.apply(pod.clone()).await;
        pod["metadata"] = json!({"name": "stranger", "labels": {"app": "other"}});
        cluster.apply(pod).await;
        cluster.apply(set("ReplicaSet", "web", 2, &json!({"app": "web"}))).await;
        cluster.settle().await;
        let pods = cluster.pods("app=web").await;
        assert_eq!(pods.len(), 2);
        assert!(
            pods.iter().any(|pod| pod.name_any() == "early") && pods.iter().all(|it| it.owner_references().len() == 1)
        );
        assert!(cluster.get::<Pod>("stranger").await.unwrap().owner_references().is_empty());
    });
}

#[test]
fn two_sets_with_the_same_selector_do_not_fight_over_pods() {
    Cluster::builder().run(async |cluster| {
        for name in ["one", "two"] {
            cluster.apply(set("ReplicaSet", name, 2, &json!({"app": "web"}))).await;
        }
        cluster.settle().await;
        let before: Vec<_> = cluster.pods("app=web").await.iter().map(|pod| pod.metadata.uid.clone()).collect();
        assert_eq!(before.len(), 4);
        cluster.run_for(MINUTE).await;
        let after: Vec<_> = cluster.pods("app=web").await.iter().map(|pod| pod.metadata.uid.clone()).collect();
        assert_eq!(before, after);
    });
}

#[test]
fn deleting_without_the_dependents_leaves_them_for_the_next_owner() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(set("ReplicaSet", "web", 3, &json!({"app": "web"}))).await;
        cluster.settle().await;
        let uids = async || {
            let pods = cluster.pods("app=web").await;
            pods.iter().map(|pod| pod.metadata.uid.clone().unwrap()).collect::<Vec<_>>()
        };
        let before = uids().await;
        cluster.delete_with::<ReplicaSet>("web", json!({"propagationPolicy": "Orphan"})).await;
        cluster.settle().await;
        assert!(cluster.get::<ReplicaSet>("web").await.is_none());
        assert_eq!(uids().await, before);
        cluster.apply(set("ReplicaSet", "web", 3, &json!({"app": "web"}))).await;
        cluster.settle().await;
        assert_eq!(uids().await, before);
    });
}

#[test]
fn deleting_in_the_foreground_takes_the_pods_first() {
    for seed in 0..5 {
        Cluster::builder().seed(seed).run(async |cluster| {
            cluster.apply(web(3, "app:1", json!({}))).await;
            cluster.settle().await;
            cluster.delete_with::<Deployment>("web", json!({"propagationPolicy": "Foreground"})).await;
            let ordered = async |cluster: &Cluster| {
                let there = cluster.get::<Deployment>("web").await.is_some();
                let pods = cluster.pods("app=web").await;
                there || pods.is_empty()
            };
            cluster.always("the owner is last", MINUTE, ordered).await;
            assert!(cluster.get::<Deployment>("web").await.is_none());
        });
    }
}

#[test]
fn the_cheaper_and_the_idle_pods_go_first() {
    Cluster::builder().node(NodeOptions::default()).run(async |cluster| {
        cluster.apply(set("ReplicaSet", "web", 4, &json!({"app": "web"}))).await;
        cluster.settle().await;
        let dear: Vec<String> = cluster.pods("app=web").await.iter().take(2).map(ResourceExt::name_any).collect();
        for name in &dear {
            let cost = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "100"}}});
            cluster.patch::<Pod>(name, cost).await;
        }
        cluster.settle().await;
        cluster.scale::<ReplicaSet>("web", 2).await;
        cluster.settle().await;
        let left: Vec<String> = cluster.pods("app=web").await.iter().map(ResourceExt::name_any).collect();
        assert_eq!(left, dear);
    });
}

#[test]
fn a_pod_whose_program_has_ended_for_good_is_replaced() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(set("ReplicaSet", "web", 1, &json!({"app": "web"}))).await;
        cluster.settle().await;
        let name = cluster.pods("app=web").await[0].name_any();
        cluster.patch_part::<Pod>(&name, "status", json!({"status": {"phase": "Failed", "reason": "Evicted"}})).await;
        cluster.settle().await;
        let pods = cluster.pods("app=web").await;
        let active = pods.iter().filter(|pod| is_ready(pod) && pod.name_any() != name).count();
        assert_eq!(active, 1);
    });
}

#[test]
fn nothing_is_made_twice_when_controllers_crash_in_the_middle() {
    for seed in 1..6 {
        Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
            cluster.apply(web(20, "app:1", json!({}))).await;
            let crash = async {
                for _ in 0..20 {
                    cluster.run_for(Duration::from_millis(7 * seed)).await;
                    cluster.restart(Part::Controllers).await;
                }
            };
            let bounded = cluster.always("no more than asked for", Duration::from_secs(10), async |cluster| {
                cluster.pods("app=web").await.len() <= 20
            });
            tokio::join!(crash, bounded);
            cluster.settle().await;
            assert_eq!(available(&cluster).await, 20, "seed {seed}");
        });
    }
}

#[test]
fn many_pods_come_and_go() {
    let many = NodeOptions { pods: 250, ..NodeOptions::default() };
    Cluster::builder().nodes(2).node(many).run(async |cluster| {
        cluster.apply(web(1, "app:1", json!({}))).await;
        cluster.settle().await;
        for count in [200, 1] {
            cluster.scale::<Deployment>("web", count).await;
            let there =
                async |cluster: &Cluster| deployment(cluster).await.status.unwrap().ready_replicas == Some(count);
            cluster.until("the new size", Duration::from_secs(30), there).await;
        }
        cluster.settle().await;
        assert_eq!(cluster.pods("app=web").await.len(), 1);
    });
}
