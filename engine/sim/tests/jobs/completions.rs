//! How many pods a job runs, and when it is complete.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use serde_json::json;
use shipway_sim::Cluster;

use super::{
    MINUTE, TRACKING, active, counts, end_of, ended, events, holding, is_held, job, phase, pods, status, until_active,
    with_job,
};

#[test]
fn a_job_runs_one_pod_to_its_end_and_keeps_it() {
    with_job(job(&[("exit", "0")], json!({})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((end_of(&status).as_str(), counts(&status)), ("Complete CompletionsReached", (1, 0)));
        assert!(holding(&status, "SuccessCriteriaMet").is_some());
        assert!(status.completion_time.as_ref().unwrap().0 > status.start_time.as_ref().unwrap().0);
        assert_eq!((status.active, status.ready, status.terminating), (None, Some(0), Some(0)));
        cluster.settle().await;
        let pods = pods(&cluster).await;
        assert_eq!((pods.len(), phase(&pods[0])), (1, "Succeeded"), "its logs can still be read");
        assert!(!is_held(&pods[0]), "and nothing is in the way of its deletion");
        assert_eq!(events(&cluster, "work", "Completed").await, ["Job completed"]);
        assert_eq!(events(&cluster, "work", "SuccessfulCreate").await.len(), 1);
    });
}

#[test]
fn a_pod_says_whose_it_is() {
    with_job(job(&[], json!({})), async |cluster| {
        until_active(&cluster, 1).await;
        let work: Job = cluster.get("work").await.unwrap();
        let uid = work.metadata.uid.unwrap();
        let pod = pods(&cluster).await.remove(0);
        let labels = pod.metadata.labels.unwrap();
        for (label, value) in [
            ("batch.kubernetes.io/controller-uid", uid.as_str()),
            ("controller-uid", uid.as_str()),
            ("batch.kubernetes.io/job-name", "work"),
            ("job-name", "work"),
        ] {
            assert_eq!(labels[label], value);
        }
        assert!(pod.metadata.name.unwrap().starts_with("work-"));
        assert_eq!(pod.metadata.finalizers.unwrap(), [TRACKING], "it is not gone before it is counted");
        let owner = pod.metadata.owner_references.unwrap().remove(0);
        assert_eq!((owner.kind.as_str(), owner.uid, owner.controller), ("Job", uid, Some(true)));
    });
}

#[test]
fn no_more_pods_run_than_parallelism_and_remaining_completions_allow() {
    for (completions, parallelism) in [(1, 1), (5, 1), (5, 2), (3, 10), (7, 7)] {
        let spec = json!({"completions": completions, "parallelism": parallelism});
        with_job(job(&[("exit", "0")], spec), async |cluster| {
            let most = usize::try_from(parallelism.min(completions)).unwrap();
            cluster.always("not too many", MINUTE, async |cluster| active(cluster).await <= most).await;
            let status = ended(&cluster).await;
            assert_eq!(counts(&status), (completions, 0), "{completions} by {parallelism}");
            assert_eq!(i32::try_from(pods(&cluster).await.len()), Ok(completions), "none too many was made");
        });
    }
}

#[test]
fn the_status_follows_the_pods() {
    with_job(job(&[("ready-after", "5s")], json!({"completions": 3, "parallelism": 2})), async |cluster| {
        until_active(&cluster, 2).await;
        cluster.run_for(Duration::from_secs(1)).await;
        let before = status(&cluster).await;
        assert_eq!((before.active, before.ready, before.succeeded), (Some(2), Some(0), None));
        assert!(before.start_time.is_some() && before.completion_time.is_none());
        cluster.settle().await;
        assert_eq!(status(&cluster).await.ready, Some(2));
    });
}

#[test]
fn without_completions_the_first_success_says_that_the_work_is_done() {
    let does = [("exits-by-attempt", "0,1,1,0")];
    with_job(job(&does, json!({"parallelism": 3})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((end_of(&status).as_str(), counts(&status)), ("Complete CompletionsReached", (1, 2)));
        assert_eq!(pods(&cluster).await.len(), 3, "no pod is made after the first success");
    });
}

#[test]
fn without_completions_pods_that_still_run_may_finish() {
    let does = [("exits-by-attempt", "0,-,-")];
    with_job(job(&does, json!({"parallelism": 3})), async |cluster| {
        cluster.settle().await;
        let before = status(&cluster).await;
        assert_eq!((end_of(&before).as_str(), counts(&before), before.active), ("", (1, 0), Some(2)));
    });
}

#[test]
fn no_completions_at_all_are_reached_at_once() {
    with_job(job(&[], json!({"completions": 0})), async |cluster| {
        assert_eq!(counts(&ended(&cluster).await), (0, 0));
        assert!(pods(&cluster).await.is_empty());
    });
}

#[test]
fn a_parallelism_of_nought_pauses_a_job() {
    with_job(job(&[("exit", "0")], json!({"completions": 2, "parallelism": 0})), async |cluster| {
        cluster.settle().await;
        assert!(pods(&cluster).await.is_empty());
        cluster.patch::<Job>("work", json!({"spec": {"parallelism": 2}})).await;
        assert_eq!(counts(&ended(&cluster).await), (2, 0));
    });
}

#[test]
fn parallelism_may_change_and_pods_that_go_for_it_have_not_failed() {
    with_job(job(&[], json!({"completions": 10, "parallelism": 4})), async |cluster| {
        until_active(&cluster, 4).await;
        for count in [1, 6] {
            cluster.patch::<Job>("work", json!({"spec": {"parallelism": count}})).await;
            cluster.settle().await;
            assert_eq!(active(&cluster).await, count);
        }
        assert_eq!(counts(&status(&cluster).await), (0, 0));
        assert_eq!(events(&cluster, "work", "SuccessfulDelete").await.len(), 3);
    });
}

#[test]
fn a_selector_of_ones_own_takes_over_pods_that_nobody_has() {
    Cluster::builder().run(async |cluster| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "free", "labels": {"app": "mine"},
            "annotations": {"sim/exit": "0", "sim/after": "20s"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "app:1"}]}});
        cluster.create(pod).await.unwrap();
        let mut work = job(&[], json!({"manualSelector": true, "selector": {"matchLabels": {"app": "mine"}}}));
        work["spec"]["template"]["metadata"]["labels"] = json!({"app": "mine"});
        cluster.create(work).await.unwrap();
        assert_eq!(counts(&ended(&cluster).await), (1, 0));
        let pods = cluster.pods("app=mine").await;
        assert_eq!((pods.len(), pods[0].metadata.name.as_deref()), (1, Some("free")), "it did all the work");
    });
}
