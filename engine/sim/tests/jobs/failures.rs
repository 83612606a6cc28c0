//! What becomes of failures: tried again, counted, let pass, or the end of the job.

use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use super::{
    MINUTE, active, counts, end_of, ended, events, holding, is_active, job, made, phase, pods, status, until_active,
    with_job,
};

/// A failure policy of rules on exit codes.
fn on_exit(rules: &[(&str, i32)]) -> Value {
    let rule =
        |(action, code): &(&str, i32)| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    json!({"rules": rules.iter().map(rule).collect::<Vec<_>>()})
}

#[test]
fn failed_pods_are_replaced_after_ten_seconds_and_twice_as_long_each_time() {
    with_job(job(&[("exits-by-attempt", "1,1,1,1,0")], json!({"backoffLimit": 10})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!(counts(&status), (1, 4));
        let made = made(&cluster).await;
        let waits: Vec<i64> = made.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (wait, least) in waits.iter().zip([10, 20, 40, 80]) {
            assert!((least..least + 4).contains(wait), "{waits:?}");
        }
    });
}

#[test]
fn the_wait_is_never_longer_than_six_minutes() {
    with_job(job(&[("exit", "1")], json!({"backoffLimit": 8})), async |cluster| {
        ended(&cluster).await;
        let made = made(&cluster).await;
        let longest = made.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!((360..364).contains(&longest), "{made:?}");
    });
}

#[test]
fn more_failures_than_the_limit_are_the_end() {
    for limit in [0, 1, 3] {
        with_job(job(&[("exit", "1")], json!({"backoffLimit": limit, "completions": 2})), async |cluster| {
            let status = ended(&cluster).await;
            assert_eq!((end_of(&status).as_str(), counts(&status)), ("Failed BackoffLimitExceeded", (0, limit + 1)));
            assert!(holding(&status, "FailureTarget").is_some() && status.completion_time.is_none());
            cluster.settle().await;
            assert_eq!(i32::try_from(pods(&cluster).await.len()), Ok(limit + 1), "they are kept to be looked at");
            let message = "Job has reached the specified backoff limit";
            assert_eq!(events(&cluster, "work", "BackoffLimitExceeded").await, [message]);
        });
    }
}

#[test]
fn a_job_that_failed_takes_along_what_still_runs() {
    let does = [("exits-by-attempt", "1,-,-"), ("stop-after", "5s")];
    with_job(job(&does, json!({"completions": 3, "parallelism": 3, "backoffLimit": 0})), async |cluster| {
        let announced = async |cluster: &Cluster| holding(&status(cluster).await, "FailureTarget").is_some();
        cluster.until("the failure is announced", MINUTE, announced).await;
        let target = status(&cluster).await;
        assert_eq!((end_of(&target).as_str(), target.terminating), ("", Some(2)), "not over before the last has ended");
        let last = ended(&cluster).await;
        assert_eq!((last.active, last.terminating, counts(&last)), (None, Some(0), (0, 3)));
        assert!(pods(&cluster).await.iter().all(|pod| matches!(phase(pod), "Failed")));
    });
}

#[test]
fn containers_that_are_started_again_in_their_pod_count_too() {
    let mut work = job(&[("exit", "1")], json!({"backoffLimit": 2}));
    work["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    with_job(work, async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!(end_of(&status), "Failed BackoffLimitExceeded");
        cluster.settle().await;
        assert_eq!(active(&cluster).await, 0);
    });
}

#[test]
fn a_container_that_succeeds_in_the_end_is_a_success() {
    let mut work = job(&[("exits-by-attempt", "1,0")], json!({"backoffLimit": 3}));
    work["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    with_job(work, async |cluster| {
        assert_eq!(counts(&ended(&cluster).await), (1, 0));
        assert_eq!(pods(&cluster).await.len(), 1);
    });
}

#[test]
fn a_job_may_not_run_longer_than_its_deadline() {
    with_job(job(&[], json!({"activeDeadlineSeconds": 30, "completions": 2, "parallelism": 2})), async |cluster| {
        cluster.run_for(Duration::from_secs(27)).await;
        assert_eq!(active(&cluster).await, 2);
        let status = ended(&cluster).await;
        assert_eq!((end_of(&status).as_str(), counts(&status)), ("Failed DeadlineExceeded", (0, 2)));
        let end = holding(&status, "FailureTarget").unwrap().last_transition_time.unwrap().0;
        assert_eq!(end.duration_since(status.start_time.unwrap().0).as_secs(), 30);
        let message = "Job was active longer than specified deadline";
        assert_eq!(events(&cluster, "work", "DeadlineExceeded").await, [message]);
    });
}

