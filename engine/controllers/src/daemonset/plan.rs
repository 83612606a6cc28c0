//! What happens next to the pods of a daemon set: pure, from nodes, pods and the time to creations and deletions.
//!
//! First every node gets the pods it should have; only where that is so, an update goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::eligible::{Fit, is_bound, node_of};
use crate::history::REVISION_HASH;
use crate::pods::{is_ending, is_finished, ready_since, until_available};
use crate::share::{Round, share};

/// How long a failed pod of a node is not to be replaced yet.
pub(super) type Held<'a> = &'a (dyn Fn(&str) -> Option<Duration> + Sync);

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// Make a pod for that node.
    Create(String),
    Delete(Arc<Pod>, Why),
}

/// Why a pod is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It failed.
    Failed,
    /// It ended without failing, which a daemon does not.
    Succeeded,
    /// It is in the wrong place, one too many or of an older revision.
    Surplus,
}

/// What is seen of a set.
pub(super) struct View<'a> {
    spec: &'a DaemonSetSpec,
    /// What each node is to the set.
    pub(super) nodes: BTreeMap<String, Fit>,
    /// The pods by the node that they are on or for, the one to keep first.
    pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// The hash of the template as it is now.
    hash: &'a str,
    now: Timestamp,
}

impl<'a> View<'a> {
    /// None where there is no specification.
    pub(super) fn new(
        set: &'a DaemonSet,
        nodes: BTreeMap<String, Fit>,
        pods: &[Arc<Pod>],
        hash: &'a str,
        now: Timestamp,
    ) -> Option<Self> {
        let spec = set.spec.as_ref()?;
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        // One that ended and only waits to be taken away stands in nobody's way.
        for pod in pods.iter().filter(|pod| !(is_ending(pod) && is_finished(pod))) {
            by_node.entry(node_of(pod).unwrap_or_default()).or_default().push(pod.clone());
        }
        for pods in by_node.values_mut() {
            pods.sort_by_cached_key(|pod| age(pod));
        }
        Some(Self { spec, nodes, pods: by_node, hash, now })
    }

    /// What to do now.
    pub(super) fn next(&self, held: Held<'_>) -> Vec<Act> {
        let mut acts = Vec::new();
        for (node, fit) in &self.nodes {
            self.settle(node, *fit, held, &mut acts);
        }
        acts.extend(self.lost());
        if acts.is_empty() && self.is_rolling() {
            acts = if self.surge() > 0 { self.surge_on() } else { self.replace() };
        }
        acts
    }

    /// When a ready pod becomes available or a failed one may be replaced.
    pub(super) fn again(&self, held: Held<'_>) -> Option<Duration> {
        let soon = self.pods.values().flatten().filter_map(|pod| self.until_available(pod));
        let failed = self.pods.iter().filter(|(_, pods)| pods.iter().any(|pod| is_finished(pod)));
        soon.chain(failed.filter_map(|(node, _)| held(node))).filter(|left| !left.is_zero()).min()
    }

