//! The jobs that a cron job has started: which of them run, and which are not to be kept any longer.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use shipway_driver::EventKind;

use super::make::{SCHEDULED, name};
use crate::job::finished;

/// An event: its kind, reason and message.
pub(super) type Told = (EventKind, &'static str, String);

/// The status as the jobs make it, and what there is to tell.
pub(super) fn status(cron: &CronJob, jobs: &[Arc<Job>]) -> (CronJobStatus, Vec<Told>) {
    let mut status = cron.status.clone().unwrap_or_default();
    let mut told = Vec::new();
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|reference| {
        let job = jobs.iter().find(|job| job.metadata.uid == reference.uid);
        let Some(job) = job else {
            let name = reference.name.as_deref().unwrap_or_default();
            told.push((EventKind::Normal, "MissingJob", format!("Active job went missing: {name}")));
            return false;
        };
        let Some(end) = job.status.as_ref().and_then(finished) else { return true };
        let message = format!("Saw completed job: {}, condition: {}", job.name_any(), end.type_);
        told.push((EventKind::Normal, "SawCompletedJob", message));
        false
    });
    for job in jobs.iter().filter(|job| !is_over(job)) {
        if active.iter().any(|reference| reference.uid == job.metadata.uid) {
            continue;
        }
        if is_scheduled(cron, job) {
            // Started by us, and we died before it was written down.
            active.push(reference(job));
        } else {
            let message = format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
            told.push((EventKind::Warning, "UnexpectedJob", message));
        }
    }
    status.active = (!active.is_empty()).then_some(active);
    let successes = jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.as_ref());
    status.last_successful_time = successes.chain(&status.last_successful_time).map(|time| time.0).max().map(Time);
    (status, told)
}

pub(super) fn is_over(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| finished(status).is_some())
}

/// Whether the job is one that the cron job started by the clock.
fn is_scheduled(cron: &CronJob, job: &Job) -> bool {
    let at = job.annotations().get(SCHEDULED).and_then(|text| text.parse().ok());
    at.is_some_and(|at| name(&cron.name_any(), at) == job.name_any())
}

pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference { resource_version: job.resource_version(), ..job.object_ref(&()) }
}

/// The jobs that are over and more than the cron job wants to keep: the oldest of both kinds.
pub(super) fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [
        ("Complete", cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    limits.into_iter().flat_map(|(kind, limit)| beyond(jobs, kind, usize::try_from(limit).unwrap_or(0))).collect()
}

fn beyond(jobs: &[Arc<Job>], kind: &str, limit: usize) -> impl Iterator<Item = Arc<Job>> {
    let ended = |job: &Job| job.status.as_ref().and_then(finished).is_some_and(|end| end.type_ == kind);
    let stays = |job: &Job| job.metadata.deletion_timestamp.is_none();
    let mut ended: Vec<Arc<Job>> = jobs.iter().filter(|job| ended(job) && stays(job)).cloned().collect();
    ended.sort_by_cached_key(|job| {
        let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        Reverse((started, job.name_any()))
    });
    ended.into_iter().skip(limit)
}
