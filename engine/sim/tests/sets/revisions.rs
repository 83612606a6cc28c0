//! The history that `kubectl rollout` reads, of both kinds of sets.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use crate::fixture::{HASH, agent, daemon_status, daemon_up, history, image, pods, status, up, web};

/// What `kubectl rollout undo` sends: the data of a revision, as a strategic merge patch.
async fn undo(cluster: &Cluster, path: &str, revision: &ControllerRevision) {
    let template = revision.data.as_ref().unwrap().0.clone();
    let path = format!("/apis/apps/v1/namespaces/default/{path}");
    let kind = "application/strategic-merge-patch+json";
    cluster.call(http::Method::PATCH, &path, kind, &template).await.unwrap();
}

async fn numbers(cluster: &Cluster, app: &str) -> Vec<i64> {
    history(cluster, app).await.iter().map(|one| one.revision).collect()
}

#[test]
fn each_template_is_one_revision_that_its_pods_name() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        up(&cluster, &json!({"template": web("app:2")})).await;
        let revisions = history(&cluster, "web").await;
        assert_eq!(numbers(&cluster, "web").await, [1, 2]);
        let data = &revisions[0].data.as_ref().unwrap().0;
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        assert_eq!(data["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
        assert_eq!(revisions[0].owner_references()[0].kind, "StatefulSet");
        for pod in pods(&cluster, "web").await {
            assert_eq!(pod.labels()[HASH], revisions[1].name_any());
        }
        assert_eq!(status(&cluster).await.update_revision, Some(revisions[1].name_any()));
    });
}

#[test]
fn pods_of_a_daemon_set_carry_the_hash_of_their_revision() {
    Cluster::builder().nodes(2).run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let revision = history(&cluster, "agent").await.remove(0);
        let hash = &revision.labels()[HASH];
        assert_eq!(revision.name_any(), format!("agent-{hash}"));
        assert!(pods(&cluster, "agent").await.iter().all(|pod| pod.labels()[HASH] == *hash));
    });
}

#[test]
fn a_rollback_takes_the_old_revision_up_under_a_new_number() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        up(&cluster, &json!({"template": web("app:2")})).await;
        let first = history(&cluster, "web").await.remove(0);
        undo(&cluster, "statefulsets/web", &first).await;
        cluster.settle().await;
        let after = history(&cluster, "web").await;
        assert_eq!(after.iter().map(|one| one.revision).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(after[1].name_any(), first.name_any());
        assert!(pods(&cluster, "web").await.iter().all(|pod| image(pod) == "app:1"));
    });
}

#[test]
fn a_daemon_set_is_rolled_back_too() {
    Cluster::builder().nodes(2).run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        daemon_up(&cluster, &json!({"template": agent("app:2")})).await;
        let first = history(&cluster, "agent").await.remove(0);
        undo(&cluster, "daemonsets/agent", &first).await;
        cluster.settle().await;
        assert_eq!(numbers(&cluster, "agent").await, [2, 3]);
        assert!(pods(&cluster, "agent").await.iter().all(|pod| image(pod) == "app:1"));
        assert_eq!(daemon_status(&cluster).await.updated_number_scheduled, Some(2));
    });
}

#[test]
fn old_revisions_are_forgotten_beyond_the_limit() {
    Cluster::builder().run(async |cluster| {
        let spec = |template: Value| json!({"replicas": 1, "revisionHistoryLimit": 2, "template": template});
        for number in 1..=6 {
            up(&cluster, &spec(web(&format!("app:{number}")))).await;
        }
        assert_eq!(numbers(&cluster, "web").await, [4, 5, 6]);
        for number in 1..=4 {
            let template = agent(&format!("app:{number}"));
            daemon_up(&cluster, &json!({"revisionHistoryLimit": 0, "template": template})).await;
        }
        assert_eq!(numbers(&cluster, "agent").await, [4]);
    });
}

#[test]
fn a_revision_that_pods_run_is_not_forgotten() {
    Cluster::builder().run(async |cluster| {
        let spec = |image: &str| {
            json!({"replicas": 1, "revisionHistoryLimit": 0, "updateStrategy": {"type": "OnDelete"}, "template": web(image)})
        };
        for image in ["app:1", "app:2", "app:3"] {
            up(&cluster, &spec(image)).await;
        }
        assert_eq!(numbers(&cluster, "web").await, [1, 3]);
    });
}

#[test]
fn the_cause_of_a_change_is_kept_with_its_revision() {
    Cluster::builder().run(async |cluster| {
        let mut set = crate::fixture::stateful(&json!({"replicas": 1}));
        set["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "first try"});
        cluster.apply(set).await;
        cluster.settle().await;
        let revision = history(&cluster, "web").await.remove(0);
        assert_eq!(revision.annotations()["kubernetes.io/change-cause"], "first try");
    });
}

#[test]
fn a_name_that_is_taken_is_counted_and_another_is_found() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({"replicas": 1})).await;
        daemon_up(&cluster, &json!({})).await;
        let taken = [history(&cluster, "web").await.remove(0), history(&cluster, "agent").await.remove(0)];
        cluster.delete::<StatefulSet>("web").await;
        cluster.delete::<DaemonSet>("agent").await;
        cluster.settle().await;
        for revision in &taken {
            let other = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1,
                "metadata": {"name": revision.name_any(), "namespace": "default"}, "data": {"other": true}});
            cluster.create(other).await.unwrap();
        }
        up(&cluster, &json!({"replicas": 1})).await;
        daemon_up(&cluster, &json!({})).await;
        assert_eq!(status(&cluster).await.collision_count, Some(1));
        assert_eq!(daemon_status(&cluster).await.collision_count, Some(1));
        assert_ne!(history(&cluster, "web").await[0].name_any(), taken[0].name_any());
        assert_eq!((status(&cluster).await.ready_replicas, daemon_status(&cluster).await.number_ready), (Some(1), 1));
    });
}

#[test]
fn revisions_of_a_set_that_was_deleted_alone_belong_to_the_next() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        up(&cluster, &json!({"template": web("app:2")})).await;
        let uids = async || history(&cluster, "web").await.into_iter().map(|one| one.metadata.uid).collect::<Vec<_>>();
        let before = uids().await;
        cluster.delete_with::<StatefulSet>("web", json!({"propagationPolicy": "Orphan"})).await;
        cluster.settle().await;
        up(&cluster, &json!({"template": web("app:2")})).await;
        assert_eq!(before, uids().await);
        let owned = |one: &ControllerRevision| !one.owner_references().is_empty();
        assert!(history(&cluster, "web").await.iter().all(owned));
    });
}

#[test]
fn a_revision_that_somebody_deleted_is_written_again() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let revision = history(&cluster, "agent").await.remove(0);
        cluster.delete::<ControllerRevision>(&revision.name_any()).await;
        cluster.settle().await;
        let again = history(&cluster, "agent").await.remove(0);
        assert_eq!(again.name_any(), revision.name_any());
        assert_ne!(again.metadata.uid, revision.metadata.uid);
    });
}
