//! Names, order and waiting.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use shipway_sim::{Cluster, Part};

use crate::fixture::{MINUTE, is_ending, is_ready, names, pods, stateful, status, template, told, up};

#[test]
fn pods_are_made_in_order_each_after_the_one_before_is_ready() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(stateful(&json!({}))).await;
        let in_order = async |cluster: &Cluster| {
            let pods = pods(cluster, "web").await;
            pods.iter().rev().skip(1).all(is_ready)
                && pods.iter().enumerate().all(|(n, pod)| pod.name_any() == format!("web-{n}"))
        };
        cluster.always("who has a successor is ready", MINUTE, in_order).await;
        assert_eq!(names(&cluster).await, ["web-0", "web-1", "web-2"]);
    });
}

#[test]
fn a_pod_that_never_gets_ready_holds_up_the_next() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({"template": template("web", "app:1", &json!({"sim/ready": "false"}))})).await;
        assert_eq!(names(&cluster).await, ["web-0"]);
    });
}

#[test]
fn a_pod_has_a_stable_identity() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        let pod: Pod = cluster.get("web-1").await.unwrap();
        let labels = pod.labels();
        assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-1");
        assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-1"), Some("web")));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(pod.metadata.owner_references.unwrap()[0].kind, "StatefulSet");
    });
}

#[test]
fn ordinals_may_start_anywhere() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({"replicas": 2, "ordinals": {"start": 5}})).await;
        assert_eq!(names(&cluster).await, ["web-5", "web-6"]);
        up(&cluster, &json!({"replicas": 2, "ordinals": {"start": 6}})).await;
        assert_eq!(names(&cluster).await, ["web-6", "web-7"]);
    });
}

#[test]
fn in_parallel_all_pods_are_made_at_once() {
    Cluster::builder().run(async |cluster| {
        let slow = template("web", "app:1", &json!({"sim/ready-after": "5m"}));
        cluster.apply(stateful(&json!({"podManagementPolicy": "Parallel", "replicas": 20, "template": slow}))).await;
        let all = async |cluster: &Cluster| names(cluster).await.len() == 20;
        cluster.until("all are there", Duration::from_secs(5), all).await;
        assert!(!pods(&cluster, "web").await.iter().any(is_ready));
    });
}

#[test]
fn scaling_down_ends_the_highest_first_and_one_at_a_time() {
    Cluster::builder().run(async |cluster| {
        let slow = template("web", "app:1", &json!({"sim/stop-after": "3s"}));
        up(&cluster, &json!({"replicas": 5, "template": slow})).await;
        cluster.scale::<StatefulSet>("web", 1).await;
        let in_order = async |cluster: &Cluster| {
            let pods = pods(cluster, "web").await;
            let ending: Vec<_> = pods.iter().map(is_ending).collect();
            ending.iter().rev().skip(1).all(|ending| !ending)
        };
        cluster.always("only the last one is ending", MINUTE, in_order).await;
        assert_eq!(names(&cluster).await, ["web-0"]);
    });
}

#[test]
fn in_parallel_scaling_down_waits_for_nobody() {
    Cluster::builder().run(async |cluster| {
        let slow = template("web", "app:1", &json!({"sim/stop-after": "20s"}));
        up(&cluster, &json!({"podManagementPolicy": "Parallel", "template": slow})).await;
        cluster.scale::<StatefulSet>("web", 0).await;
        let all = async |cluster: &Cluster| pods(cluster, "web").await.iter().all(is_ending);
        cluster.until("all are ending together", Duration::from_secs(5), all).await;
    });
}

#[test]
fn scaling_down_waits_while_a_pod_that_stays_is_unwell() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        cluster.patch::<Pod>("web-0", json!({"metadata": {"annotations": {"sim/ready": "false"}}})).await;
        cluster.settle().await;
        cluster.scale::<StatefulSet>("web", 1).await;
        cluster.settle().await;
        assert_eq!(names(&cluster).await.len(), 3);
        cluster.patch::<Pod>("web-0", json!({"metadata": {"annotations": {"sim/ready": null}}})).await;
        cluster.settle().await;
        assert_eq!(names(&cluster).await, ["web-0"]);
    });
}

#[test]
fn scaled_to_nothing_and_back_the_names_are_the_same() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        cluster.scale::<StatefulSet>("web", 0).await;
        cluster.settle().await;
        assert!(names(&cluster).await.is_empty());
        assert_eq!(status(&cluster).await.replicas, 0);
        cluster.patch_part::<StatefulSet>("web", "scale", json!({"spec": {"replicas": 2}})).await;
        cluster.settle().await;
        assert_eq!(names(&cluster).await, ["web-0", "web-1"]);
    });
}