    /// The pods of a node.
    pub(super) fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether the pod is of the template as it is now.
    pub(super) fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(REVISION_HASH).is_some_and(|hash| hash == self.hash)
    }

    /// Whether the pod has been ready for long enough.
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        self.until_available(pod).is_some_and(|left| left.is_zero())
    }

    fn until_available(&self, pod: &Pod) -> Option<Duration> {
        until_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    /// Gives one node the pod that it should have, and takes what it should not have.
    fn settle(&self, node: &str, fit: Fit, held: Held<'_>, acts: &mut Vec<Act>) {
        let pods = self.on(node);
        if fit == Fit::Refused {
            let staying = pods.iter().filter(|pod| !is_ending(pod));
            return acts.extend(staying.map(|pod| Act::Delete(pod.clone(), Why::Surplus)));
        }
        if pods.is_empty() {
            return acts.extend((fit == Fit::Runs).then(|| Act::Create(node.to_owned())));
        }
        let (ended, running): (Vec<_>, Vec<_>) =
            pods.iter().filter(|pod| !is_ending(pod)).cloned().partition(|pod| is_finished(pod));
        for pod in ended {
            let succeeded = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
            if succeeded {
                acts.push(Act::Delete(pod, Why::Succeeded));
            } else if held(node).is_none() {
                acts.push(Act::Delete(pod, Why::Failed));
            }
        }
        let surplus = if self.surge() > 0 { self.beyond_two(&running) } else { running.into_iter().skip(1).collect() };
        acts.extend(surplus.into_iter().map(|pod| Act::Delete(pod, Why::Surplus)));
    }

    /// While a set surges, a node has one pod of the new revision and one of an older one, until the new one works or the
    /// old one does not.
    fn beyond_two(&self, running: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let (new, old): (Vec<_>, Vec<_>) = running.iter().cloned().partition(|pod| self.is_new(pod));
        let mut surplus: Vec<_> = new.iter().skip(1).chain(old.iter().skip(1)).cloned().collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (ready_since(old).is_none() || self.is_available(new))
        {
            surplus.push(old.clone());
        }
        surplus
    }

    /// Pods for nodes that are gone and that nobody will bind any more. Those that ran there go with their node.
    fn lost(&self) -> impl Iterator<Item = Act> {
        let elsewhere = self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        let lost = elsewhere.flat_map(|(_, pods)| pods).filter(|pod| !is_ending(pod) && !is_bound(pod));
        lost.map(|pod| Act::Delete(pod.clone(), Why::Surplus))
    }

    /// Replaces pods of older revisions: the broken ones all, of the working ones as many as may be unavailable.
    fn replace(&self) -> Vec<Act> {
        let mut unavailable = 0;
        let (mut broken, mut working) = (Vec::new(), Vec::new());
        for node in self.wanted() {
            match self.on(node) {
                [pod] if is_ending(pod) || is_finished(pod) => unavailable += 1,
                [pod] if self.is_new(pod) => unavailable += usize::from(!self.is_available(pod)),
                [pod] if self.is_available(pod) => working.push(pod.clone()),
                [pod] => {
                    unavailable += 1;
                    broken.push(pod.clone());
                }
                _ => unavailable += 1,
            }
        }
        working.truncate(self.max_unavailable().saturating_sub(unavailable));
        broken.into_iter().chain(working).map(|pod| Act::Delete(pod, Why::Surplus)).collect()
    }

    /// Puts pods of the new revision beside older ones: at once beside those that do not work, and beside as many others as
    /// the surge allows.
    fn surge_on(&self) -> Vec<Act> {
        let mut surging = 0;
        let (mut free, mut bounded) = (Vec::new(), Vec::new());
        for node in self.wanted() {
            let staying: Vec<_> = self.on(node).iter().filter(|pod| !is_ending(pod)).collect();
            let (new, old): (Vec<_>, Vec<_>) = staying.into_iter().partition(|pod| self.is_new(pod));
            match (new.first(), old.first()) {
                (None, Some(old)) if self.is_available(old) => bounded.push(Act::Create(node.to_owned())),
                (None, Some(_)) => free.push(Act::Create(node.to_owned())),
                (Some(_), Some(_)) => surging += 1,
                (_, None) => {}
            }
        }
        bounded.truncate(self.surge().saturating_sub(surging));
        free.into_iter().chain(bounded).collect()
    }

    /// The nodes that a pod should run on.
    fn wanted(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|(_, fit)| **fit == Fit::Runs).map(|(node, _)| node.as_str())
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    /// How many nodes may have two pods in an update.
    fn surge(&self) -> usize {
        self.bound(|rolling| rolling.max_surge.as_ref()).unwrap_or(0)
    }

    /// How many nodes may be without a working pod in an update.
    fn max_unavailable(&self) -> usize {
        self.bound(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(1).max(1)
    }

    /// A count, or a share of the nodes that a pod should run on.
    fn bound(&self, of: impl Fn(&RollingUpdateDaemonSet) -> Option<&IntOrString>) -> Option<usize> {
        let strategy = self.spec.update_strategy.as_ref().filter(|_| self.is_rolling())?;
        let whole = i32::try_from(self.wanted().count()).unwrap_or(i32::MAX);
        let bound = share(of(strategy.rolling_update.as_ref()?)?, whole, Round::Up)?;
        Some(usize::try_from(bound).unwrap_or(0))
    }
}

/// The one to keep comes first: bound, then older, then by name.
fn age(pod: &Pod) -> (bool, Option<Timestamp>, String) {
    (!is_bound(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name_any())
}

#[cfg(test)]
mod tests;
