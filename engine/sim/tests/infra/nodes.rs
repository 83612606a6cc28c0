//! Nodes that fall silent, come back, or are marked; and the pods on them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use shipway_sim::{Cluster, NodeOptions, Part};

use super::{MINUTE, holds, pod, ready, seconds, told, uid};

/// Nodes in processes of their own.
fn several(nodes: usize) -> shipway_sim::Builder {
    Cluster::builder().nodes(nodes).node(NodeOptions::by_itself())
}

async fn condition(cluster: &Cluster, node: &str, kind: &str) -> (String, String) {
    let node: Node = cluster.get(&format!("/{node}")).await.unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    let found = conditions.into_iter().find(|it| it.type_ == kind).unwrap();
    (found.status, found.reason.unwrap_or_default())
}

/// Key and effect of the taints of a node, without their domain.
async fn taints(cluster: &Cluster, node: &str) -> Vec<String> {
    let node: Node = cluster.get(&format!("/{node}")).await.unwrap();
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let short = |key: &str| key.rsplit('/').next().unwrap().to_owned();
    let mut taints: Vec<_> = taints.into_iter().map(|it| format!("{}:{}", short(&it.key), it.effect)).collect();
    taints.sort();
    taints
}

async fn is_gone(cluster: &Cluster, pod: &str) -> bool {
    cluster.get::<Pod>(pod).await.is_none()
}

async fn is_going(cluster: &Cluster, name: &str) -> bool {
    cluster.get::<Pod>(name).await.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
}

fn claims() -> serde_json::Value {
    json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]})
}

#[test]
fn a_silent_node_is_unknown_and_tainted() {
    several(2).run(async |cluster| {
        // It has renewed its lease by then.
        cluster.run_for(seconds(3)).await;
        cluster.kill_node("node-1");
        let lost = async |cluster: &Cluster| taints(cluster, "node-1").await.len() == 2;
        cluster.until("node-1 is tainted", seconds(8), lost).await;
        for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            let unknown = ("Unknown".to_owned(), "NodeStatusUnknown".to_owned());
            assert_eq!(condition(&cluster, "node-1", kind).await, unknown, "{kind}");
        }
        assert_eq!(taints(&cluster, "node-1").await, ["unreachable:NoExecute", "unreachable:NoSchedule"]);
        assert!(taints(&cluster, "node-0").await.is_empty());
        cluster.run_for(seconds(1)).await;
        assert!(told(&cluster, "NodeNotReady", "Node node-1 status is now: NodeNotReady").await);
    });
}

#[test]
fn a_node_that_comes_back_is_ready_and_untainted() {
    several(2).run(async |cluster| {
        cluster.cut_off("node-1");
        cluster.run_for(seconds(20)).await;
        cluster.reconnect("node-1");
        let back = async |cluster: &Cluster| {
            condition(cluster, "node-1", "Ready").await.0 == "True" && taints(cluster, "node-1").await.is_empty()
        };
        cluster.until("node-1 is back", seconds(5), back).await;
    });
}

#[test]
fn a_short_silence_is_not_noticed() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", claims())).await;
        ready(&cluster, "a").await;
        cluster.cut_off("node-1");
        cluster.run_for(seconds(1)).await;
        cluster.reconnect("node-1");
        let well = async |cluster: &Cluster| {
            let pod: Pod = cluster.get("a").await.unwrap();
            condition(cluster, "node-1", "Ready").await.0 == "True" && holds(&pod, "Ready")
        };
        cluster.always("all is well", MINUTE, well).await;
    });
}

#[test]
fn pods_of_a_silent_node_are_not_ready_and_get_no_requests() {
    several(2).run(async |cluster| {
        let patient = json!({"tolerations": [{"operator": "Exists"}]});
        cluster.apply(pod("a", "node-1", patient)).await;
        let spec = json!({"selector": {"app": "a"}, "ports": [{"port": 80}]});
        cluster.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec})).await;
        ready(&cluster, "a").await;
        cluster.kill_node("node-1");
        let marked = async |cluster: &Cluster| {
            let pod: Pod = cluster.get("a").await.unwrap();
            let slices: Vec<EndpointSlice> = cluster.list("default", "kubernetes.io/service-name=a").await;
            let ends = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            !holds(&pod, "Ready") && ends.into_iter().all(|it| it.conditions.as_ref().unwrap().ready == Some(false))
        };
        cluster.until("the pod counts no more", seconds(8), marked).await;
        let pod: Pod = cluster.get("a").await.unwrap();
        let conditions = pod.status.unwrap().conditions.unwrap();
        let reason = conditions.into_iter().find(|it| it.type_ == "Ready").unwrap().reason;
        assert_eq!(reason.as_deref(), Some("NodeNotReady"));
        cluster.start_node("node-1");
        ready(&cluster, "a").await;
    });
}

