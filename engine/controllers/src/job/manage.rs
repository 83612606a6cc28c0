//! Which pods a job that goes on is to make or to delete.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::backoff::{Record, left};
use super::indexes::Indexes;
use super::look::{Indexed, Look};
use super::pods::{earlier_failures, finished_at, index, is_terminating};
use crate::replicaset::rank;

/// How many pods are made or deleted in one go; the rest follows when these are seen.
const MOST: usize = 500;

/// What to do with pods.
#[derive(Debug, PartialEq)]
pub(super) enum Work {
    /// Nothing, or not yet.
    None,
    /// Pods to make.
    Make(Vec<New>),
    /// Pods to delete that are not to count as failures.
    Drop(Vec<Arc<Pod>>),
    /// Pods to delete because the job is over.
    End(Vec<Arc<Pod>>),
}

/// A pod to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct New {
    /// The completion that it works for.
    pub(super) index: Option<u32>,
    /// How often that failed before, counted and ignored; where each index has a limit of its own.
    pub(super) failures: Option<(u32, u32)>,
}

/// What to do, and when to look again where something has to wait.
pub(super) fn manage(look: &Look<'_>, record: Record) -> (Work, Option<Duration>) {
    let wanted = wanted(look);
    let mut surplus = surplus(look, look.active.len().saturating_sub(wanted));
    if !surplus.is_empty() {
        surplus.truncate(MOST);
        return (Work::Drop(surplus), None);
    }
    let leaving =
        if look.replaces_only_failed() { look.pods.iter().filter(|pod| is_terminating(pod)).count() } else { 0 };
    let missing = wanted.saturating_sub(look.active.len() + leaving).min(MOST);
    if missing == 0 {
        return (Work::None, None);
    }
    let each_for_itself = look.spec.backoff_limit_per_index.is_some();
    if let Some(wait) = record.left(look.now).filter(|_| !each_for_itself) {
        return (Work::None, Some(wait));
    }
    let (new, again) = match &look.indexed {
        Some(indexed) => of_indexes(look, indexed, missing),
        None => (vec![New::default(); missing], None),
    };
    (if new.is_empty() { Work::None } else { Work::Make(new) }, again)
}

/// How many pods should be at work.
fn wanted(look: &Look<'_>) -> usize {
    if look.is_suspended() {
        return 0;
    }
    let parallel = usize::try_from(look.spec.parallelism.unwrap_or(1)).unwrap_or(0);
    match look.spec.completions {
        Some(count) => usize::try_from(count).unwrap_or(0).saturating_sub(look.succeeded).min(parallel),
        // The first success says that the work is done: whoever is still at it finishes.
        None if look.succeeded > 0 => look.active.len(),
        None => parallel,
    }
}

/// The pods that are too much: first those of no index or of one that another pod works for, then what serves least.
fn surplus(look: &Look<'_>, at_least: usize) -> Vec<Arc<Pod>> {
    let nowhere = HashMap::new();
    let mut active: Vec<&Arc<Pod>> = look.active.clone();
    active.sort_by_cached_key(|pod| rank::of(pod, &nowhere));
    let (mut going, staying) = if look.indexed.is_some() { doubles(look, active) } else { (Vec::new(), active) };
    let more = at_least.saturating_sub(going.len());
    going.extend(staying.into_iter().take(more));
    going.into_iter().cloned().collect()
}

/// Parts pods, the least first, into those whose index is not asked for or has a better pod, and the others.
fn doubles<'a>(look: &Look<'_>, pods: Vec<&'a Arc<Pod>>) -> (Vec<&'a Arc<Pod>>, Vec<&'a Arc<Pod>>) {
    let mut best: BTreeMap<u32, &str> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| look.is_valid(pod)) {
        if let (Some(index), Some(uid)) = (index(pod), pod.metadata.uid.as_deref()) {
            best.insert(index, uid);
        }
    }
    let is_best = |pod: &Pod| index(pod).is_some_and(|index| best.get(&index).copied() == pod.metadata.uid.as_deref());
    pods.into_iter().partition(|pod| !is_best(pod))
}

/// New pods for the first indexes that nobody works for; what has failed lately waits.
fn of_indexes(look: &Look<'_>, indexed: &Indexed<'_>, missing: usize) -> (Vec<New>, Option<Duration>) {
    let mut taken = indexed.succeeded.union(&look.active_indexes());
    if look.replaces_only_failed() {
        let leaving = look.pods.iter().filter(|pod| is_terminating(pod));
        taken = taken.union(&Indexes::of(leaving.filter_map(|pod| index(pod))));
    }
    if let Some(failed) = &indexed.failed {
        taken = taken.union(failed);
    }
    let mut again: Option<Duration> = None;
    let mut new = Vec::new();
    for at in taken.missing(indexed.completions).take(missing) {
        let before = indexed.kept.get(&at).copied();
        match before.and_then(|pod| wait(pod, look.now)) {
            Some(wait) => again = Some(again.map_or(wait, |again| again.min(wait))),
            None => new.push(New { index: Some(at), failures: failures(look, before) }),
        }
    }
    (new, again)
}

fn wait(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let (counted, ignored) = earlier_failures(pod);
    left(counted.saturating_add(ignored).saturating_add(1), finished_at(pod), now)
}

/// How often an index failed, with the pod that is to be replaced.
fn failures(look: &Look<'_>, before: Option<&Pod>) -> Option<(u32, u32)> {
    look.spec.backoff_limit_per_index?;
    let Some(before) = before else { return Some((0, 0)) };
    let (counted, ignored) = earlier_failures(before);
    let counts = look.ruling(before).counts();
    Some(if counts { (counted.saturating_add(1), ignored) } else { (counted, ignored.saturating_add(1)) })
}