#[test]
fn a_deleted_pod_comes_back_under_its_name_and_only_when_it_is_gone() {
    Cluster::builder().nodes(3).run(async |cluster| {
        let slow = template("web", "app:1", &json!({"sim/stop-after": "20s"}));
        up(&cluster, &json!({"template": slow})).await;
        let before: Pod = cluster.get("web-1").await.unwrap();
        cluster.delete::<Pod>("web-1").await;
        let running = |cluster: &Cluster| (0..3).map(|n| cluster.running_on(&format!("node-{n}")).len()).sum::<usize>();
        cluster.always("three containers at most", MINUTE, async |cluster| running(cluster) <= 3).await;
        let after: Pod = cluster.get("web-1").await.unwrap();
        assert!(is_ready(&after) && before.metadata.uid != after.metadata.uid);
    });
}

#[test]
fn ended_pods_are_replaced_however_they_ended() {
    for phase in ["Failed", "Succeeded"] {
        Cluster::builder().run(async |cluster| {
            up(&cluster, &json!({})).await;
            let before: Pod = cluster.get("web-1").await.unwrap();
            cluster.patch_part::<Pod>("web-1", "status", json!({"status": {"phase": phase}})).await;
            cluster.settle().await;
            let after: Pod = cluster.get("web-1").await.unwrap();
            assert_ne!(before.metadata.uid, after.metadata.uid, "{phase}");
            assert_eq!(status(&cluster).await.ready_replicas, Some(3));
        });
    }
}

#[test]
fn a_pod_has_to_be_ready_for_the_minimum_before_the_next_is_made() {
    Cluster::builder().run(async |cluster| {
        let began = cluster.elapsed();
        cluster.apply(stateful(&json!({"minReadySeconds": 30}))).await;
        let all = async |cluster: &Cluster| status(cluster).await.available_replicas == Some(3);
        cluster.until("all are available", Duration::from_mins(3), all).await;
        let took = cluster.elapsed().saturating_sub(began).as_secs();
        assert!((90..110).contains(&took), "{took}");
    });
}

#[test]
fn ready_and_available_are_counted_apart() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(stateful(&json!({"replicas": 1, "minReadySeconds": 60}))).await;
        cluster.run_for(Duration::from_secs(30)).await;
        let early = status(&cluster).await;
        assert_eq!((early.replicas, early.ready_replicas, early.available_replicas), (1, Some(1), Some(0)));
        cluster.run_for(MINUTE).await;
        assert_eq!(status(&cluster).await.available_replicas, Some(1));
    });
}

#[test]
fn what_was_done_is_told_in_events() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({"replicas": 1})).await;
        assert_eq!(told(&cluster, "SuccessfulCreate").await, ["create Pod web-0 in StatefulSet web successful"]);
        cluster.scale::<StatefulSet>("web", 0).await;
        cluster.settle().await;
        assert_eq!(told(&cluster, "SuccessfulDelete").await, ["delete Pod web-0 in StatefulSet web successful"]);
    });
}

#[test]
fn what_a_quota_refuses_is_told_and_made_once_it_fits() {
    Cluster::builder().run(async |cluster| {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "default"},
            "spec": {"hard": {"pods": "1"}}});
        cluster.apply(quota.clone()).await;
        cluster.apply(stateful(&json!({"replicas": 2}))).await;
        cluster.run_for(MINUTE).await;
        assert_eq!(names(&cluster).await, ["web-0"]);
        let told = told(&cluster, "FailedCreate").await;
        assert!(told[0].starts_with("create Pod web-1 in StatefulSet web failed error: "), "{told:?}");
        assert!(told[0].contains("exceeded quota"), "{told:?}");
        cluster.patch::<k8s_openapi::api::core::v1::ResourceQuota>("few", json!({"spec": {"hard": {"pods": "2"}}})).await;
        let both = async |cluster: &Cluster| status(cluster).await.ready_replicas == Some(2);
        cluster.until("both are ready", MINUTE, both).await;
    });
}

#[test]
fn controllers_that_crash_at_any_moment_leave_no_pod_twice_and_none_out() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(stateful(&json!({"replicas": 6, "podManagementPolicy": "Parallel"}))).await;
        for _ in 0..10 {
            cluster.run_for(Duration::from_millis(150)).await;
            cluster.restart(Part::Controllers).await;
        }
        cluster.settle().await;
        assert_eq!(names(&cluster).await, ["web-0", "web-1", "web-2", "web-3", "web-4", "web-5"]);
        assert_eq!(status(&cluster).await.ready_replicas, Some(6));
    });
}

#[test]
fn the_status_follows_the_generation() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        for replicas in [2, 4] {
            cluster.scale::<StatefulSet>("web", replicas).await;
            cluster.settle().await;
            let set: StatefulSet = cluster.get("web").await.unwrap();
            let status = set.status.unwrap();
            assert_eq!(status.observed_generation, set.metadata.generation);
            assert_eq!(
                (status.replicas, status.current_replicas, status.updated_replicas),
                (replicas, Some(replicas), Some(replicas))
            );
        }
    });
}
