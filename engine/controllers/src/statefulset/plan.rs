//! What happens next to the pods of a stateful set: pure, from the pods and the time to creations and deletions.
//!
//! In order, one pod at a time waits for the one before it; in parallel, nobody waits. What is never done in either way is to
//! make a pod while another one of its name is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::identity::{ordinal, revision};
use crate::pods::{is_ending, is_finished, until_available};
use crate::share::{Round, share};

/// How many pods are made after one look: a set of a billion must not fill the memory. The next look makes the next ones.
const AT_MOST: usize = 256;

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Make the pod of that ordinal, of the revision that was before or of the one that is coming.
    Create(i64, Which),
    Delete(Arc<Pod>),
}

/// One of the two revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Current,
    Update,
}

/// What is seen of a set.
pub(super) struct View<'a> {
    spec: &'a StatefulSetSpec,
    /// The pods that should be there, by ordinal.
    replicas: BTreeMap<i64, Arc<Pod>>,
    /// The pods that should not be there, from the highest ordinal down.
    condemned: Vec<Arc<Pod>>,
    /// The name of the revision that all pods are to be of.
    update: &'a str,
    now: Timestamp,
}

impl<'a> View<'a> {
    /// None where there is no specification.
    pub(super) fn new(set: &'a StatefulSet, pods: &[Arc<Pod>], update: &'a str, now: Timestamp) -> Option<Self> {
        let spec = set.spec.as_ref()?;
        let known = pods.iter().filter_map(|pod| Some((ordinal(set, pod)?, pod.clone())));
        let (replicas, condemned): (BTreeMap<_, _>, BTreeMap<_, _>) =
            known.partition(|(ordinal, _)| ordinals(spec).contains(ordinal));
        Some(Self { spec, replicas, condemned: condemned.into_values().rev().collect(), update, now })
    }

    /// The pods that should be there, with their ordinals.
    pub(super) fn replicas(&self) -> impl Iterator<Item = (i64, &Arc<Pod>)> {
        self.replicas.iter().map(|(ordinal, pod)| (*ordinal, pod))
    }

    /// The pods that are to go for good.
    pub(super) fn condemned(&self) -> &[Arc<Pod>] {
        &self.condemned
    }

    /// What to do now.
    pub(super) fn next(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.fill(&mut acts) {
            self.scale_down(&mut acts);
            // Scaling comes before updating.
            if acts.is_empty() || !self.is_ordered() {
                self.update(&mut acts);
            }
        }
        acts
    }

    /// When a ready pod becomes available.
    pub(super) fn again(&self) -> Option<Duration> {
        let all = self.replicas.values().chain(&self.condemned);
        all.filter_map(|pod| self.until_available(pod)).filter(|left| !left.is_zero()).min()
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn until_available(&self, pod: &Pod) -> Option<Duration> {
        until_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    /// Whether the pod runs, has been ready for long enough and stays.
    fn is_available(&self, pod: &Pod) -> bool {
        !is_ending(pod) && self.until_available(pod).is_some_and(|left| left.is_zero())
    }

    /// Makes missing pods and replaces ended ones; whether the look may go on.
    fn fill(&self, acts: &mut Vec<Act>) -> bool {
        for ordinal in ordinals(self.spec) {
            let settled = match self.replicas.get(&ordinal) {
                None => {
                    acts.push(Act::Create(ordinal, self.which(ordinal)));
                    false
                }
                Some(pod) if is_finished(pod) => {
                    if !is_ending(pod) {
                        acts.push(Act::Delete(pod.clone()));
                    }
                    false
                }
                Some(pod) => self.is_available(pod),
            };
            if (self.is_ordered() && !settled) || acts.len() >= AT_MOST {
                return false;
            }
        }
        true
    }

    /// The revision that a new pod is made of: below the partition the one that was before.
    fn which(&self, ordinal: i64) -> Which {
        let below = ordinal < ordinals(self.spec).start + self.partition();
        if self.is_rolling() && below { Which::Current } else { Which::Update }
    }

    /// Ends the condemned, in order the highest ordinal alone, and only while the pods below it are well.
    fn scale_down(&self, acts: &mut Vec<Act>) {
        if !self.is_ordered() {
            let staying = self.condemned.iter().filter(|pod| !is_ending(pod));
            return acts.extend(staying.cloned().map(Act::Delete));
        }
        let Some(highest) = self.condemned.first() else { return };
        // One that never works may go once it is the only one.
        let lowest_broken = self.condemned.iter().rev().find(|pod| !self.is_available(pod));
        let may_go = self.is_available(highest) || lowest_broken.is_some_and(|broken| Arc::ptr_eq(broken, highest));
        if !is_ending(highest) && may_go {
            acts.push(Act::Delete(highest.clone()));
        }
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    fn partition(&self) -> i64 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or(0).into()
    }

    /// Ends pods of older revisions from the highest ordinal down to the partition, as many as may be unavailable.
    fn update(&self, acts: &mut Vec<Act>) {
        if !self.is_rolling() || (self.is_ordered() && !self.condemned.is_empty()) {
            return;
        }
        let first = ordinals(self.spec).start + self.partition();
        let old = || {
            let from = self.replicas.range(first..).rev().map(|(_, pod)| pod);
            from.filter(|pod| revision(pod) != self.update && !is_ending(pod) && !is_finished(pod))
        };
        // In parallel nobody looks whether the others work before the update, so what is broken goes first and costs nothing.
        let free = if self.is_ordered() { 0 } else { usize::MAX };
        let available = self.replicas.values().filter(|pod| self.is_available(pod)).count();
        let missing = self.wanted() - i64::try_from(available).unwrap_or(i64::MAX);
        let budget = usize::try_from(self.max_unavailable() - missing).unwrap_or(0);
        let broken = old().filter(|pod| !self.is_available(pod)).take(free);
        let working = old().filter(|pod| self.is_available(pod)).take(budget);
        acts.extend(broken.chain(working).cloned().map(Act::Delete));
    }

    fn wanted(&self) -> i64 {
        self.spec.replicas.unwrap_or(1).into()
    }

    /// How many pods may be unavailable in an update: at least one, a share of them rounded down.
    fn max_unavailable(&self) -> i64 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let most = rolling
            .and_then(|rolling| share(rolling.max_unavailable.as_ref()?, self.spec.replicas.unwrap_or(1), Round::Down));
        most.unwrap_or(1).max(1).into()
    }
}

/// The ordinals that should be there.
fn ordinals(spec: &StatefulSetSpec) -> std::ops::Range<i64> {
    let start = i64::from(spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0));
    start..start + i64::from(spec.replicas.unwrap_or(1))
}

#[cfg(test)]
mod tests;
