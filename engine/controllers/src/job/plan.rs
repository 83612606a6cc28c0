//! From a job and its pods to what should be done next: a pure function, whose parts are in the modules beside it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::backoff::Record;
use super::conditions::{SUSPENDED, say};
use super::count::{self, Counted, count, number};
use super::look::Look;
use super::manage::{Work, manage};
use super::pods::{has_succeeded, is_active, is_terminating, is_tracked};
use super::verdict::{Verdict, completion, time_left, verdict};
use crate::pods::{is_finished, ready_since};

/// What to do, in this order: the work, the status, the finalizers, and what follows from their absence.
pub(super) struct Plan {
    pub(super) work: Work,
    /// Pods at work that have lost the finalizer with which they are counted.
    pub(super) track: Vec<Arc<Pod>>,
    pub(super) status: JobStatus,
    pub(super) release: Vec<Arc<Pod>>,
    pub(super) verdict: Option<Verdict>,
    /// Whether not all that ended could be taken into the status.
    pub(super) is_partial: bool,
    /// Normal events: reason and message.
    pub(super) events: Vec<(&'static str, &'static str)>,
    /// The failures that the next pod has to wait for, once the status is written.
    pub(super) record: Record,
    pub(super) again: Option<Duration>,
}

/// What has been done with pods since the look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) made: usize,
    pub(super) deleted: usize,
    /// How many of the deleted ones were ready.
    pub(super) ready: usize,
}

/// What should be done for a job. `record` is what is remembered of its failures; nothing after a start.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], record: Option<Record>, now: Timestamp) -> Option<Plan> {
    let look = Look::new(job, pods, now)?;
    let record = record.unwrap_or_else(|| counted_before(&look));
    let record = record.after(look.fresh.succeeded.iter().copied(), look.fresh.failed.iter().copied());
    let mut again = None;
    let mut work = Work::None;
    let mut verdict = verdict(&look);
    if verdict.is_some() {
        work = Work::End(look.active.iter().map(|pod| (*pod).clone()).collect());
    } else {
        if !look.is_going() {
            (work, again) = manage(&look, record);
        }
        verdict = completion(&look);
    }
    let Counted { mut status, release, is_partial } = count(&look, verdict.as_ref());
    let mut events = Vec::new();
    match &verdict {
        Some(verdict) => verdict.announce(&mut status, look.now),
        None if !look.is_going() => suspend_or_resume(&look, &mut status, &mut events),
        None => {}
    }
    if verdict.is_none() {
        again = [again, time_left(&look)].into_iter().flatten().min();
    }
    let track = if verdict.is_none() && !look.is_going() { untracked(&look, &work) } else { Vec::new() };
    present(&look, &mut status);
    Some(Plan { work, track, status, release, verdict, is_partial, events, record, again })
}

/// What the pods say that are counted already.
fn counted_before(look: &Look<'_>) -> Record {
    let counted = || look.pods.iter().filter(|pod| !is_tracked(pod) && is_finished(pod)).map(|pod| &**pod);
    Record::default().after(counted().filter(|pod| has_succeeded(pod)), counted().filter(|pod| !has_succeeded(pod)))
}

/// Pods at work that nobody would count.
fn untracked(look: &Look<'_>, work: &Work) -> Vec<Arc<Pod>> {
    let going: &[Arc<Pod>] = if let Work::Drop(pods) = work { pods } else { &[] };
    let stays = |pod: &&&Arc<Pod>| !going.iter().any(|going| Arc::ptr_eq(going, pod));
    look.active.iter().filter(|pod| !is_tracked(pod)).filter(stays).map(|pod| (*pod).clone()).collect()
}

fn suspend_or_resume(look: &Look<'_>, status: &mut JobStatus, events: &mut Vec<(&str, &str)>) {
    status.start_time = look.started().map(Time);
    let suspended = look.is_suspended();
    let (reason, message) = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    if say(status, SUSPENDED, suspended, (reason, message), look.now) {
        events.push((reason.trim_start_matches("Job"), message));
    }
}

/// The pods that are there.
fn present(look: &Look<'_>, status: &mut JobStatus) {
    let all = |is: fn(&Pod) -> bool| look.pods.iter().filter(|pod| is(pod)).count();
    status.active = number(look.active.len());
    status.ready = Some(number(all(|pod| is_active(pod) && ready_since(pod).is_some())).unwrap_or(0));
    status.terminating = Some(number(all(is_terminating)).unwrap_or(0));
}

impl Plan {
    /// The status to write first, when that has been done.
    pub(super) fn first_status(&self, done: Done) -> JobStatus {
        let mut status = self.status.clone();
        let was = |number: Option<i32>| usize::try_from(number.unwrap_or(0)).unwrap_or(0);
        let some = |count: usize| Some(number(count).unwrap_or(0));
        status.active = number((was(status.active) + done.made).saturating_sub(done.deleted));
        status.ready = some(was(status.ready).saturating_sub(done.ready));
        status.terminating = some(was(status.terminating) + done.deleted);
        status
    }

    /// The status to write when these finalizers are gone; whether the job is over with it.
    pub(super) fn last_status(
        &self,
        first: &JobStatus,
        is_gone: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> (JobStatus, bool) {
        let mut status = first.clone();
        count::settle(&mut status, is_gone);
        let quiet = status.active.is_none() && status.terminating.unwrap_or(0) == 0;
        let verdict = self.verdict.as_ref().filter(|_| quiet && !self.is_partial && count::is_settled(&status));
        if let Some(verdict) = verdict {
            verdict.conclude(&mut status, Timestamp::from_second(now.as_second()).unwrap_or(now));
        }
        (status, verdict.is_some())
    }
}
