//! HorizontalPodAutoscaler, drawn from its documentation: metrics, bounds, tolerance, missing figures, behavior, targets of
//! any kind, and what is told about all of it.
#![allow(clippy::unwrap_used)]

#[path = "autoscaling/world.rs"]
mod world;

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;
use shipway_sim::{Cluster, Part};
use world::{MINUTE, condition, cpu, events, load, replicas, scaler, status, web};

/// Longer than one look at an autoscaler and what follows from it.
const LOOK: Duration = Duration::from_secs(40);

#[test]
fn replicas_grow_until_the_target_is_met_or_the_most_is_there() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(1, &json!({"sim/cpu": "200m"}))).await;
        cluster.apply(scaler(1, 6, &json!([cpu(50)]), &json!(null))).await;
        cluster.until("all that may be", 5 * MINUTE, async |cluster| replicas(cluster).await == 6).await;
        cluster.run_for(MINUTE).await;
        let status = status(&cluster).await;
        assert_eq!((status.current_replicas, status.desired_replicas), (Some(6), 6));
        assert!(status.last_scale_time.is_some());
        let current = status.current_metrics.unwrap()[0].resource.clone().unwrap().current;
        assert_eq!((current.average_utilization, current.average_value.unwrap().0.as_str()), (Some(200), "200m"));
        assert_eq!(condition(&cluster, "AbleToScale").await, ("True".into(), "ReadyForNewScale".into()));
        assert_eq!(condition(&cluster, "ScalingActive").await, ("True".into(), "ValidMetricFound".into()));
        assert_eq!(condition(&cluster, "ScalingLimited").await, ("True".into(), "TooManyReplicas".into()));
        let told = events(&cluster, "SuccessfulRescale").await;
        let text = "New size: 4; reason: cpu resource utilization (percentage of request) above target";
        assert!(told.iter().any(|one| one == text), "{told:?}");
    });
}

#[test]
fn what_is_within_the_tolerance_is_left_alone() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(2, &json!({"sim/cpu": "54m"}))).await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        let still = async |cluster: &Cluster| replicas(cluster).await == 2;
        cluster.always("two", 20 * MINUTE, still).await;
        cluster
            .patch::<HorizontalPodAutoscaler>("web", json!({"spec": {"behavior": {"scaleUp": {"tolerance": "0.01"}}}}))
            .await;
        cluster.until("three", MINUTE, async |cluster| replicas(cluster).await == 3).await;
    });
}

#[test]
fn replicas_shrink_when_nothing_has_spoken_against_it_for_five_minutes() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(4, &json!({"sim/cpu": "10m"}))).await;
        cluster.settle().await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        cluster.always("four", Duration::from_secs(280), async |cluster| replicas(cluster).await == 4).await;
        assert_eq!(condition(&cluster, "AbleToScale").await, ("True".into(), "ScaleDownStabilized".into()));
        cluster.until("one", MINUTE, async |cluster| replicas(cluster).await == 1).await;
        let told = events(&cluster, "SuccessfulRescale").await;
        assert_eq!(told, ["New size: 1; reason: All metrics below target"]);
    });
}

#[test]
fn a_short_rest_does_not_shrink_what_is_needed_again() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(4, &json!({"sim/cpu": "50m"}))).await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        cluster.run_for(2 * MINUTE).await;
        load(&cluster, "5m").await;
        cluster.run_for(3 * MINUTE).await;
        load(&cluster, "50m").await;
        cluster.always("four", 10 * MINUTE, async |cluster| replicas(cluster).await == 4).await;
    });
}

#[test]
fn a_window_of_nothing_shrinks_at_once_and_a_disabled_way_never() {
    for (rules, after) in [(json!({"stabilizationWindowSeconds": 0}), 1), (json!({"selectPolicy": "Disabled"}), 4)] {
        Cluster::builder().run(async |cluster| {
            cluster.apply(web(4, &json!({"sim/cpu": "10m"}))).await;
            cluster.settle().await;
            cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!({"scaleDown": rules}))).await;
            cluster.run_for(if after == 1 { LOOK } else { 10 * MINUTE }).await;
            assert_eq!(replicas(&cluster).await, after, "{rules}");
        });
    }
}

