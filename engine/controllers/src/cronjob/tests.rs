//! What is decided about cron jobs, as tables over `plan`: no API, no clock.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::make::SCHEDULED;
use super::plan::{Plan, plan};

fn cron(spec: &Value, last: Option<&str>, active: &[&str]) -> CronJob {
    let mut whole = json!({"schedule": "*/10 * * * *", "timeZone": "UTC", "jobTemplate": {
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"template": {}}}});
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let active: Vec<Value> = active.iter().map(|name| json!({"kind": "Job", "name": name, "uid": name})).collect();
    let metadata = json!({"name": "c", "namespace": "n", "uid": "c", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let status = json!({"lastScheduleTime": last, "active": active});
    serde_json::from_value(json!({"metadata": metadata, "spec": whole, "status": status})).unwrap()
}

/// A job of the name that runs, or ended so and began at that minute.
fn job(name: &str, end: &str, minute: u32) -> Arc<Job> {
    let started = format!("2026-01-01T00:{minute:02}:00Z");
    let conditions = json!([{"type": end, "status": "True"}]);
    let completed = (end == "Complete").then_some(&started);
    let object = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "status": {"startTime": started, "completionTime": completed, "conditions": conditions}});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The name of the job that is started, if any.
fn started(plan: &Plan) -> Option<String> {
    plan.start.as_ref().map(|(job, _)| job.name_any())
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

fn deleted(plan: &Plan) -> Vec<String> {
    plan.delete.iter().map(|job| job.name_any()).collect()
}

#[test]
fn a_job_is_started_when_its_time_has_come() {
    let ten = "c-29453770";
    let table = [
        (json!({}), None, "2026-01-01T00:09:59Z", None, Some(1)),
        (json!({}), None, "2026-01-01T00:10:00Z", Some(ten), Some(600)),
        (json!({}), None, "2026-01-01T00:10:05Z", Some(ten), Some(595)),
        (json!({}), Some("2026-01-01T00:10:00Z"), "2026-01-01T00:10:05Z", None, Some(595)),
        (json!({}), Some("2026-01-01T00:00:00Z"), "2026-01-01T00:19:00Z", Some(ten), Some(60)),
        (json!({"suspend": true}), None, "2026-01-01T00:10:00Z", None, None),
        (json!({"startingDeadlineSeconds": 30}), None, "2026-01-01T00:10:30Z", None, Some(570)),
        (json!({"startingDeadlineSeconds": 31}), None, "2026-01-01T00:10:30Z", Some(ten), Some(570)),
        (json!({"schedule": "@every 10m"}), None, "2026-01-01T00:12:00Z", Some(ten), Some(480)),
        (
            json!({"schedule": "@every 10m", "startingDeadlineSeconds": 60}),
            None,
            "2026-01-01T00:12:00Z",
            None,
            Some(480),
        ),
        (
            json!({"schedule": "10 1 * * *", "timeZone": "Europe/Berlin"}),
            None,
            "2026-01-01T00:10:00Z",
            Some(ten),
            Some(86_400),
        ),
    ];
    for (spec, last, now, expected, wait) in table {
        let plan = plan(&cron(&spec, last, &[]), &[], at(now));
        assert_eq!(started(&plan).as_deref(), expected, "{spec} {last:?} {now}");
        assert_eq!(plan.again.map(|again| again.as_secs()), wait, "{spec} {last:?} {now}");
        assert!(plan.events.is_empty(), "{spec} {last:?} {now}");
    }
}

#[test]
fn of_missed_times_the_last_is_made_up_for() {
    let plan = plan(&cron(&json!({"schedule": "* * * * *"}), None, &[]), &[], at("2026-01-01T01:40:30Z"));
    assert_eq!((started(&plan).as_deref(), reasons(&plan)), (Some("c-29453860"), vec![]));
    let late = super::plan::plan(&cron(&json!({"schedule": "* * * * *"}), None, &[]), &[], at("2026-01-03T00:00:30Z"));
    assert_eq!((started(&late).as_deref(), reasons(&late)), (Some("c-29456640"), vec!["TooManyMissedTimes"]));
    let spec = json!({"schedule": "* * * * *", "startingDeadlineSeconds": 200});
    let bounded = super::plan::plan(&cron(&spec, None, &[]), &[], at("2026-01-03T00:00:30Z"));
    assert_eq!((started(&bounded).as_deref(), reasons(&bounded)), (Some("c-29456640"), vec![]), "three were missed");
}

#[test]
fn the_job_says_for_which_time_it_was_started() {
    let spec = json!({"schedule": "10 1 * * *", "timeZone": "Europe/Berlin"});
    let plan = plan(&cron(&spec, None, &[]), &[], at("2026-01-01T00:10:00Z"));
    let (job, time) = plan.start.unwrap();
    assert_eq!(time, at("2026-01-01T00:10:00Z"));
    assert_eq!(job.annotations()[SCHEDULED], "2026-01-01T01:10:00+01:00");
    assert_eq!((job.annotations()["c"].as_str(), job.labels()["a"].as_str()), ("d", "b"));
    let owner = &job.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("CronJob", "c", Some(true)));
}