#[test]
fn the_deadline_comes_before_further_tries() {
    with_job(job(&[("exit", "1")], json!({"activeDeadlineSeconds": 25, "backoffLimit": 100})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((end_of(&status).as_str(), counts(&status)), ("Failed DeadlineExceeded", (0, 2)));
    });
}

#[test]
fn a_pod_that_somebody_deletes_counts_as_failed_and_is_replaced() {
    with_job(job(&[], json!({})), async |cluster| {
        until_active(&cluster, 1).await;
        let first = pods(&cluster).await.remove(0);
        cluster.delete::<Pod>(first.metadata.name.as_deref().unwrap()).await;
        cluster.settle().await;
        assert_eq!(counts(&status(&cluster).await), (0, 1));
        let after = pods(&cluster).await;
        assert_eq!(after.len(), 1);
        assert_ne!(after[0].metadata.uid, first.metadata.uid);
    });
}

#[test]
fn a_pod_on_its_way_out_is_replaced_when_the_policy_says() {
    // Whether another pod may run beside one that is ending.
    for (policy, beside) in [("TerminatingOrFailed", true), ("Failed", false)] {
        with_job(job(&[("stop-after", "25s")], json!({"podReplacementPolicy": policy})), async |cluster| {
            until_active(&cluster, 1).await;
            let first = pods(&cluster).await.remove(0);
            cluster.delete::<Pod>(first.metadata.name.as_deref().unwrap()).await;
            cluster.run_for(Duration::from_secs(15)).await;
            let between = status(&cluster).await;
            assert_eq!((between.terminating, active(&cluster).await == 1), (Some(1), beside), "{policy}");
            until_active(&cluster, 1).await;
            cluster.settle().await;
            assert_eq!((status(&cluster).await.terminating, active(&cluster).await), (Some(0), 1));
        });
    }
}

#[test]
fn an_exit_code_may_end_the_job_at_once() {
    let spec = json!({"completions": 2, "parallelism": 2, "podReplacementPolicy": "Failed",
        "podFailurePolicy": on_exit(&[("FailJob", 42)])});
    with_job(job(&[("exits-by-attempt", "42,-")], spec), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!(end_of(&status), "Failed PodFailurePolicy");
        let message = holding(&status, "Failed").unwrap().message.unwrap();
        assert!(message.starts_with("Container main for pod default/work-"), "{message}");
        assert!(message.ends_with("failed with exit code 42 matching FailJob rule at index 0"), "{message}");
        cluster.settle().await;
        assert_eq!(active(&cluster).await, 0);
    });
}

#[test]
fn an_exit_code_may_be_let_pass() {
    let spec =
        json!({"backoffLimit": 0, "podReplacementPolicy": "Failed", "podFailurePolicy": on_exit(&[("Ignore", 5)])});
    with_job(job(&[("exits-by-attempt", "5,5,0")], spec.clone()), async |cluster| {
        assert_eq!(counts(&ended(&cluster).await), (1, 0));
    });
    with_job(job(&[("exits-by-attempt", "5,6,0")], spec), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((end_of(&status).as_str(), counts(&status)), ("Failed BackoffLimitExceeded", (0, 1)));
    });
}

#[test]
fn the_first_rule_that_fits_decides() {
    let spec = json!({"backoffLimit": 0, "podReplacementPolicy": "Failed",
        "podFailurePolicy": on_exit(&[("Count", 7), ("FailJob", 7)])});
    with_job(job(&[("exit", "7")], spec), async |cluster| {
        assert_eq!(end_of(&ended(&cluster).await), "Failed BackoffLimitExceeded");
    });
}

#[test]
fn a_disruption_may_be_let_pass() {
    let pattern = json!([{"type": "DisruptionTarget"}]);
    let spec = json!({"backoffLimit": 0, "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": pattern}]}});
    with_job(job(&[("exit-on-term", "1")], spec), async |cluster| {
        until_active(&cluster, 1).await;
        let name = pods(&cluster).await.remove(0).metadata.name.unwrap();
        let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
        let evicted = cluster.call(Method::POST, &path, "application/json", &json!({"metadata": {"name": name}})).await;
        evicted.unwrap();
        let replaced = async |cluster: &Cluster| {
            pods(cluster).await.iter().any(|pod| is_active(pod) && pod.metadata.name.as_deref() != Some(&name))
        };
        cluster.until("it is replaced", MINUTE, replaced).await;
        let after = status(&cluster).await;
        assert_eq!((end_of(&after).as_str(), counts(&after)), ("", (0, 0)));
    });
}