#[test]
fn a_policy_lets_so_many_come_in_a_period() {
    Cluster::builder().run(async |cluster| {
        let rules = json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]});
        cluster.apply(web(1, &json!({"sim/cpu": "500m"}))).await;
        cluster.settle().await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!({"scaleUp": rules}))).await;
        for (second, count) in [(30, 2), (55, 2), (90, 3), (150, 4)] {
            let left = Duration::from_secs(second).saturating_sub(since(&cluster, "web").await);
            cluster.run_for(left).await;
            assert_eq!(replicas(&cluster).await, count, "after {second} s");
        }
        assert_eq!(condition(&cluster, "ScalingLimited").await, ("True".into(), "ScaleUpLimit".into()));
    });
}

/// How old the autoscaler is.
async fn since(cluster: &Cluster, name: &str) -> Duration {
    let scaler: HorizontalPodAutoscaler = cluster.get(name).await.unwrap();
    let made = scaler.metadata.creation_timestamp.unwrap().0;
    jiff::Timestamp::now().duration_since(made).try_into().unwrap()
}

#[test]
fn a_number_out_of_the_bounds_is_brought_back_without_any_metric() {
    for (count, (least, most), expected) in [(7, (1, 3), 3), (1, (2, 5), 2)] {
        Cluster::builder().run(async |cluster| {
            cluster.apply(web(count, &json!({"sim/waiting": "ImagePullBackOff"}))).await;
            cluster.apply(scaler(least, most, &json!([cpu(50)]), &json!(null))).await;
            cluster.until("within the bounds", LOOK, async |cluster| replicas(cluster).await == expected).await;
        });
    }
}

#[test]
fn whoever_is_scaled_to_nothing_is_left_there() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(0, &json!({}))).await;
        cluster.apply(scaler(1, 5, &json!([cpu(50)]), &json!(null))).await;
        cluster.always("none", 5 * MINUTE, async |cluster| replicas(cluster).await == 0).await;
        assert_eq!(condition(&cluster, "ScalingActive").await, ("False".into(), "ScalingDisabled".into()));
        cluster.scale::<Deployment>("web", 2).await;
        cluster.run_for(2 * MINUTE).await;
        assert_eq!(condition(&cluster, "ScalingActive").await, ("True".into(), "ValidMetricFound".into()));
    });
}

#[test]
fn a_share_needs_a_request_of_every_container() {
    Cluster::builder().run(async |cluster| {
        let mut web = web(2, &json!({"sim/cpu": "500m"}));
        let containers = web["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.push(json!({"name": "idle", "image": "app"}));
        cluster.apply(web).await;
        cluster.apply(scaler(1, 5, &json!([cpu(50)]), &json!(null))).await;
        cluster.always("two", 3 * MINUTE, async |cluster| replicas(cluster).await == 2).await;
        assert_eq!(condition(&cluster, "ScalingActive").await, ("False".into(), "FailedGetResourceMetric".into()));
        let told = events(&cluster, "FailedGetResourceMetric").await;
        assert!(
            told.iter().any(|one| one.contains("missing request for cpu in container idle of Pod web-")),
            "{told:?}"
        );
        let told = events(&cluster, "FailedComputeMetricsReplicas").await;
        assert!(
            told.iter().any(|one| one.starts_with("invalid metrics (1 invalid out of 1), first error is: ")),
            "{told:?}"
        );
    });
}

#[test]
fn an_average_of_memory_needs_no_request() {
    Cluster::builder().run(async |cluster| {
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "100Mi"}}});
        cluster.apply(web(2, &json!({"sim/memory": "190Mi"}))).await;
        cluster.apply(scaler(1, 9, &json!([memory]), &json!(null))).await;
        cluster.until("four", MINUTE, async |cluster| replicas(cluster).await == 4).await;
        cluster.run_for(Duration::from_secs(5)).await;
        world::annotate(&cluster, "sim/memory", "100Mi").await;
        cluster.always("four", 10 * MINUTE, async |cluster| replicas(cluster).await == 4).await;
    });
}

