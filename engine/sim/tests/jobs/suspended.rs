//! Jobs that are held for a while.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use super::{MINUTE, active, counts, end_of, ended, events, holding, job, pods, status, until_active, with_job};

#[test]
fn a_suspended_job_makes_nothing_until_it_is_resumed() {
    with_job(job(&[("exit", "0")], json!({"suspend": true})), async |cluster| {
        cluster.settle().await;
        let held = status(&cluster).await;
        assert!(pods(&cluster).await.is_empty() && held.start_time.is_none());
        assert_eq!(holding(&held, "Suspended").unwrap().reason.as_deref(), Some("JobSuspended"));
        assert_eq!(events(&cluster, "work", "Suspended").await, ["Job suspended"]);
        cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
        let status = ended(&cluster).await;
        assert_eq!(counts(&status), (1, 0));
        let condition = status.conditions.iter().flatten().find(|it| it.type_ == "Suspended").unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("JobResumed")));
        assert_eq!(events(&cluster, "work", "Resumed").await, ["Job resumed"]);
    });
}

#[test]
fn suspending_ends_the_pods_that_run_and_none_of_them_has_failed() {
    with_job(job(&[], json!({"completions": 5, "parallelism": 3, "backoffLimit": 0})), async |cluster| {
        until_active(&cluster, 3).await;
        cluster.patch::<Job>("work", json!({"spec": {"suspend": true}})).await;
        cluster.settle().await;
        let held = status(&cluster).await;
        assert!(pods(&cluster).await.is_empty());
        assert_eq!((held.active, counts(&held), held.start_time), (None, (0, 0), None));
        cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
        until_active(&cluster, 3).await;
        assert_eq!(end_of(&status(&cluster).await), "");
    });
}

#[test]
fn what_was_done_before_still_counts_afterwards() {
    let does = [("exits-by-attempt", "0,-,0,0")];
    with_job(job(&does, json!({"completions": 3})), async |cluster| {
        let one = async |cluster: &Cluster| status(cluster).await.succeeded == Some(1) && active(cluster).await == 1;
        cluster.until("one is done and the next runs", MINUTE, one).await;
        for suspend in [true, false] {
            cluster.patch::<Job>("work", json!({"spec": {"suspend": suspend}})).await;
            cluster.run_for(Duration::from_secs(20)).await;
        }
        assert_eq!(counts(&ended(&cluster).await), (3, 0));
    });
}

#[test]
fn the_deadline_is_counted_from_the_resumption() {
    with_job(job(&[], json!({"activeDeadlineSeconds": 60})), async |cluster| {
        cluster.run_for(Duration::from_secs(40)).await;
        cluster.patch::<Job>("work", json!({"spec": {"suspend": true}})).await;
        cluster.run_for(Duration::from_mins(5)).await;
        assert_eq!(end_of(&status(&cluster).await), "", "the clock stands");
        cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
        cluster.run_for(Duration::from_secs(50)).await;
        assert_eq!(end_of(&status(&cluster).await), "", "and begins anew");
        assert_eq!(end_of(&ended(&cluster).await), "Failed DeadlineExceeded");
    });
}

#[test]
fn where_and_with_what_pods_run_may_change_while_the_job_is_held() {
    let pod = |selector: Value, cpu: &str| {
        json!({"spec": {"template": {"spec": {"nodeSelector": selector,
            "containers": [{"name": "main", "image": "app:1", "resources": {"requests": {"cpu": cpu}}}]}}}})
    };
    with_job(job(&[], json!({"suspend": true})), async |cluster| {
        cluster.settle().await;
        cluster.patch::<Job>("work", pod(json!({"kubernetes.io/hostname": "node-1"}), "100m")).await;
        cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
        until_active(&cluster, 1).await;
        let made = pods(&cluster).await.remove(0).spec.unwrap();
        assert_eq!(made.node_name.as_deref(), Some("node-1"));
        assert_eq!(made.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "100m");
        let path = "/apis/batch/v1/namespaces/default/jobs/work";
        let change = pod(json!({"kubernetes.io/hostname": "node-0"}), "200m");
        let refused = cluster.call(http::Method::PATCH, path, "application/merge-patch+json", &change).await;
        assert!(refused.unwrap_err().to_string().contains("field is immutable"), "not while it runs");
        // A job that ran before may be changed too, once its pods are gone.
        cluster.patch::<Job>("work", json!({"spec": {"suspend": true}})).await;
        cluster.settle().await;
        cluster.patch::<Job>("work", change).await;
        cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
        until_active(&cluster, 1).await;
        assert_eq!(pods(&cluster).await.remove(0).spec.unwrap().node_name.as_deref(), Some("node-0"));
    });
}
