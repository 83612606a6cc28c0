//! What is decided about jobs, as tables over `plan`: no API, no clock.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::backoff::Record;
use super::conditions::holding;
use super::manage::Work;
use super::plan::{Done, Plan, plan};
use super::pods::{FAILURES, INDEX, TRACKING};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> String {
    (now() - SignedDuration::from_secs(seconds)).to_string()
}

fn job(spec: &Value, status: &Value) -> Job {
    let mut whole = json!({"parallelism": 1, "backoffLimit": 6, "template": {"spec": {"restartPolicy": "Never", "containers": []}}});
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let metadata = json!({"name": "j", "namespace": "n", "uid": "j"});
    serde_json::from_value(json!({"metadata": metadata, "spec": whole, "status": status})).unwrap()
}

/// `a:Running`, `b:Failed:60` (so many seconds ago), `c:Running:going` (being deleted), `d#3:Succeeded` (of an index),
/// `e:Failed:untracked`, `f#0:Failed:tries=2`, `g:Failed:exit=42`, `h:Running:restarts=3`, `i:Running:ready`.
fn pod(text: &str) -> Arc<Pod> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap();
    let phase = parts.next().unwrap();
    let mut object = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "finalizers": [TRACKING], "annotations": {}},
        "spec": {"containers": []},
        "status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0}]},
    });
    let ended = matches!(phase, "Failed" | "Succeeded");
    let mut exit = json!({"exitCode": i32::from(phase == "Failed"), "finishedAt": ago(3600)});
    if let Some((_, index)) = name.split_once('#') {
        object["metadata"]["annotations"][INDEX] = json!(index);
    }
    for part in parts {
        match part.split_once('=').unwrap_or((part, "")) {
            ("going", _) => object["metadata"]["deletionTimestamp"] = json!(ago(0)),
            ("untracked", _) => object["metadata"]["finalizers"] = json!([]),
            ("tries", count) => object["metadata"]["annotations"][FAILURES] = json!(count),
            ("exit", code) => exit["exitCode"] = code.parse::<i32>().unwrap().into(),
            ("restarts", count) => {
                object["status"]["containerStatuses"][0]["restartCount"] = count.parse::<i32>().unwrap().into();
            }
            ("ready", _) => object["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            (seconds, _) => exit["finishedAt"] = json!(ago(seconds.parse().unwrap())),
        }
    }
    if ended {
        object["status"]["containerStatuses"][0]["state"] = json!({"terminated": exit});
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

fn pods(texts: &str) -> Vec<Arc<Pod>> {
    texts.split_whitespace().map(pod).collect()
}

fn planned(spec: &Value, status: &Value, texts: &str) -> Plan {
    plan(&job(spec, status), &pods(texts), Some(Record::default()), now()).unwrap()
}

/// What is done with pods, in short: `make 2`, `make 0,3`, `drop a b`, `end a`, or nothing; and the wait in seconds.
fn work(plan: &Plan) -> String {
    let names = |pods: &[Arc<Pod>]| pods.iter().flat_map(|pod| [" ".to_owned(), pod.name_any()]).collect::<String>();
    let text = match &plan.work {
        Work::None => String::new(),
        Work::Make(new) if new[0].index.is_none() => format!("make {}", new.len()),
        Work::Make(new) => {
            let indexes: Vec<String> = new.iter().map(|new| new.index.unwrap().to_string()).collect();
            format!("make {}", indexes.join(","))
        }
        Work::Drop(pods) => format!("drop{}", names(pods)),
        Work::End(pods) if pods.is_empty() => String::new(),
        Work::End(pods) => format!("end{}", names(pods)),
    };
    let wait = plan.again.map(|again| format!(" wait {}", again.as_secs())).unwrap_or_default();
    (text + &wait).trim().to_owned()
}

/// The reason of the verdict, and whether the job is over in the end.
fn end(plan: &Plan, done: Done) -> (String, bool) {
    let reason = plan.verdict.as_ref().map(|verdict| verdict.reason.clone()).unwrap_or_default();
    (reason, last(plan, done).1)
}

fn last(plan: &Plan, done: Done) -> (JobStatus, bool) {
    plan.last_status(&plan.first_status(done), |_| true, now())
}

#[test]
fn as_many_pods_run_as_the_job_still_needs() {
    let done = |count: i32| json!({"startTime": ago(60), "succeeded": count});
    let fixed = |completions: i32, parallelism: i32| json!({"completions": completions, "parallelism": parallelism});
    let table = [
        (fixed(1, 1), done(0), "", "make 1"),
        (fixed(5, 2), done(0), "", "make 2"),
        (fixed(5, 2), done(0), "a:Running", "make 1"),
        (fixed(5, 2), done(4), "", "make 1"),
        (fixed(5, 2), done(3), "a:Running b:Running", ""),
        (fixed(5, 2), done(4), "a:Running b:Pending", "drop b"),
        (fixed(5, 1), done(0), "a:Succeeded", "make 1"),
        (fixed(2, 0), done(0), "", ""),
        (fixed(2, 0), done(0), "a:Running", "drop a"),
        (fixed(2000, 1000), done(0), "", "make 500"),
        (json!({"parallelism": 3}), done(0), "a:Running", "make 2"),
        (json!({"parallelism": 3}), done(0), "a:Running b:Succeeded", ""),
        (json!({"parallelism": 3}), done(1), "", ""),
        (json!({"parallelism": 1}), done(0), "a:Running b:Running:ready", "drop a"),
        (json!({"suspend": true}), done(0), "", ""),
        (json!({"suspend": true}), done(0), "a:Running b:Failed", "drop a"),
        (fixed(3, 2), done(0), "a:Running:going", "wait 10"),
    ];
    for (spec, status, texts, expected) in table {
        assert_eq!(work(&planned(&spec, &status, texts)), expected, "{spec} {status} {texts}");
    }
}

#[test]
fn a_failed_pod_is_replaced_after_a_while() {
    let spec = json!({"completions": 3, "parallelism": 2});
    let started = json!({"startTime": ago(600)});
    for (texts, expected) in [
        ("a:Failed:0", "wait 10"),
        ("a:Failed:4", "wait 6"),
        ("a:Failed:10", "make 2"),
        ("a:Failed:30 b:Failed:5", "wait 15"),
        ("a:Failed:30 b:Failed:21", "make 2"),
        ("a:Failed:5 b:Running", "wait 5"),
        ("a:Failed:5 b:Succeeded:1", "make 2"),
        ("a:Failed:1 b:Succeeded:5", "wait 9"),
    ] {
        assert_eq!(work(&planned(&spec, &started, texts)), expected, "{texts}");
    }
}

#[test]
fn after_a_start_the_failures_are_read_off_the_pods() {
    let spec = json!({"completions": 2});
    let status = json!({"startTime": ago(600), "failed": 2});
    let all = pods("a:Failed:90:untracked b:Failed:5:untracked");
    let plan = plan(&job(&spec, &status), &all, None, now()).unwrap();
    assert_eq!(work(&plan), "wait 15");
}

#[test]
fn each_pod_is_counted_once_whatever_was_done_before() {
    let spec = json!({"completions": 9, "parallelism": 0});
    let table = [
        // New: written down first.
        ("a:Succeeded b:Failed", json!({}), (0, 0), ("a", "b"), "a b"),
        // Written down, finalizers still there.
        (
            "a:Succeeded",
            json!({"succeeded": 1, "uncountedTerminatedPods": {"succeeded": ["a"]}}),
            (1, 0),
            ("a", ""),
            "a",
        ),
        // Written down, finalizer gone.
        ("a:Succeeded:untracked", json!({"uncountedTerminatedPods": {"succeeded": ["a"]}}), (1, 0), ("", ""), ""),
        // Written down, the pod itself gone.
        (
            "",
            json!({"succeeded": 2, "uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["b"]}}),
            (3, 1),
            ("", ""),
            "",
        ),
        // Counted.
        ("a:Succeeded:untracked b:Failed:untracked", json!({"succeeded": 1, "failed": 1}), (1, 1), ("", ""), ""),
        // A pod that is deleted has failed, and stays so when it exits well after all.
        ("a:Running:going", json!({}), (0, 0), ("", "a"), "a"),
        ("a:Succeeded:going", json!({"uncountedTerminatedPods": {"failed": ["a"]}}), (0, 0), ("", "a"), "a"),
        ("a:Running b:Pending", json!({}), (0, 0), ("", ""), ""),
    ];
    for (texts, status, (succeeded, failed), book, released) in table {
        let mut status = status;
        status["startTime"] = json!(ago(60));
        let plan = planned(&json!({"completions": 9, "parallelism": 2}), &status, texts);
        let uncounted = plan.status.uncounted_terminated_pods.clone().unwrap();
        let names = |list: Option<Vec<String>>| list.unwrap_or_default().join(" ");
        assert_eq!(
            (plan.status.succeeded.unwrap_or(0), plan.status.failed.unwrap_or(0)),
            (succeeded, failed),
            "{texts}"
        );
        assert_eq!((names(uncounted.succeeded).as_str(), names(uncounted.failed).as_str()), book, "{texts}");
        assert_eq!(plan.release.iter().map(|pod| pod.name_any()).collect::<Vec<_>>().join(" "), released, "{texts}");
    }
    let mut status = json!({"startTime": ago(60), "succeeded": 1});
    status["uncountedTerminatedPods"] = json!({"succeeded": ["a", "b"], "failed": ["c"]});
    let plan = planned(&spec, &status, "a:Succeeded b:Succeeded c:Failed");
    let first = plan.first_status(Done::default());
    let (partly, _) = plan.last_status(&first, |uid| uid != "b", now());
    assert_eq!((partly.succeeded, partly.failed), (Some(2), Some(1)));
    assert_eq!(partly.uncounted_terminated_pods.unwrap().succeeded, Some(vec!["b".to_owned()]), "its finalizer stayed");
}

#[test]
fn pods_that_find_no_room_in_the_book_wait_for_the_next_look() {
    let texts: Vec<String> = (0..700).map(|number| format!("p{number}:Succeeded")).collect();
    let plan =
        planned(&json!({"completions": 700, "parallelism": 700}), &json!({"startTime": ago(9)}), &texts.join(" "));
    assert_eq!((plan.release.len(), end(&plan, Done::default()).1), (500, false));
}

#[test]
fn a_job_is_complete_when_enough_succeeded_and_nobody_is_at_work() {
    let started = |more: &Value| {
        let mut status = json!({"startTime": ago(60)});
        more.as_object().unwrap().iter().for_each(|(field, value)| status[field] = value.clone());
        status
    };
    let table = [
        (json!({"completions": 1}), started(&json!({})), "a:Succeeded", true),
        (json!({"completions": 2}), started(&json!({})), "a:Succeeded", false),
        (json!({"completions": 2}), started(&json!({"succeeded": 1})), "a:Succeeded", true),
        (json!({"completions": 2, "parallelism": 2}), started(&json!({"succeeded": 2})), "a:Running", false),
        (json!({"completions": 0}), started(&json!({})), "", true),
        (json!({"parallelism": 2}), started(&json!({})), "a:Succeeded b:Running", false),
        (json!({"parallelism": 2}), started(&json!({})), "a:Succeeded b:Failed", true),
        (json!({"completions": 1, "suspend": true}), started(&json!({"succeeded": 1})), "", true),
    ];
    for (spec, status, texts, complete) in table {
        let plan = planned(&spec, &status, texts);
        let expected = if complete { "CompletionsReached" } else { "" };
        assert_eq!(end(&plan, Done::default()), (expected.to_owned(), complete), "{spec} {texts}");
    }
    let plan = planned(&json!({"completions": 1}), &json!({"startTime": ago(60)}), "a:Succeeded");
    let first = plan.first_status(Done::default());
    assert!(holding(&first, "SuccessCriteriaMet").is_some() && holding(&first, "Complete").is_none());
    let (last, _) = last(&plan, Done::default());
    let complete = holding(&last, "Complete").unwrap();
    assert_eq!(complete.message.as_deref(), Some("Reached expected number of succeeded pods"));
    assert_eq!((last.succeeded, last.completion_time.unwrap().0), (Some(1), now()));
}

#[test]
fn a_job_fails_for_a_reason_and_only_when_its_pods_are_gone() {
    let table = [
        (json!({"backoffLimit": 0}), "a:Failed:0 b:Running", "BackoffLimitExceeded", "end b", false),
        (json!({"backoffLimit": 1}), "a:Failed b:Failed", "BackoffLimitExceeded", "", true),
        (json!({"activeDeadlineSeconds": 60}), "a:Running", "DeadlineExceeded", "end a", false),
        (json!({"activeDeadlineSeconds": 60}), "a:Running:going", "DeadlineExceeded", "", false),
        (json!({"activeDeadlineSeconds": 60}), "", "DeadlineExceeded", "", true),
    ];
    for (spec, texts, reason, expected, over) in table {
        let mut spec = spec;
        spec["completions"] = json!(3);
        let plan = planned(&spec, &json!({"startTime": ago(60)}), texts);
        let done = Done { deleted: expected.matches("end").count(), ..Done::default() };
        assert_eq!((end(&plan, done), work(&plan)), ((reason.to_owned(), over), expected.to_owned()), "{spec} {texts}");
        let first = plan.first_status(done);
        assert!(holding(&first, "FailureTarget").is_some(), "{spec}: announced before the pods are let go");
    }
    let early = planned(&json!({"activeDeadlineSeconds": 100}), &json!({"startTime": ago(60)}), "a:Running");
    assert_eq!(work(&early), "wait 40");
}

#[test]
fn what_was_announced_stays_and_all_that_was_begun_has_failed() {
    let announced = json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "m"}]);
    let status = json!({"startTime": ago(60), "conditions": announced});
    let plan = planned(&json!({"completions": 2}), &status, "a:Succeeded b:Running:going c:Pending:going");
    assert_eq!(end(&plan, Done::default()), ("DeadlineExceeded".to_owned(), false));
    let (last, _) = last(&plan, Done::default());
    assert_eq!((last.succeeded, last.failed, last.terminating), (Some(1), Some(2), Some(2)));
    assert_eq!(last.conditions.unwrap().len(), 1, "announced once");
}

#[test]
fn containers_that_start_again_in_their_pod_count_against_the_limit() {
    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": []}});
    let reason = |limit: i32, texts: &str| {
        let spec = json!({"backoffLimit": limit, "completions": 1, "template": template});
        end(&planned(&spec, &json!({"startTime": ago(60)}), texts), Done::default()).0
    };
    assert_eq!(reason(3, "a:Running:restarts=2"), "");
    assert_eq!(reason(3, "a:Running:restarts=3"), "BackoffLimitExceeded");
    assert_eq!(reason(0, "a:Running"), "");
    assert_eq!(reason(0, "a:Pending:restarts=1"), "BackoffLimitExceeded");
}

#[test]
fn a_failure_policy_lets_failures_pass_or_ends_the_job() {
    let rules = json!([
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [40]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]);
    let spec = json!({"completions": 2, "backoffLimit": 0, "podFailurePolicy": {"rules": rules}, "podReplacementPolicy": "Failed"});
    let plan = planned(&spec, &json!({"startTime": ago(60)}), "a:Failed:exit=40");
    assert_eq!((end(&plan, Done::default()).0, plan.release.len()), (String::new(), 1));
    assert_eq!(last(&plan, Done::default()).0.failed, None, "ignored");
    let plan = planned(&spec, &json!({"startTime": ago(60)}), "a:Failed:exit=42 b:Running");
    assert_eq!((end(&plan, Done::default()).0.as_str(), work(&plan)), ("PodFailurePolicy", "end b".to_owned()));
    let message = "Container c for pod n/a failed with exit code 42 matching FailJob rule at index 1";
    assert_eq!(plan.verdict.unwrap().message, message);
    let plan = planned(&spec, &json!({"startTime": ago(60)}), "a:Failed:exit=1");
    assert_eq!(end(&plan, Done::default()), ("BackoffLimitExceeded".to_owned(), true));
}

#[test]
fn a_pod_on_its_way_out_is_replaced_at_once_or_when_it_ended() {
    let started = json!({"startTime": ago(60)});
    let mut spec = json!({"completions": 2});
    let plan = planned(&spec, &started, "a:Running:going");
    assert_eq!((plan.release.len(), last(&plan, Done::default()).0.failed), (1, Some(1)));
    spec["podReplacementPolicy"] = json!("Failed");
    let plan = planned(&spec, &started, "a:Running:going");
    assert_eq!((work(&plan).as_str(), plan.release.len(), plan.status.terminating), ("", 0, Some(1)));
    let plan = planned(&spec, &started, "a:Failed:60:going");
    assert_eq!((work(&plan).as_str(), plan.release.len()), ("make 1", 1));
}

#[test]
fn each_index_has_one_pod_and_is_done_once() {
    let spec = |completions: i32, parallelism: i32| json!({"completionMode": "Indexed", "completions": completions, "parallelism": parallelism});
    let table = [
        (spec(4, 2), "", "", "make 0,1", ""),
        (spec(4, 4), "1,2", "a#0:Running", "make 3", "1,2"),
        (spec(4, 4), "", "a#0:Succeeded b#2:Succeeded c#1:Running", "make 3", "0,2"),
        (spec(4, 4), "0", "a#0:Succeeded b#1:Running c#2:Running d#3:Running", "", "0"),
        (spec(3, 3), "", "a#0:Running b#0:Running:ready c#1:Running d#2:Running", "drop a#0", ""),
        (spec(2, 2), "", "a#0:Running b#1:Running c#5:Running d:Running", "drop c#5 d", ""),
        (spec(2, 2), "0-5", "", "", "0,1"),
        (spec(2, 2), "", "a#7:Succeeded", "make 0,1", ""),
    ];
    for (spec, completed, texts, expected, indexes) in table {
        let plan = planned(&spec, &json!({"startTime": ago(60), "completedIndexes": completed}), texts);
        assert_eq!(work(&plan), expected, "{spec} {completed} {texts}");
        assert_eq!(plan.status.completed_indexes.unwrap_or_default(), indexes, "{spec} {completed} {texts}");
    }
    let plan = planned(
        &spec(2, 2),
        &json!({"startTime": ago(60), "completedIndexes": "0", "succeeded": 1}),
        "a#0:Succeeded b#1:Succeeded",
    );
    assert_eq!(end(&plan, Done::default()), ("CompletionsReached".to_owned(), true));
    assert_eq!(last(&plan, Done::default()).0.succeeded, Some(2));
}

#[test]
fn each_index_may_have_a_limit_of_its_own() {
    let spec = |more: &Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1,
            "backoffLimit": i32::MAX});
        more.as_object().unwrap().iter().for_each(|(field, value)| spec[field] = value.clone());
        spec
    };
    let started = json!({"startTime": ago(600)});
    // The first failure is kept until another pod has taken its count over.
    let plan = planned(&spec(&json!({})), &started, "a#0:Failed:2 b#1:Running c#2:Running");
    assert_eq!((work(&plan).as_str(), plan.release.len()), ("wait 8", 0));
    let plan = planned(&spec(&json!({})), &started, "a#0:Failed:20 b#1:Running c#2:Running");
    assert_eq!(work(&plan), "make 0");
    assert!(matches!(&plan.work, Work::Make(new) if new[0].failures == Some((1, 0))));
    let plan = planned(&spec(&json!({})), &started, "a#0:Failed:20 d#0:Running:tries=1 b#1:Running c#2:Running");
    assert_eq!((work(&plan).as_str(), plan.release.len()), ("", 1));
    // The second gives the index up, and the others go on.
    let plan = planned(&spec(&json!({})), &started, "d#0:Failed:0:tries=1 b#1:Running c#2:Running");
    assert_eq!((work(&plan).as_str(), plan.status.failed_indexes.as_deref()), ("", Some("0")));
    assert_eq!(end(&plan, Done::default()).0, "");
    // When all are done or given up, the job has failed.
    let plan = planned(&spec(&json!({})), &started, "d#0:Failed:0:tries=1 b#1:Succeeded c#2:Succeeded");
    assert_eq!(end(&plan, Done::default()), ("FailedIndexes".to_owned(), true));
    // Or when too many are given up.
    let plan = planned(&spec(&json!({"maxFailedIndexes": 0})), &started, "d#0:Failed:0:tries=1 b#1:Running");
    assert_eq!((end(&plan, Done::default()).0.as_str(), work(&plan).as_str()), ("MaxFailedIndexesExceeded", "end b#1"));
    let fail = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [5]}}]});
    let plan =
        planned(&spec(&json!({"podFailurePolicy": fail})), &started, "a#1:Failed:exit=5 b#0:Running c#2:Running");
    assert_eq!(plan.status.failed_indexes.as_deref(), Some("1"), "at once");
}