#[test]
fn a_job_that_still_runs_is_left_replaced_or_waited_for() {
    let now = at("2026-01-01T00:10:00Z");
    let jobs = [job("old", "", 0)];
    let look = |policy: &str| plan(&cron(&json!({"concurrencyPolicy": policy}), None, &["old"]), &jobs, now);
    let allowed = look("Allow");
    assert!(started(&allowed).is_some() && allowed.delete.is_empty());
    let forbidden = look("Forbid");
    assert_eq!((started(&forbidden), reasons(&forbidden)), (None, vec!["JobAlreadyActive"]));
    assert!(forbidden.status.last_schedule_time.is_none(), "it is made up for when the other has ended");
    let replaced = look("Replace");
    assert!(started(&replaced).is_some());
    assert_eq!(deleted(&replaced), ["old"]);
    let over = [job("old", "Complete", 0)];
    let free = plan(&cron(&json!({"concurrencyPolicy": "Forbid"}), None, &["old"]), &over, now);
    assert!(started(&free).is_some());
}

#[test]
fn the_status_follows_the_jobs() {
    let now = at("2026-01-01T00:05:00Z");
    let jobs = [job("a", "Complete", 3), job("b", "Failed", 4), job("d", "", 5)];
    let plan = plan(&cron(&json!({}), None, &["a", "b", "d", "gone"]), &jobs, now);
    assert_eq!(
        plan.status.active.as_ref().unwrap().iter().map(|it| it.name.as_deref().unwrap()).collect::<Vec<_>>(),
        ["d"]
    );
    assert_eq!(reasons(&plan), ["SawCompletedJob", "SawCompletedJob", "MissingJob"]);
    assert_eq!(plan.events[0].2, "Saw completed job: a, condition: Complete");
    assert_eq!(plan.status.last_successful_time.unwrap().0, at("2026-01-01T00:03:00Z"));
}

#[test]
fn a_job_that_was_started_by_hand_is_told_apart_from_one_that_was_forgotten() {
    let mut own = Job::clone(&job("c-29453770", "", 10));
    own.metadata.annotations = Some([(SCHEDULED.to_owned(), "2026-01-01T00:10:00Z".to_owned())].into());
    let jobs = [Arc::new(own), job("by-hand", "", 11)];
    let plan = plan(&cron(&json!({}), Some("2026-01-01T00:10:00Z"), &[]), &jobs, at("2026-01-01T00:12:00Z"));
    assert_eq!(plan.status.active.as_ref().unwrap().len(), 1);
    assert_eq!(reasons(&plan), ["UnexpectedJob"]);
}

#[test]
fn the_oldest_that_are_over_go_first() {
    let jobs = [
        job("s1", "Complete", 1),
        job("s3", "Complete", 3),
        job("s2", "Complete", 2),
        job("s4", "Complete", 4),
        job("f1", "Failed", 1),
        job("f2", "Failed", 2),
        job("run", "", 0),
    ];
    let look = |spec: Value| deleted(&plan(&cron(&spec, None, &["run"]), &jobs, at("2026-01-01T00:05:00Z")));
    assert_eq!(look(json!({})), ["s1", "f1"], "three and one are kept");
    assert_eq!(look(json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 2})), ["s2", "s1"]);
    assert_eq!(look(json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0})).len(), 6);
    let suspended = json!({"suspend": true, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 9});
    assert_eq!(look(suspended), ["s1"], "also while it is suspended");
}

#[test]
fn what_cannot_be_understood_is_told() {
    for (spec, reason) in [
        (json!({"schedule": "a b"}), "UnparseableSchedule"),
        (json!({"timeZone": "Nowhere/City"}), "UnknownTimeZone"),
        (json!({"schedule": "0 0 31 2 *"}), "InvalidSchedule"),
    ] {
        let plan = plan(&cron(&spec, None, &[]), &[], at("2026-01-01T00:10:00Z"));
        assert_eq!((started(&plan), reasons(&plan), plan.again), (None, vec![reason], None), "{spec}");
    }
}