#[test]
fn one_container_may_be_what_counts() {
    Cluster::builder().run(async |cluster| {
        let only = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "main",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let mut web = web(2, &json!({"sim/cpu.main": "50m", "sim/cpu.noise": "4"}));
        let containers = web["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.push(json!({"name": "noise", "image": "app"}));
        cluster.apply(web).await;
        cluster.apply(scaler(1, 9, &json!([only]), &json!(null))).await;
        cluster.always("two", 5 * MINUTE, async |cluster| replicas(cluster).await == 2).await;
        world::annotate(&cluster, "sim/cpu.main", "150m").await;
        cluster.until("six", 2 * MINUTE, async |cluster| replicas(cluster).await >= 6).await;
    });
}

#[test]
fn of_several_metrics_the_one_that_asks_for_the_most_wins() {
    Cluster::builder().run(async |cluster| {
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "100Mi"}}});
        cluster.apply(web(2, &json!({"sim/cpu": "10m", "sim/memory": "140Mi"}))).await;
        cluster.apply(scaler(1, 9, &json!([cpu(50), memory]), &json!(null))).await;
        cluster.until("three", MINUTE, async |cluster| replicas(cluster).await == 3).await;
        let status = status(&cluster).await;
        assert_eq!(status.current_metrics.unwrap().len(), 2);
        let told = events(&cluster, "SuccessfulRescale").await;
        assert_eq!(told[0], "New size: 3; reason: memory resource above target");
    });
}

#[test]
fn a_metric_that_cannot_be_had_keeps_replicas_from_shrinking_and_not_from_growing() {
    let queue = json!({"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "AverageValue", "averageValue": "5"}}});
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(3, &json!({"sim/cpu": "5m"}))).await;
        cluster
            .apply(scaler(1, 5, &json!([cpu(50), queue]), &json!({"scaleDown": {"stabilizationWindowSeconds": 0}})))
            .await;
        cluster.always("three", 5 * MINUTE, async |cluster| replicas(cluster).await == 3).await;
        assert_eq!(condition(&cluster, "ScalingActive").await, ("False".into(), "FailedGetExternalMetric".into()));
        let told = events(&cluster, "FailedGetExternalMetric").await;
        assert!(told[0].ends_with("no external metrics API (external.metrics.k8s.io) registered"), "{told:?}");
        load(&cluster, "100m").await;
        cluster.until("five", 2 * MINUTE, async |cluster| replicas(cluster).await == 5).await;
        assert_eq!(condition(&cluster, "ScalingActive").await, ("True".into(), "ValidMetricFound".into()));
    });
}

#[test]
fn metrics_of_pods_and_objects_say_who_would_have_to_serve_them() {
    let target = json!({"type": "AverageValue", "averageValue": "5"});
    let metric = json!({"name": "hits"});
    let object = json!({"apiVersion": "v1", "kind": "Service", "name": "web"});
    for (metric, reason) in [
        (json!({"type": "Pods", "pods": {"metric": metric, "target": target}}), "FailedGetPodsMetric"),
        (
            json!({"type": "Object", "object": {"metric": metric, "target": target, "describedObject": object}}),
            "FailedGetObjectMetric",
        ),
    ] {
        Cluster::builder().run(async |cluster| {
            cluster.apply(web(1, &json!({}))).await;
            cluster.apply(scaler(1, 5, &json!([metric]), &json!(null))).await;
            cluster.run_for(LOOK).await;
            assert_eq!(condition(&cluster, "ScalingActive").await, ("False".into(), reason.into()));
            let told = events(&cluster, reason).await;
            assert!(told[0].ends_with("no custom metrics API (custom.metrics.k8s.io) registered"), "{told:?}");
        });
    }
}