#[test]
fn a_success_policy_ends_a_job_before_all_is_done() {
    let rules = json!({"rules": [{"succeededIndexes": "0", "succeededCount": 1}]});
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "successPolicy": rules});
    let plan = planned(&spec, &json!({"startTime": ago(60)}), "a#0:Succeeded b#1:Running c#2:Running");
    assert_eq!((end(&plan, Done::default()).0.as_str(), work(&plan).as_str()), ("SuccessPolicy", "end b#1 c#2"));
    let (last, _) = last(&plan, Done { deleted: 2, ..Done::default() });
    assert_eq!((last.failed, last.succeeded, last.terminating), (None, Some(1), Some(2)), "the others did not fail");
}

#[test]
fn suspending_stops_the_clock_and_resuming_starts_it_anew() {
    let running = json!({"startTime": ago(3000)});
    let suspended = planned(&json!({"suspend": true, "activeDeadlineSeconds": 60}), &running, "a:Running:ready");
    assert_eq!(
        (work(&suspended).as_str(), suspended.events.as_slice()),
        ("drop a", [("Suspended", "Job suspended")].as_slice())
    );
    let status = suspended.first_status(Done { deleted: 1, ready: 1, ..Done::default() });
    assert!(holding(&status, "Suspended").is_some() && status.start_time.is_none());
    assert_eq!((status.active, status.ready, status.terminating), (None, Some(0), Some(1)));
    let again = planned(&json!({"suspend": true}), &serde_json::to_value(&status).unwrap(), "");
    assert!(again.events.is_empty(), "said once");
    let resumed = planned(&json!({"activeDeadlineSeconds": 60}), &serde_json::to_value(&status).unwrap(), "");
    assert_eq!(
        (work(&resumed).as_str(), resumed.events.as_slice()),
        ("make 1 wait 60", [("Resumed", "Job resumed")].as_slice())
    );
    assert!(holding(&resumed.status, "Suspended").is_none());
    assert_eq!(resumed.status.start_time.unwrap().0, now());
    let fresh = planned(&json!({}), &json!({}), "");
    assert!(
        fresh.events.is_empty() && fresh.status.conditions.is_none(),
        "a job that was never suspended says nothing"
    );
}

#[test]
fn a_job_that_is_deleted_makes_nothing_and_lets_everything_go() {
    let mut job = job(&json!({"completions": 3, "parallelism": 3}), &json!({"startTime": ago(60)}));
    job.metadata.deletion_timestamp = Some(now().into());
    let plan = plan(&job, &pods("a:Running b:Running:going c:Succeeded"), None, now()).unwrap();
    assert_eq!((work(&plan).as_str(), plan.release.len(), plan.track.len()), ("", 3, 0));
}

#[test]
fn a_pod_that_nobody_would_count_is_held_again() {
    let plan = planned(
        &json!({"completions": 2, "parallelism": 2}),
        &json!({"startTime": ago(60)}),
        "a:Running:untracked b:Running",
    );
    assert_eq!(plan.track.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["a"]);
}
