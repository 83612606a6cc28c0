//! One look at a job and its pods: everything that follows from them before anything is decided.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{SUSPENDED, holding};
use super::failure::{Ruling, ruling};
use super::indexes::Indexes;
use super::pods::{earlier_failures, finished_at, has_succeeded, index, is_active, is_tracked, phase};
use crate::pods::is_ending;

/// What is there.
pub(super) struct Look<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    /// As it was written last.
    pub(super) status: JobStatus,
    /// All that the job controls.
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) active: Vec<&'a Arc<Pod>>,
    /// Ended pods that the status does not know of.
    pub(super) fresh: Fresh<'a>,
    /// How many completions there are, counted or not.
    pub(super) succeeded: usize,
    /// How many pods failed, counted or not.
    pub(super) failed: usize,
    /// For a job whose completions have numbers.
    pub(super) indexed: Option<Indexed<'a>>,
    /// To the second, as it is written.
    pub(super) now: Timestamp,
}

/// The pods that ended and are not in the status.
#[derive(Default)]
pub(super) struct Fresh<'a> {
    pub(super) succeeded: Vec<&'a Pod>,
    pub(super) failed: Vec<&'a Pod>,
}

/// What is known of a job's indexes.
pub(super) struct Indexed<'a> {
    pub(super) completions: u32,
    /// Completed, as the status says.
    pub(super) counted: Indexes,
    /// Completed.
    pub(super) succeeded: Indexes,
    /// Given up; only where each index has a limit of its own.
    pub(super) failed: Option<Indexes>,
    /// Failed pods that are kept until there is another one of their index, which takes over their count of failures.
    pub(super) kept: BTreeMap<u32, &'a Pod>,
}

impl<'a> Look<'a> {
    /// Nothing for a job without a specification, which the API lets nobody make.
    pub(super) fn new(job: &'a Job, pods: &'a [Arc<Pod>], now: Timestamp) -> Option<Self> {
        let mut look = Self {
            job,
            spec: job.spec.as_ref()?,
            status: job.status.clone().unwrap_or_default(),
            pods,
            active: pods.iter().filter(|pod| is_active(pod)).collect(),
            fresh: Fresh::default(),
            succeeded: 0,
            failed: 0,
            indexed: None,
            now: Timestamp::from_second(now.as_second()).unwrap_or(now),
        };
        look.indexed = look.look_at_indexes();
        look.count();
        Some(look)
    }

    fn count(&mut self) {
        let (succeeded, failed) = self.uncounted();
        let known: HashSet<&str> = succeeded.iter().chain(failed).map(String::as_str).collect();
        let is_new = |pod: &&Arc<Pod>| {
            is_tracked(pod) && self.is_valid(pod) && !known.contains(pod.metadata.uid.as_deref().unwrap_or_default())
        };
        let mut fresh = Fresh::default();
        for pod in self.pods.iter().filter(is_new) {
            if has_succeeded(pod) {
                fresh.succeeded.push(pod);
            } else if self.has_failed(pod) {
                fresh.failed.push(pod);
            }
        }
        let counted = fresh.failed.iter().filter(|pod| self.ruling(pod).counts()).count();
        let number = |number: Option<i32>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        let done = number(self.status.succeeded) + succeeded.len() + fresh.succeeded.len();
        let lost = number(self.status.failed) + failed.len() + counted;
        self.succeeded = self.indexed.as_ref().map_or(done, |indexed| indexed.succeeded.total());
        self.failed = lost;
        self.fresh = fresh;
    }

    /// The pods that the status knows of and whose finalizers may still be there: succeeded and failed.
    pub(super) fn uncounted(&self) -> (&[String], &[String]) {
        let all = self.status.uncounted_terminated_pods.as_ref();
        let succeeded = all.and_then(|all| all.succeeded.as_deref());
        (succeeded.unwrap_or_default(), all.and_then(|all| all.failed.as_deref()).unwrap_or_default())
    }

    fn look_at_indexes(&self) -> Option<Indexed<'a>> {
        let completions = self.index_count()?;
        let counted = Indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let tracked = || self.pods.iter().filter(|pod| is_tracked(pod) && self.is_valid(pod));
        let done = tracked().filter(|pod| has_succeeded(pod)).filter_map(|pod| index(pod));
        let succeeded = counted.union(&Indexes::of(done));
        let mut indexed = Indexed { completions, counted, succeeded, failed: None, kept: BTreeMap::new() };
        let Some(limit) = self.spec.backoff_limit_per_index else { return Some(indexed) };
        let before = Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default(), completions);
        let lost = tracked().filter(|pod| self.exhausts_its_index(pod, limit)).filter_map(|pod| index(pod));
        let failed = before.union(&Indexes::of(lost));
        let settled = indexed.succeeded.union(&failed).union(&self.active_indexes());
        for pod in tracked().filter(|pod| self.has_failed(pod)) {
            let Some(at) = index(pod).filter(|at| !settled.contains(*at)) else { continue };
            let later = |old: &Pod| (tries(old), finished_at(old)) <= (tries(pod), finished_at(pod));
            if indexed.kept.get(&at).is_none_or(|old| later(old)) {
                indexed.kept.insert(at, pod);
            }
        }
        indexed.failed = Some(failed);
        Some(indexed)
    }

    /// The indexes that pods are working for.
    pub(super) fn active_indexes(&self) -> Indexes {
        Indexes::of(self.active.iter().filter_map(|pod| index(pod)))
    }

    fn exhausts_its_index(&self, pod: &Pod, limit: i32) -> bool {
        if !self.has_failed(pod) {
            return false;
        }
        match self.ruling(pod) {
            Ruling::FailIndex => true,
            Ruling::Ignore => false,
            Ruling::Count | Ruling::FailJob(_) => earlier_failures(pod).0 >= u32::try_from(limit).unwrap_or(0),
        }
    }

    /// How many numbered completions the job has; nothing where they have no numbers.
    pub(super) fn index_count(&self) -> Option<u32> {
        (self.spec.completion_mode.as_deref() == Some("Indexed"))
            .then(|| self.spec.completions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0))
    }

    /// Whether the pod works for something that the job asks for.
    pub(super) fn is_valid(&self, pod: &Pod) -> bool {
        self.index_count().is_none_or(|count| index(pod).is_some_and(|index| index < count))
    }

    /// Whether the pod counts as a failure: one that is deleted does from that moment on, unless it is to be replaced only
    /// when it has ended.
    pub(super) fn has_failed(&self, pod: &Pod) -> bool {
        phase(pod) == "Failed" || (!self.replaces_only_failed() && is_ending(pod) && !has_succeeded(pod))
    }

    pub(super) fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    pub(super) fn ruling(&self, pod: &Pod) -> Ruling {
        ruling(self.spec.pod_failure_policy.as_ref(), pod)
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Whether the job itself is being deleted.
    pub(super) fn is_going(&self) -> bool {
        self.job.metadata.deletion_timestamp.is_some()
    }

    /// Since when the job runs without a break; a suspended one does not.
    pub(super) fn started(&self) -> Option<Timestamp> {
        if self.is_suspended() {
            return None;
        }
        let before = self.status.start_time.as_ref().filter(|_| holding(&self.status, SUSPENDED).is_none());
        Some(before.map_or(self.now, |time| time.0))
    }
}

fn tries(pod: &Pod) -> u32 {
    let (counted, ignored) = earlier_failures(pod);
    counted.saturating_add(ignored)
}
