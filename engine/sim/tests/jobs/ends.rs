//! Jobs that are deleted, cleaned away, or somebody else's.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use serde_json::json;
use shipway_sim::Cluster;

use super::{HOUR, MINUTE, counts, end_of, ended, is_active, is_held, job, pods, status, until_active, with_job};

async fn gone(cluster: &Cluster) {
    let gone = async |cluster: &Cluster| cluster.get::<Job>("work").await.is_none();
    cluster.until("the job is gone", HOUR, gone).await;
}

#[test]
fn a_deleted_job_takes_its_pods_along() {
    for policy in ["Background", "Foreground"] {
        let does = [("exits-by-attempt", "0,-,-"), ("stop-after", "3s")];
        with_job(job(&does, json!({"completions": 5, "parallelism": 2})), async |cluster| {
            let one = async |cluster: &Cluster| status(cluster).await.succeeded == Some(1);
            cluster.until("one is done", MINUTE, one).await;
            cluster.delete_with::<Job>("work", json!({"propagationPolicy": policy})).await;
            gone(&cluster).await;
            cluster.settle().await;
            assert!(pods(&cluster).await.is_empty(), "{policy}");
        });
    }
}

#[test]
fn pods_that_outlive_their_job_are_not_held() {
    // Which they do also when nobody says so: an old promise of this kind.
    for options in [json!({"propagationPolicy": "Orphan"}), json!({})] {
        with_job(job(&[], json!({"completions": 2, "parallelism": 2})), async |cluster| {
            until_active(&cluster, 2).await;
            cluster.delete_with::<Job>("work", options).await;
            gone(&cluster).await;
            cluster.settle().await;
            let left = pods(&cluster).await;
            assert_eq!(left.len(), 2);
            assert!(left.iter().all(|pod| is_active(pod) && !is_held(pod)));
        });
    }
}

#[test]
fn a_job_that_is_over_is_cleaned_away_in_its_time() {
    for (codes, end) in [("0", "Complete CompletionsReached"), ("1", "Failed BackoffLimitExceeded")] {
        let spec = json!({"ttlSecondsAfterFinished": 100, "backoffLimit": 0});
        with_job(job(&[("exit", codes)], spec), async |cluster| {
            assert_eq!(end_of(&ended(&cluster).await), end);
            cluster.run_for(Duration::from_secs(97)).await;
            assert!(cluster.get::<Job>("work").await.is_some(), "not before");
            cluster.run_for(Duration::from_secs(5)).await;
            gone(&cluster).await;
            assert!(pods(&cluster).await.is_empty());
        });
    }
}

#[test]
fn a_job_may_be_cleaned_away_at_once_or_be_told_to_later() {
    with_job(job(&[("exit", "0")], json!({"ttlSecondsAfterFinished": 0})), async |cluster| {
        gone(&cluster).await;
    });
    with_job(job(&[("exit", "0")], json!({})), async |cluster| {
        ended(&cluster).await;
        cluster.run_for(HOUR).await;
        assert!(cluster.get::<Job>("work").await.is_some(), "without a time it is kept");
        cluster.patch::<Job>("work", json!({"spec": {"ttlSecondsAfterFinished": 60}})).await;
        gone(&cluster).await;
    });
}

#[test]
fn a_job_that_somebody_else_manages_is_left_alone() {
    with_job(job(&[("exit", "0")], json!({"managedBy": "example.com/queue"})), async |cluster| {
        cluster.settle().await;
        let work: Job = cluster.get("work").await.unwrap();
        assert!(pods(&cluster).await.is_empty());
        assert_eq!(work.status.unwrap_or_default(), JobStatus::default());
    });
    with_job(job(&[("exit", "0")], json!({"managedBy": "kubernetes.io/job-controller"})), async |cluster| {
        assert_eq!(counts(&ended(&cluster).await), (1, 0));
    });
}
