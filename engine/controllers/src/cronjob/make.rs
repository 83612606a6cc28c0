//! The job that a cron job starts at a time.

use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::owned::controller_reference;

/// The time for which a job was started.
pub(super) const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The name of the job of a time: a second one for the same time cannot be made.
pub(super) fn name(cron: &str, at: Timestamp) -> String {
    format!("{cron}-{}", at.as_second() / 60)
}

pub(super) fn job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let of_template = template.metadata.unwrap_or_default();
    let mut annotations = of_template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), written(at, zone));
    let metadata = ObjectMeta {
        name: Some(name(&cron.name_any(), at)),
        namespace: cron.namespace(),
        labels: of_template.labels,
        annotations: Some(annotations),
        owner_references: controller_reference(cron).map(|reference| vec![reference]),
        ..ObjectMeta::default()
    };
    Job { metadata, spec: template.spec, status: None }
}

/// `2026-01-01T12:00:00+01:00`, or with a `Z` where there is no offset.
fn written(at: Timestamp, zone: &TimeZone) -> String {
    let local = at.to_zoned(zone.clone());
    let form = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    local.strftime(form).to_string()
}