#[test]
fn a_deployment_is_whole_again_ten_seconds_after_its_node_was_lost() {
    several(3).run(async |cluster| {
        let template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "app:1"}]}});
        let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template});
        cluster
            .apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}))
            .await;
        let whole = async |cluster: &Cluster| {
            let web: Deployment = cluster.get("web").await.unwrap();
            let mut lost = false;
            for pod in cluster.pods("app=web").await {
                let on = pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node-1");
                lost |= on && pod.metadata.deletion_timestamp.is_none();
            }
            !lost && web.status.unwrap().ready_replicas == Some(3)
        };
        cluster.settle().await;
        cluster.kill_node("node-1");
        cluster.until("three are ready elsewhere", seconds(10), whole).await;
        assert!(told(&cluster, "TaintManagerEviction", "Marking for deletion Pod default/web-").await);
    });
}

#[test]
fn a_pod_that_tolerates_everything_stays_on_a_lost_node() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", json!({"tolerations": [{"operator": "Exists"}]}))).await;
        ready(&cluster, "a").await;
        cluster.kill_node("node-1");
        cluster.always("it stays", 5 * MINUTE, async |cluster| !is_going(cluster, "a").await).await;
    });
}

#[test]
fn a_pods_own_seconds_count() {
    several(2).run(async |cluster| {
        let mine = |seconds: i64| {
            let one = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
            json!({"tolerations": [one("node.kubernetes.io/unreachable"), one("node.kubernetes.io/not-ready")]})
        };
        cluster.apply(pod("soon", "node-1", mine(0))).await;
        cluster.apply(pod("late", "node-1", mine(60))).await;
        ready(&cluster, "late").await;
        ready(&cluster, "soon").await;
        cluster.kill_node("node-1");
        cluster.run_for(seconds(8)).await;
        assert!(is_going(&cluster, "soon").await && !is_going(&cluster, "late").await);
        cluster.run_for(seconds(45)).await;
        assert!(!is_going(&cluster, "late").await);
        cluster.run_for(seconds(20)).await;
        assert!(is_going(&cluster, "late").await);
    });
}

#[test]
fn a_leashed_pod_is_removed_only_after_its_node_has_stopped_it() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", claims())).await;
        let before = uid(&ready(&cluster, "a").await);
        assert!(holds(&cluster.get("a").await.unwrap(), "shipway.dev/Leashed"));
        cluster.cut_off("node-1");
        let never_twice =
            async |cluster: &Cluster| !is_gone(cluster, "a").await || !cluster.running_on("node-1").contains(&before);
        let removed = async |cluster: &Cluster| never_twice(cluster).await && is_gone(cluster, "a").await;
        cluster
            .until("it is removed", seconds(10), async |cluster| {
                assert!(never_twice(cluster).await, "it still runs");
                removed(cluster).await
            })
            .await;
        cluster.reconnect("node-1");
        cluster.always("it does not come back", MINUTE, never_twice).await;
    });
}

#[test]
fn a_leashed_pod_stops_also_when_the_nodes_process_is_dead() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", claims())).await;
        cluster.apply(pod("b", "node-1", json!({}))).await;
        let (leashed, free) = (uid(&ready(&cluster, "a").await), uid(&ready(&cluster, "b").await));
        cluster.stop_node("node-1");
        cluster.run_for(seconds(5)).await;
        assert_eq!(cluster.running_on("node-1"), [free], "{leashed} had to stop");
    });
}

#[test]
fn a_leashed_pod_goes_on_where_it_was_when_nobody_took_it() {
    several(2).run(async |cluster| {
        let mut spec = claims();
        spec["tolerations"] = json!([{"operator": "Exists"}]);
        cluster.apply(pod("a", "node-1", spec)).await;
        let before = uid(&ready(&cluster, "a").await);
        cluster.cut_off("node-1");
        cluster.run_for(seconds(30)).await;
        assert!(cluster.running_on("node-1").is_empty());
        cluster.reconnect("node-1");
        let again = async |cluster: &Cluster| {
            let pod: Pod = cluster.get("a").await.unwrap();
            cluster.running_on("node-1") == std::slice::from_ref(&before) && holds(&pod, "Ready")
        };
        cluster.until("it runs again", MINUTE, again).await;
    });
}

#[test]
fn a_pod_without_a_leash_is_never_removed_by_force() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", json!({}))).await;
        let before = uid(&ready(&cluster, "a").await);
        cluster.cut_off("node-1");
        cluster.run_for(seconds(12)).await;
        let waits = async |cluster: &Cluster| is_going(cluster, "a").await && !is_gone(cluster, "a").await;
        cluster.always("it waits for its node", 10 * MINUTE, waits).await;
        assert_eq!(cluster.running_on("node-1"), [before]);
        cluster.reconnect("node-1");
        let ended = async |cluster: &Cluster| is_gone(cluster, "a").await && cluster.running_on("node-1").is_empty();
        cluster.until("its node ends it", MINUTE, ended).await;
    });
}

#[test]
fn somebody_may_vouch_that_a_node_is_out_of_service() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", json!({}))).await;
        ready(&cluster, "a").await;
        cluster.kill_node("node-1");
        cluster.run_for(seconds(15)).await;
        let node: Node = cluster.get("/node-1").await.unwrap();
        let mut taints = json!(node.spec.unwrap().taints);
        let vouched =
            json!({"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"});
        taints.as_array_mut().unwrap().push(vouched);
        cluster.patch::<Node>("/node-1", json!({"spec": {"taints": taints}})).await;
        cluster.until("the pod is gone", seconds(5), async |cluster| is_gone(cluster, "a").await).await;
    });
}

