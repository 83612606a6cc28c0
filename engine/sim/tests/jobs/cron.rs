//! Jobs by the clock. Every simulation begins at midnight, on the first of January 2030.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::{Cluster, Part};

use super::{MINUTE, events, job, status};

/// A cron job `tick` of a job like `work`.
#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn cron(schedule: &str, does: &[(&str, &str)], more: Value) -> Value {
    let mut spec = json!({"schedule": schedule, "timeZone": "UTC", "jobTemplate": {"metadata": {"labels": {"app": "tick"}},
        "spec": job(does, json!({}))["spec"]}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec})
}

fn with_cron(cron: Value, test: impl AsyncFnOnce(Cluster) + Send) {
    Cluster::builder().run(async |cluster| {
        cluster.create(cron).await.unwrap();
        test(cluster).await;
    });
}

/// The jobs, by the minute since the beginning for which they were started.
async fn minutes(cluster: &Cluster) -> Vec<i64> {
    let jobs: Vec<Job> = cluster.list("default", "app=tick").await;
    let minute = |job: &Job| job.name_any().strip_prefix("tick-").and_then(|text| text.parse::<i64>().ok());
    let mut minutes: Vec<i64> = jobs.iter().filter_map(minute).map(|minute| minute - 1_893_456_000 / 60).collect();
    minutes.sort_unstable();
    minutes
}

async fn tick(cluster: &Cluster) -> CronJob {
    cluster.get("tick").await.unwrap()
}

/// Lets time pass up to a second of the simulation's clock.
async fn at(cluster: &Cluster, second: i64) {
    let left = 1_893_456_000 + second - Timestamp::now().as_second();
    cluster.run_for(Duration::from_secs(u64::try_from(left).unwrap())).await;
}

const MANY: &str = "successfulJobsHistoryLimit";

#[test]
fn a_job_is_started_at_each_time_and_named_for_it() {
    with_cron(cron("*/5 * * * *", &[("exit", "0")], json!({})), async |cluster| {
        at(&cluster, 16 * 60).await;
        assert_eq!(minutes(&cluster).await, [5, 10, 15]);
        let jobs: Vec<Job> = cluster.list("default", "app=tick").await;
        for job in &jobs {
            let time: Timestamp = job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"].parse().unwrap();
            assert_eq!(job.name_any(), format!("tick-{}", time.as_second() / 60));
            let late = job.creation_timestamp().unwrap().0.duration_since(time);
            assert!((0..2).contains(&late.as_secs()), "{late}");
            assert_eq!(job.owner_references()[0].kind, "CronJob");
        }
        let status = tick(&cluster).await.status.unwrap();
        assert_eq!(status.last_schedule_time.unwrap().0.as_second(), 1_893_456_000 + 15 * 60);
        assert!(status.last_successful_time.unwrap().0.as_second() > 1_893_456_000 + 15 * 60);
        assert_eq!(status.active, None);
        assert_eq!(events(&cluster, "tick", "SuccessfulCreate").await.len(), 3);
        assert_eq!(events(&cluster, "tick", "SawCompletedJob").await.len(), 3);
    });
}

#[test]
fn the_status_names_the_jobs_that_run() {
    with_cron(cron("*/5 * * * *", &[], json!({})), async |cluster| {
        at(&cluster, 301).await;
        let active = tick(&cluster).await.status.unwrap().active.unwrap();
        let jobs: Vec<Job> = cluster.list("default", "app=tick").await;
        assert_eq!((active.len(), &active[0].uid, &active[0].name), (1, &jobs[0].metadata.uid, &jobs[0].metadata.name));
        assert_eq!(active[0].kind.as_deref(), Some("Job"));
    });
}

#[test]
fn no_more_jobs_are_kept_than_asked_for() {
    for (code, more, kept) in [
        ("0", json!({}), vec![3, 4, 5]),
        ("0", json!({"successfulJobsHistoryLimit": 1}), vec![5]),
        ("0", json!({"successfulJobsHistoryLimit": 0}), vec![]),
        ("1", json!({}), vec![5]),
        ("1", json!({"failedJobsHistoryLimit": 2}), vec![4, 5]),
    ] {
        let mut cron = cron("* * * * *", &[("exit", code)], more.clone());
        cron["spec"]["jobTemplate"]["spec"]["backoffLimit"] = json!(0);
        with_cron(cron, async |cluster| {
            at(&cluster, 5 * 60 + 30).await;
            assert_eq!(minutes(&cluster).await, kept, "{code} {more}");
        });
    }
}

#[test]
fn a_job_that_still_runs_is_left_waited_for_or_replaced() {
    // Each job takes ninety seconds, and one is due every minute.
    let table = [("Allow", vec![1, 2, 3, 4], 2), ("Forbid", vec![1, 2, 4], 1), ("Replace", vec![4], 1)];
    for (policy, started, running) in table {
        let cron = cron("* * * * *", &[("exit", "0"), ("after", "90s")], json!({"concurrencyPolicy": policy, MANY: 9}));
        with_cron(cron, async |cluster| {
            at(&cluster, 4 * 60 + 10).await;
            let status = tick(&cluster).await.status.unwrap();
            let active = status.active.unwrap_or_default().len();
            assert_eq!((minutes(&cluster).await, active), (started, running), "{policy}");
            let skipped = events(&cluster, "tick", "JobAlreadyActive").await;
            assert_eq!(!skipped.is_empty(), policy == "Forbid");
        });
    }
}

