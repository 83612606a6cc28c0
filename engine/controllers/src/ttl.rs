//! Jobs that are over and asked to be cleaned away after a while.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::reflector::Store;
use shipway_driver::Queue;
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::job::finished;
use crate::owned::ignore_stale;
use crate::world::{World, find, wake};

/// Deletes such jobs when their time has come, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let cache = world.cache::<Job>();
    wake(&cache, &queue);
    let jobs = cache.store();
    world.reconcile(queue, 2, stop, move |world, key| reconcile(world, jobs.clone(), key)).await;
}

async fn reconcile(world: World, jobs: Store<Job>, key: Key) -> Result<Option<Duration>, kube::Error> {
    match find(&jobs, &key).and_then(|job| left(&job, Timestamp::now())) {
        Some(left) if left.is_zero() => {}
        other => return Ok(other),
    }
    // The time may have been changed since: what is deleted is what was judged.
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), &key.0);
    let Some(job) = jobs.get_opt(&key.1).await? else { return Ok(None) };
    match left(&job, Timestamp::now()) {
        Some(left) if left.is_zero() => {}
        other => return Ok(other),
    }
    let preconditions =
        Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() });
    ignore_stale(jobs.delete(&key.1, &DeleteParams { preconditions, ..DeleteParams::foreground() }).await)?;
    Ok(None)
}

/// How long the job is still to be kept: nothing where that is not limited, not yet, or not any more.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let kept = SignedDuration::from_secs(job.spec.as_ref()?.ttl_seconds_after_finished?.into());
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ended = finished(job.status.as_ref()?)?.last_transition_time.as_ref()?.0;
    Some(Duration::try_from(kept.saturating_sub(now.duration_since(ended))).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_job_is_kept_so_long_after_its_end() {
        let ended =
            |kind: &str| json!([{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let table: [(Value, Value, i64, Option<u64>); 8] = [
            (json!(100), ended("Complete"), 30, Some(70)),
            (json!(100), ended("Failed"), 100, Some(0)),
            (json!(100), ended("Failed"), 500, Some(0)),
            (json!(0), ended("Complete"), 0, Some(0)),
            (json!(100), ended("Complete"), -50, Some(150)),
            (json!(null), ended("Complete"), 30, None),
            (json!(100), ended("FailureTarget"), 30, None),
            (json!(100), json!(null), 30, None),
        ];
        for (ttl, conditions, after, expected) in table {
            let job: Job = serde_json::from_value(json!({"metadata": {},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}}, "status": {"conditions": conditions}}))
            .unwrap();
            let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(after);
            assert_eq!(left(&job, now).map(|left| left.as_secs()), expected, "{ttl} {conditions} {after}");
        }
    }
}