#[test]
fn pods_that_are_not_ready_yet_hold_an_increase_back() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(2, &json!({"sim/cpu": "100m", "sim/ready-after": "4m"}))).await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        cluster.always("two", 3 * MINUTE, async |cluster| replicas(cluster).await == 2).await;
        assert_eq!(condition(&cluster, "ScalingActive").await.0, "False");
        cluster.until("four", 3 * MINUTE, async |cluster| replicas(cluster).await >= 4).await;
        // The two new ones count as idle while they start: 100 and 100 of four times 50 is what is wanted.
        cluster.always("four", 3 * MINUTE, async |cluster| replicas(cluster).await == 4).await;
    });
}

#[test]
fn without_figures_nothing_is_done() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(2, &json!({"sim/cpu": "200m"}))).await;
        cluster.settle().await;
        cluster.stop_node("node-0");
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        cluster.run_for(Duration::from_secs(20)).await;
        assert_eq!(replicas(&cluster).await, 2);
        let told = events(&cluster, "FailedGetResourceMetric").await;
        let text = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API";
        assert_eq!(told[0], text);
        cluster.start_node("node-0");
        cluster.until("more", 2 * MINUTE, async |cluster| replicas(cluster).await > 2).await;
    });
}

#[test]
fn a_target_that_is_not_there_is_waited_for() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(scaler(1, 5, &json!([cpu(50)]), &json!(null))).await;
        cluster.run_for(LOOK).await;
        assert_eq!(condition(&cluster, "AbleToScale").await, ("False".into(), "FailedGetScale".into()));
        assert!(!events(&cluster, "FailedGetScale").await.is_empty());
        cluster.apply(web(1, &json!({"sim/cpu": "100m"}))).await;
        cluster.until("two", 2 * MINUTE, async |cluster| replicas(cluster).await >= 2).await;
        assert_eq!(condition(&cluster, "AbleToScale").await.0, "True");
    });
}

#[test]
fn a_replica_set_of_its_own_can_be_scaled_as_well() {
    Cluster::builder().run(async |cluster| {
        let mut set = web(1, &json!({"sim/cpu": "100m"}));
        set["kind"] = "ReplicaSet".into();
        cluster.apply(set).await;
        let mut own = scaler(1, 3, &json!([cpu(50)]), &json!(null));
        own["spec"]["scaleTargetRef"]["kind"] = "ReplicaSet".into();
        cluster.apply(own).await;
        let count = async |cluster: &Cluster| cluster.get::<ReplicaSet>("web").await.unwrap().spec.unwrap().replicas;
        cluster.until("three", 2 * MINUTE, async |cluster| count(cluster).await == Some(3)).await;
    });
}

#[test]
fn a_custom_resource_with_a_scale_can_be_scaled() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(world::fleet_definition()).await;
        cluster.run_for(Duration::from_secs(5)).await;
        let pod = |name: &str| {
            let containers = json!([{"name": "main", "image": "app", "resources": {"requests": {"cpu": "100m"}}}]);
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": "web"}, "annotations": {"sim/cpu": "100m"}},
                "spec": {"containers": containers}})
        };
        cluster.apply(pod("one")).await;
        cluster.apply(pod("two")).await;
        let fleet = json!({"apiVersion": "example.com/v1", "kind": "Fleet", "metadata": {"name": "web"},
            "spec": {"count": 2}, "status": {"count": 2, "labels": "app=web"}});
        cluster.call(http::Method::POST, world::FLEETS, "application/json", &fleet).await.unwrap();
        let mut own = scaler(1, 9, &json!([cpu(50)]), &json!(null));
        own["spec"]["scaleTargetRef"] = json!({"apiVersion": "example.com/v1", "kind": "Fleet", "name": "web"});
        cluster.apply(own).await;
        cluster.run_for(LOOK).await;
        let path = format!("{}/web", world::FLEETS);
        let fleet = cluster.call(http::Method::GET, &path, "", &json!(null)).await.unwrap();
        assert_eq!(fleet["spec"]["count"], 4);
    });
}

