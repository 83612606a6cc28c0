//! Jobs whose completions have numbers.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use super::{MINUTE, active, counts, end_of, ended, is_active, job, pods, status, until_active, with_job};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";

#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn indexed(does: &[(&str, &str)], completions: i32, more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed", "completions": completions, "parallelism": completions});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job(does, spec)
}

fn index(pod: &Pod) -> u32 {
    pod.metadata.annotations.as_ref().unwrap()[INDEX].parse().unwrap()
}

#[test]
fn each_index_is_completed_once_by_a_pod_that_knows_it() {
    with_job(indexed(&[("exit", "0")], 4, json!({"parallelism": 3})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((counts(&status), status.completed_indexes.as_deref()), ((4, 0), Some("0-3")));
        let pods = pods(&cluster).await;
        assert_eq!(pods.iter().map(index).collect::<BTreeSet<_>>(), (0..4).collect());
        for pod in &pods {
            let (index, spec) = (index(pod), pod.spec.as_ref().unwrap());
            assert!(pod.metadata.name.as_ref().unwrap().starts_with(&format!("work-{index}-")));
            assert_eq!(spec.hostname.as_deref(), Some(format!("work-{index}").as_str()));
            assert_eq!(pod.metadata.labels.as_ref().unwrap()[INDEX], index.to_string());
            let variable = &spec.containers[0].env.as_ref().unwrap()[0];
            let path = &variable.value_from.as_ref().unwrap().field_ref.as_ref().unwrap().field_path;
            assert_eq!(
                (variable.name.as_str(), path.as_str()),
                ("JOB_COMPLETION_INDEX", &*format!("metadata.labels['{INDEX}']"))
            );
        }
    });
}

#[test]
fn low_indexes_come_first_and_one_that_failed_comes_again() {
    let does = [("exits-by-index", "0,0,0"), ("exits-by-attempt", "0")];
    with_job(indexed(&does, 3, json!({"parallelism": 1})), async |cluster| {
        ended(&cluster).await;
        let mut pods = pods(&cluster).await;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().unwrap().0);
        assert_eq!(pods.iter().map(index).collect::<Vec<_>>(), [0, 1, 2]);
    });
    with_job(indexed(&[("exits-by-attempt", "1,0")], 2, json!({})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((counts(&status), status.completed_indexes.as_deref()), ((2, 2), Some("0,1")));
        let mut indexes: Vec<u32> = pods(&cluster).await.iter().map(index).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, [0, 0, 1, 1]);
    });
}

#[test]
fn an_index_may_have_a_limit_of_its_own() {
    let does = [("exits-by-index", "0,1,0,0")];
    with_job(indexed(&does, 4, json!({"backoffLimitPerIndex": 1})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((end_of(&status).as_str(), counts(&status)), ("Failed FailedIndexes", (3, 2)));
        assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0,2,3"), Some("1")));
        let tries = pods(&cluster).await.into_iter().filter(|pod| index(pod) == 1);
        let counts =
            tries.map(|pod| pod.metadata.annotations.unwrap()["batch.kubernetes.io/job-index-failure-count"].clone());
        assert_eq!(counts.collect::<BTreeSet<_>>(), ["0".to_owned(), "1".to_owned()].into());
    });
}

#[test]
fn a_failing_index_does_not_hold_up_the_others() {
    let does = [("exits-by-index", "1,0,0,0,0,0")];
    let spec = json!({"backoffLimitPerIndex": 4, "parallelism": 2});
    with_job(indexed(&does, 6, spec), async |cluster| {
        let done = async |cluster: &Cluster| status(cluster).await.completed_indexes.as_deref() == Some("1-5");
        cluster.until("the others are done", MINUTE, done).await;
        assert_eq!(end_of(&status(&cluster).await), "");
    });
}

#[test]
fn too_many_failed_indexes_are_the_end() {
    let does = [("exits-by-index", "1,1,-,-")];
    with_job(indexed(&does, 4, json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1})), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!(
            (end_of(&status).as_str(), status.failed_indexes.as_deref()),
            ("Failed MaxFailedIndexesExceeded", Some("0,1"))
        );
        cluster.settle().await;
        assert_eq!(active(&cluster).await, 0);
    });
}

#[test]
fn an_exit_code_may_give_its_index_up_at_once() {
    let rule = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [9]}}]});
    let spec = json!({"backoffLimitPerIndex": 5, "podFailurePolicy": rule, "podReplacementPolicy": "Failed"});
    with_job(indexed(&[("exits-by-index", "0,9")], 2, spec), async |cluster| {
        let status = ended(&cluster).await;
        assert_eq!((status.failed_indexes.as_deref(), counts(&status)), (Some("1"), (1, 1)));
        assert_eq!(pods(&cluster).await.len(), 2, "it was not tried again");
    });
}

#[test]
fn a_success_policy_may_ask_for_less_than_all() {
    let table = [
        (json!([{"succeededIndexes": "0"}]), "0,-,-,-", "0"),
        (json!([{"succeededCount": 2}]), "-,0,-,0", "1,3"),
        (json!([{"succeededIndexes": "1-3", "succeededCount": 1}]), "-,-,0,-", "2"),
    ];
    for (rules, codes, done) in table {
        let spec = json!({"successPolicy": {"rules": rules}});
        with_job(indexed(&[("exits-by-index", codes)], 4, spec), async |cluster| {
            let status = ended(&cluster).await;
            assert_eq!(
                (end_of(&status).as_str(), status.completed_indexes.as_deref()),
                ("Complete SuccessPolicy", Some(done))
            );
            assert_eq!(status.failed, None, "what was ended for it has not failed");
            cluster.settle().await;
            assert_eq!(active(&cluster).await, 0);
        });
    }
}

#[test]
fn completions_may_change_with_parallelism() {
    with_job(indexed(&[], 2, json!({})), async |cluster| {
        until_active(&cluster, 2).await;
        for count in [4_usize, 1, 3] {
            let spec = json!({"spec": {"completions": count, "parallelism": count}});
            cluster.patch::<Job>("work", spec).await;
            cluster.settle().await;
            let active: BTreeSet<u32> = pods(&cluster).await.iter().filter(|pod| is_active(pod)).map(index).collect();
            assert_eq!(active, (0..u32::try_from(count).unwrap()).collect(), "the highest indexes come and go");
        }
        assert_eq!(counts(&status(&cluster).await), (0, 0));
    });
}
