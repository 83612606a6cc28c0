//! What the documentation says of jobs and cron jobs.
#![allow(clippy::unwrap_used)]

#[path = "jobs/completions.rs"]
mod completions;
#[path = "jobs/crashes.rs"]
mod crashes;
#[path = "jobs/cron.rs"]
mod cron;
#[path = "jobs/ends.rs"]
mod ends;
#[path = "jobs/failures.rs"]
mod failures;
#[path = "jobs/indexed.rs"]
mod indexed;
#[path = "jobs/suspended.rs"]
mod suspended;

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use shipway_sim::Cluster;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// A job `work`; `does` says what its pods do (annotations without their `sim/`), `more` goes into its specification.
#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn job(does: &[(&str, &str)], more: Value) -> Value {
    let mut annotations = json!({});
    for (name, value) in does {
        annotations[format!("sim/{name}")] = json!(value);
    }
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "app:1"}]});
    let mut spec = json!({"template": {"metadata": {"annotations": annotations}, "spec": pod}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": spec})
}

/// Runs a test in a cluster in which that job was made.
fn with_job(job: Value, test: impl AsyncFnOnce(Cluster) + Send) {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.create(job).await.unwrap();
        test(cluster).await;
    });
}

async fn status(cluster: &Cluster) -> JobStatus {
    cluster.get::<Job>("work").await.unwrap().status.unwrap_or_default()
}

fn holding(status: &JobStatus, kind: &str) -> Option<JobCondition> {
    status.conditions.iter().flatten().find(|it| it.type_ == kind && it.status == "True").cloned()
}

/// How the job ended: `Complete CompletionsReached`; empty as long as it goes on.
fn end_of(status: &JobStatus) -> String {
    let end = holding(status, "Complete").or_else(|| holding(status, "Failed"));
    end.map_or_else(String::new, |end| format!("{} {}", end.type_, end.reason.unwrap_or_default()))
}

/// Waits for the end of the job.
async fn ended(cluster: &Cluster) -> JobStatus {
    cluster.until("the job is over", HOUR, async |cluster| !end_of(&status(cluster).await).is_empty()).await;
    status(cluster).await
}

/// How many pods succeeded and failed.
fn counts(status: &JobStatus) -> (i32, i32) {
    (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
}

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    cluster.pods("batch.kubernetes.io/job-name=work").await
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_active(pod: &Pod) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the pod waits for somebody to count it.
fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

async fn active(cluster: &Cluster) -> usize {
    pods(cluster).await.iter().filter(|pod| is_active(pod)).count()
}

async fn until_active(cluster: &Cluster, count: usize) {
    let running = async |cluster: &Cluster| {
        pods(cluster).await.iter().filter(|pod| phase(pod) == "Running" && is_active(pod)).count() == count
    };
    cluster.until(&format!("{count} pods run"), MINUTE, running).await;
}

/// When the pods were made, in seconds since the first, in order.
async fn made(cluster: &Cluster) -> Vec<i64> {
    let mut times: Vec<i64> =
        pods(cluster).await.iter().map(|pod| pod.metadata.creation_timestamp.clone().unwrap().0.as_second()).collect();
    times.sort_unstable();
    let first = times.first().copied().unwrap_or(0);
    times.iter().map(|time| time - first).collect()
}

/// The messages of the events with that reason about an object.
async fn events(cluster: &Cluster, name: &str, reason: &str) -> Vec<String> {
    let events: Vec<Event> = cluster.list("default", "").await;
    let about = |event: &&Event| event.involved_object.name.as_deref() == Some(name);
    let told = events.iter().filter(about).filter(|event| event.reason.as_deref() == Some(reason));
    told.map(|event| event.message.clone().unwrap_or_default()).collect()
}