#[test]
fn two_autoscalers_of_the_same_pods_do_nothing() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(2, &json!({"sim/cpu": "50m"}))).await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        let mut other = scaler(1, 9, &json!([cpu(10)]), &json!(null));
        other["metadata"]["name"] = "other".into();
        cluster.apply(other).await;
        cluster.run_for(MINUTE).await;
        assert_eq!(condition(&cluster, "ScalingActive").await, ("False".into(), "AmbiguousSelector".into()));
        let count = replicas(&cluster).await;
        load(&cluster, "500m").await;
        cluster.always("as it was", 5 * MINUTE, async |cluster| replicas(cluster).await == count).await;
        cluster.delete::<HorizontalPodAutoscaler>("other").await;
        cluster.until("nine", 2 * MINUTE, async |cluster| replicas(cluster).await == 9).await;
    });
}

#[test]
fn a_change_of_the_autoscaler_is_seen_at_once() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(2, &json!({"sim/cpu": "50m"}))).await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        cluster.run_for(2 * MINUTE).await;
        cluster.patch::<HorizontalPodAutoscaler>("web", json!({"spec": {"minReplicas": 3}})).await;
        cluster.until("three", Duration::from_secs(1), async |cluster| replicas(cluster).await == 3).await;
    });
}

#[test]
fn controllers_that_were_restarted_begin_with_what_there_is() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(4, &json!({"sim/cpu": "10m"}))).await;
        cluster.settle().await;
        cluster.apply(scaler(1, 9, &json!([cpu(50)]), &json!(null))).await;
        cluster.run_for(4 * MINUTE).await;
        cluster.restart(Part::Controllers).await;
        cluster.always("four", 4 * MINUTE, async |cluster| replicas(cluster).await == 4).await;
        cluster.until("one", 2 * MINUTE, async |cluster| replicas(cluster).await == 1).await;
    });
}

#[test]
fn the_first_version_scales_by_the_processor() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(web(1, &json!({"sim/cpu": "100m"}))).await;
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let spec = json!({"maxReplicas": 2, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": target});
        let own = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec});
        cluster.create(own).await.unwrap();
        cluster.until("two", 2 * MINUTE, async |cluster| replicas(cluster).await == 2).await;
    });
}

#[test]
fn what_containers_use_is_told_of_pods_and_of_their_node() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(web(4, &json!({"sim/cpu": "200m", "sim/memory": "64Mi"}))).await;
        cluster.settle().await;
        let list = async |plural: &str| {
            let path = format!("/apis/metrics.k8s.io/v1beta1/{plural}");
            cluster.call(http::Method::GET, &path, "", &json!(null)).await.unwrap()["items"].take()
        };
        let nodes = list("nodes").await;
        let usage: Vec<_> = nodes.as_array().unwrap().iter().map(|node| node["usage"].clone()).collect();
        assert_eq!(
            usage,
            [json!({"cpu": "400000000n", "memory": "128Mi"}), json!({"cpu": "400000000n", "memory": "128Mi"})]
        );
        assert_eq!(list("namespaces/default/pods").await.as_array().unwrap().len(), 4);
        cluster.stop_node("node-1");
        assert_eq!(list("nodes").await.as_array().unwrap().len(), 1);
        assert_eq!(list("pods").await.as_array().unwrap().len(), 2, "those of the node that answers");
        cluster.start_node("node-1");
        assert_eq!(list("pods").await[0]["containers"][0]["usage"], json!({"cpu": "200000000n", "memory": "64Mi"}));
    });
}