#[test]
fn when_no_node_is_ready_nobody_is_sent_away() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", json!({}))).await;
        ready(&cluster, "a").await;
        cluster.kill_node("node-0");
        cluster.kill_node("node-1");
        cluster.run_for(seconds(20)).await;
        assert_eq!(taints(&cluster, "node-1").await, ["unreachable:NoSchedule"]);
        assert!(!is_going(&cluster, "a").await);
    });
}

#[test]
fn an_outage_of_the_api_moves_no_pod() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", claims())).await;
        let before = uid(&ready(&cluster, "a").await);
        cluster.stop_part(Part::ApiServer).await;
        cluster.run_for(5 * MINUTE).await;
        assert_eq!(cluster.running_on("node-1"), std::slice::from_ref(&before));
        cluster.start_part(Part::ApiServer).await;
        cluster.run_for(2 * MINUTE).await;
        assert_eq!(uid(&ready(&cluster, "a").await), before);
        assert_eq!(cluster.running_on("node-1"), [before]);
    });
}

#[test]
fn controllers_that_were_away_give_every_node_its_time() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", json!({}))).await;
        ready(&cluster, "a").await;
        cluster.stop_part(Part::Controllers).await;
        cluster.kill_node("node-1");
        cluster.run_for(5 * MINUTE).await;
        cluster.start_part(Part::Controllers).await;
        cluster.run_for(seconds(4)).await;
        assert_eq!(condition(&cluster, "node-1", "Ready").await.0, "True");
        cluster.run_for(seconds(8)).await;
        assert!(is_going(&cluster, "a").await);
    });
}

#[test]
fn a_cordoned_node_is_tainted_as_long_as_it_is() {
    Cluster::builder().run(async |cluster| {
        for (cordoned, expected) in [(true, vec!["unschedulable:NoSchedule"]), (false, vec![])] {
            cluster.patch::<Node>("/node-0", json!({"spec": {"unschedulable": cordoned}})).await;
            cluster.run_for(seconds(1)).await;
            assert_eq!(taints(&cluster, "node-0").await, expected);
        }
    });
}

#[test]
fn a_node_short_of_something_takes_no_new_pods() {
    Cluster::builder().run(async |cluster| {
        let mut node: Node = cluster.get("/node-0").await.unwrap();
        let conditions = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions.iter_mut().find(|it| it.type_ == "MemoryPressure").unwrap().status = "True".to_owned();
        cluster.patch_part::<Node>("/node-0", "status", json!({"status": {"conditions": conditions}})).await;
        cluster.run_for(seconds(1)).await;
        assert_eq!(taints(&cluster, "node-0").await, ["memory-pressure:NoSchedule"]);
    });
}

#[test]
fn pods_of_a_node_that_was_removed_are_collected() {
    several(2).run(async |cluster| {
        cluster.apply(pod("a", "node-1", json!({"tolerations": [{"operator": "Exists"}]}))).await;
        ready(&cluster, "a").await;
        cluster.kill_node("node-1");
        cluster.delete::<Node>("/node-1").await;
        cluster.run_for(seconds(30)).await;
        assert!(!is_gone(&cluster, "a").await, "the node may be registering again");
        cluster.until("it is collected", seconds(15), async |cluster| is_gone(cluster, "a").await).await;
    });
}

#[test]
fn a_taint_sends_away_who_does_not_tolerate_it() {
    Cluster::builder().nodes(2).run(async |cluster| {
        let tolerates = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
        cluster.apply(pod("stays", "node-1", tolerates)).await;
        cluster.apply(pod("goes", "node-1", json!({}))).await;
        ready(&cluster, "stays").await;
        ready(&cluster, "goes").await;
        let taint = json!({"key": "gpu", "effect": "NoExecute"});
        cluster.patch::<Node>("/node-1", json!({"spec": {"taints": [taint]}})).await;
        cluster.until("it goes", seconds(5), async |cluster| is_gone(cluster, "goes").await).await;
        assert!(!is_going(&cluster, "stays").await);
    });
}

#[test]
fn a_pod_stays_when_the_taint_goes_in_time() {
    Cluster::builder().nodes(2).run(async |cluster| {
        let patient = json!({"tolerations": [{"key": "work", "operator": "Exists", "tolerationSeconds": 30}]});
        cluster.apply(pod("a", "node-1", patient)).await;
        ready(&cluster, "a").await;
        let taint = json!({"key": "work", "effect": "NoExecute"});
        cluster.patch::<Node>("/node-1", json!({"spec": {"taints": [taint]}})).await;
        cluster.run_for(seconds(20)).await;
        cluster.patch::<Node>("/node-1", json!({"spec": {"taints": null}})).await;
        cluster.always("it stays", MINUTE, async |cluster| !is_going(cluster, "a").await).await;
        assert!(told(&cluster, "TaintManagerEviction", "Cancelling deletion of Pod default/a").await);
    });
}