#[test]
fn a_suspended_cron_job_starts_nothing_and_makes_up_for_the_last_time() {
    with_cron(cron("*/5 * * * *", &[("exit", "0")], json!({"suspend": true})), async |cluster| {
        at(&cluster, 17 * 60).await;
        assert!(minutes(&cluster).await.is_empty());
        cluster.patch::<CronJob>("tick", json!({"spec": {"suspend": false}})).await;
        at(&cluster, 18 * 60).await;
        assert_eq!(minutes(&cluster).await, [15]);
        at(&cluster, 21 * 60).await;
        assert_eq!(minutes(&cluster).await, [15, 20]);
    });
}

#[test]
fn suspending_leaves_a_job_that_runs_alone() {
    with_cron(cron("*/5 * * * *", &[("exit", "0"), ("after", "2m")], json!({})), async |cluster| {
        at(&cluster, 310).await;
        cluster.patch::<CronJob>("tick", json!({"spec": {"suspend": true}})).await;
        at(&cluster, 11 * 60).await;
        assert_eq!(minutes(&cluster).await, [5]);
        assert!(tick(&cluster).await.status.unwrap().last_successful_time.is_some());
    });
}

#[test]
fn of_the_times_that_nobody_served_only_the_last_is_made_up_for() {
    for (deadline, after) in [(json!(null), vec![25]), (json!(600), vec![25]), (json!(100), vec![])] {
        let cron = cron("*/5 * * * *", &[("exit", "0")], json!({"startingDeadlineSeconds": deadline}));
        with_cron(cron, async |cluster| {
            cluster.stop_part(Part::Controllers).await;
            at(&cluster, 28 * 60).await;
            cluster.start_part(Part::Controllers).await;
            at(&cluster, 29 * 60).await;
            assert_eq!(minutes(&cluster).await, after, "{deadline}");
        });
    }
}

#[test]
fn very_many_missed_times_are_told() {
    with_cron(cron("* * * * *", &[("exit", "0")], json!({})), async |cluster| {
        cluster.stop_part(Part::Controllers).await;
        at(&cluster, 3 * 3600 + 30).await;
        cluster.start_part(Part::Controllers).await;
        at(&cluster, 3 * 3600 + 70).await;
        assert_eq!(minutes(&cluster).await, [180, 181]);
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        assert_eq!(events(&cluster, "tick", "TooManyMissedTimes").await, [message]);
    });
}

#[test]
fn a_schedule_is_read_in_its_time_zone() {
    // Midnight of the simulation is one in the morning in Berlin, and three quarters past five in Kathmandu.
    for (schedule, zone, minute) in
        [("10 1 * * *", "Europe/Berlin", 10), ("50 5 * * *", "Asia/Kathmandu", 5), ("0 1 * * *", "Etc/UTC", 60)]
    {
        with_cron(cron(schedule, &[("exit", "0")], json!({"timeZone": zone})), async |cluster| {
            at(&cluster, 61 * 60).await;
            assert_eq!(minutes(&cluster).await, [minute], "{zone}");
        });
    }
}

#[test]
fn a_changed_schedule_holds_from_then_on() {
    with_cron(cron("0 12 * * *", &[("exit", "0")], json!({})), async |cluster| {
        at(&cluster, 120).await;
        cluster.patch::<CronJob>("tick", json!({"spec": {"schedule": "*/2 * * * *"}})).await;
        at(&cluster, 7 * 60).await;
        // The time at the very moment of the change was due since the cron job was made.
        assert_eq!(minutes(&cluster).await, [2, 4, 6]);
    });
}

#[test]
fn a_deleted_cron_job_takes_its_jobs_and_their_pods_along() {
    with_cron(cron("* * * * *", &[], json!({})), async |cluster| {
        at(&cluster, 130).await;
        assert_eq!(minutes(&cluster).await, [1, 2]);
        cluster.delete::<CronJob>("tick").await;
        cluster.settle().await;
        assert!(minutes(&cluster).await.is_empty() && cluster.pods("").await.is_empty());
        cluster.run_for(MINUTE * 5).await;
        assert!(minutes(&cluster).await.is_empty());
    });
}

#[test]
fn no_time_is_served_twice_whoever_crashes() {
    for part in [Part::Controllers, Part::ApiServer] {
        let cron = cron("* * * * *", &[("exit", "0")], json!({MANY: 20}));
        with_cron(cron, async |cluster| {
            for step in 0..10 {
                // Just before, at and just after the full minute.
                at(&cluster, 60 * (step + 1) - 1).await;
                cluster.restart(part).await;
                cluster.run_for(Duration::from_millis(990 + 7 * u64::try_from(step).unwrap())).await;
                cluster.restart(part).await;
            }
            at(&cluster, 630).await;
            assert_eq!(minutes(&cluster).await, (1..=10).collect::<Vec<_>>(), "{part:?}");
            let pods = cluster.pods("").await;
            assert_eq!(pods.len(), 10);
        });
    }
}

#[test]
fn a_job_made_by_hand_from_a_cron_job_is_only_told_of() {
    with_cron(cron("0 12 * * *", &[], json!({"concurrencyPolicy": "Replace"})), async |cluster| {
        let owner = tick(&cluster).await;
        let mut by_hand = job(&[], json!({}));
        by_hand["metadata"]["annotations"] = json!({"cronjob.kubernetes.io/instantiate": "manual"});
        by_hand["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick",
            "uid": owner.metadata.uid, "controller": true}]);
        cluster.create(by_hand).await.unwrap();
        cluster.settle().await;
        assert_eq!(tick(&cluster).await.status.unwrap_or_default().active, None);
        assert_eq!(events(&cluster, "tick", "UnexpectedJob").await.len(), 1);
        assert_eq!(status(&cluster).await.active, Some(1));
        cluster.delete::<CronJob>("tick").await;
        cluster.settle().await;
        assert!(cluster.get::<Job>("work").await.is_none());
    });
}
