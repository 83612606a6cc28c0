//! When a cron job is to start a job, and how many times it has missed.

use std::time::Duration;

use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use shipway_schema::schedule::{Schedule, time_zone};

/// So many missed times are caught up without a word; more than that look like a clock that was set wrong.
const FEW: u32 = 100;

/// When a cron job runs, and where.
#[derive(Debug)]
pub(super) struct Times {
    schedule: Schedule,
    pub(super) zone: TimeZone,
}

/// Why a cron job cannot run: reason and message of an event.
pub(super) type Problem = (&'static str, String);

impl Times {
    pub(super) fn of(spec: &CronJobSpec) -> Result<Self, Problem> {
        let zone = match spec.time_zone.as_deref() {
            Some(name) => time_zone(name)
                .map_err(|problem| ("UnknownTimeZone", format!("invalid timeZone: {name:?}: {problem}")))?,
            None => TimeZone::system(),
        };
        let schedule = Schedule::parse(&spec.schedule).map_err(|problem| {
            ("UnparseableSchedule", format!("unparseable schedule: {:?} : {problem}", spec.schedule))
        })?;
        Ok(Self { schedule, zone })
    }

    /// The last time that came and has not been served; and whether suspiciously many were missed. One that was due longer
    /// ago than the cron job waits for is not made up for.
    pub(super) fn due(&self, cron: &CronJob, now: Timestamp) -> Option<(Timestamp, bool)> {
        let since = served_until(cron);
        let earliest = cron
            .spec
            .starting_deadline_seconds
            .and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        let earliest = earliest.unwrap_or(Timestamp::MIN);
        // What is counted from a begin has to be counted from there, also where most of it does not matter any more.
        let from = if matches!(self.schedule, Schedule::Every(_)) { since } else { since.max(earliest) };
        self.schedule.last(from, now, FEW, &self.zone).filter(|(at, _)| *at >= earliest)
    }

    /// How long it is until the next time; nothing where there is none.
    pub(super) fn wait(&self, cron: &CronJob, now: Timestamp) -> Option<Duration> {
        let since = served_until(cron);
        let passed = self.schedule.last(since, now, 0, &self.zone).map_or(since, |(at, _)| at);
        let next = self.schedule.next(passed, &self.zone)?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
    }

    /// Whether there is no such time at all.
    pub(super) fn is_never(&self, now: Timestamp) -> bool {
        self.schedule.next(now, &self.zone).is_none()
    }
}

/// What came before has been served, or was before there was a cron job.
fn served_until(cron: &CronJob) -> Timestamp {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    last.or(cron.metadata.creation_timestamp.as_ref()).map_or(Timestamp::MIN, |time| time.0)
}
