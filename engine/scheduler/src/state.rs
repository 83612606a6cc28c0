//! What the scheduler knows at one moment, and how what happens changes it. Nothing here waits or talks to anybody.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use shipway_driver::Change;
use tokio::time::Instant;

use crate::choose::{Choice, choose};
use crate::line::Line;
use crate::preempt::{self, Preemption};
use crate::reason::Unfit;
use crate::snapshot::Snapshot;
use crate::volumes::{Step, Volumes};
use crate::wake::Happening;
use crate::wanted::{self, Key, Wanted, is_finished, node_of};

/// The name by which pods ask for this scheduler.
pub(crate) const NAME: &str = "default-scheduler";

/// A pod that was given a node which the watch does not show yet.
#[derive(Debug)]
struct Assumed {
    uid: String,
    steps: Vec<(String, Step)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) snapshot: Snapshot,
    pub(crate) volumes: Volumes,
    pub(crate) line: Line,
    assumed: HashMap<Key, Assumed>,
    /// Held back pods that are to be told so.
    pub(crate) gated: BTreeMap<Key, Arc<Pod>>,
}

/// What came of trying a pod.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has a node.
    Chosen(Choice),
    /// It fits nowhere.
    Unfit(Unfit),
    /// It would fit if others left.
    CouldPreempt(Unfit),
}

/// Why nobody is asked to leave.
#[derive(Debug)]
pub(crate) enum NoPreemption {
    /// There is nothing to say.
    Nothing,
    /// The pod does not ask others to leave, or did already.
    NotNow(&'static str),
    /// It would not help.
    Useless(Unfit),
}

impl NoPreemption {
    /// Adds it to what the pod is told.
    pub(crate) fn tell(self, unfit: &mut Unfit) {
        match self {
            Self::Nothing => {}
            Self::NotNow(why) => unfit.preemption = Some(why.to_owned()),
            Self::Useless(why) => {
                unfit.preemption = Some(why.to_string());
                unfit.gives_up = true;
            }
        }
    }
}

impl State {
    /// Tries a pod. It is taken to be on the chosen node until [`State::forget`], or parked.
    pub(crate) fn attempt(&mut self, pod: &Arc<Wanted>, now: Instant) -> Outcome {
        match choose(pod, &mut self.snapshot, &self.volumes) {
            Ok(choice) => {
                self.reserve(pod, None, Some(&choice.node), now);
                self.snapshot.place(pod, &choice.node);
                self.volumes.give(pod.namespace(), &choice.steps);
                let assumed = Assumed { uid: pod.uid().to_owned(), steps: choice.steps.clone() };
                self.assumed.insert(pod.key(), assumed);
                self.tell(&Happening::Placed(pod), now);
                Outcome::Chosen(choice)
            }
            Err(mut unfit) => {
                self.line.park(&pod.key(), unfit.filters(), now);
                match self.try_preemption(pod, &[]) {
                    Ok(_) => Outcome::CouldPreempt(unfit),
                    Err(why) => {
                        why.tell(&mut unfit);
                        Outcome::Unfit(unfit)
                    }
                }
            }
        }
    }

    /// Who would have to leave for the pod, or why that would not help.
    pub(crate) fn try_preemption(
        &mut self,
        pod: &Arc<Wanted>,
        budgets: &[PodDisruptionBudget],
    ) -> Result<Preemption, NoPreemption> {
        if self.snapshot.many_nodes() == 0 {
            return Err(NoPreemption::Nothing);
        }
        if let Some(why) = preempt::is_out_of_question(pod, &self.snapshot) {
            return Err(NoPreemption::NotNow(why));
        }
        let found = preempt::preempt(pod, &mut self.snapshot, &self.volumes, budgets);
        found.map_err(NoPreemption::Useless)
    }

    /// Takes a pod back from the node that it could not be bound to, and has it tried again later.
    pub(crate) fn forget(&mut self, pod: &Wanted, now: Instant) {
        let key = pod.key();
        if self.assumed.get(&key).is_some_and(|assumed| assumed.uid == pod.uid()) {
            self.settle(&key);
            let node = self.snapshot.placed(&key).map(|(node, _)| node.to_owned());
            self.snapshot.remove(&key);
            self.tell_left(pod, node.as_deref(), now);
        }
        self.line.retry(&key, now);
    }

    /// Takes in a changed pod.
    pub(crate) fn pod_changed(&mut self, change: &Change<Pod>, now: Instant) {
        let pod = change.object();
        let gone = matches!(change, Change::Deleted(_)) || is_finished(pod);
        if gone {
            self.pod_gone(pod, now);
        } else if let Some(node) = node_of(pod) {
            self.pod_bound(&Arc::new(Wanted::of(pod.clone())), node, now);
        } else if is_ours(pod) {
            self.pod_waits(pod, now);
        }
    }

    fn pod_gone(&mut self, pod: &Arc<Pod>, now: Instant) {
        let key = wanted::key(pod);
        let known = self.snapshot.placed(&key).map(|(node, pod)| (node.to_owned(), pod.clone()));
        self.line.remove(&key);
        self.settle(&key);
        self.snapshot.remove(&key);
        match known {
            Some((node, known)) => self.tell_left(&known, Some(&node), now),
            None => self.reserve(&Arc::new(Wanted::of(pod.clone())), None, None, now),
        }
    }

    fn pod_bound(&mut self, pod: &Arc<Wanted>, node: &str, now: Instant) {
        let key = pod.key();
        let before = self.snapshot.placed(&key).map(|(node, pod)| (node.to_owned(), pod.clone()));
        self.line.remove(&key);
        self.settle(&key);
        self.reserve(pod, None, Some(node), now);
        self.snapshot.place(pod, node);
        match before {
            Some((before, known)) if before == node => {
                if known.requests != pod.requests || known.is_leaving() != pod.is_leaving() {
                    self.tell_left(pod, Some(node), now);
                }
                if known.pod.metadata.labels != pod.pod.metadata.labels {
                    self.tell(&Happening::Placed(pod), now);
                    self.tell_left(pod, Some(node), now);
                }
            }
            _ => self.tell(&Happening::Placed(pod), now),
        }
    }

    fn pod_waits(&mut self, pod: &Arc<Pod>, now: Instant) {
        let key = wanted::key(pod);
        let is_assumed = self.assumed.get(&key).is_some_and(|assumed| Some(&assumed.uid) == pod.metadata.uid.as_ref());
        if !is_assumed && self.assumed.contains_key(&key) {
            // Another pod of the same name: the former one is gone, unseen.
            self.settle(&key);
            self.snapshot.remove(&key);
        }
        let wanted = Arc::new(Wanted::of(pod.clone()));
        if is_gated(pod) && !wanted.is_leaving() {
            self.gated.insert(key.clone(), pod.clone());
        }
        if wanted.is_leaving() || is_gated(pod) {
            self.line.remove(&key);
            self.reserve(&wanted, None, None, now);
        } else if !is_assumed {
            self.reserve(&wanted, wanted.nominated(), wanted.nominated(), now);
            self.line.put(wanted, now);
        }
    }

    /// Reserves room for a pod on that node, which goes or stays on `own`; whom it kept away elsewhere may come back.
    fn reserve(&mut self, pod: &Arc<Wanted>, node: Option<&str>, own: Option<&str>, now: Instant) {
        let before = self.snapshot.nominated_to(&pod.key()).map(str::to_owned);
        self.snapshot.nominate(pod, node);
        if before.is_some() && before.as_deref() != own {
            self.tell_left(pod, before.as_deref(), now);
        }
    }

    /// Ends the waiting for the watch to show where the pod is.
    fn settle(&mut self, key: &Key) {
        if let Some(assumed) = self.assumed.remove(key) {
            self.volumes.take_back(&assumed.steps);
        }
    }

    /// Takes in a changed node. What it reports about itself every now and then wakes nobody.
    pub(crate) fn node_changed(&mut self, change: &Change<Node>, now: Instant) {
        let name = change.object().name_any();
        let Change::Applied(node) = change else {
            self.snapshot.remove_node(&name);
            return self.tell(&Happening::Domains, now);
        };
        let before = self.snapshot.node_named(&name).cloned();
        self.snapshot.set_node(node);
        let offer = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
        let same = |before: &Node| {
            before.spec == node.spec && before.metadata.labels == node.metadata.labels && offer(before) == offer(node)
        };
        if !before.as_deref().is_some_and(same) {
            self.tell(&Happening::Node(node), now);
        }
        if before.is_some_and(|before| before.metadata.labels != node.metadata.labels) {
            self.tell(&Happening::Domains, now);
        }
    }

    pub(crate) fn claim_changed(&mut self, change: &Change<PersistentVolumeClaim>, now: Instant) {
        let claim = change.object();
        let key = (claim.namespace().unwrap_or_default(), claim.name_any());
        self.volumes.set_claim(key, present(change));
        self.tell(&Happening::Storage, now);
    }

    pub(crate) fn volume_changed(&mut self, change: &Change<PersistentVolume>, now: Instant) {
        self.volumes.set_volume(&change.object().name_any(), present(change));
        self.tell(&Happening::Storage, now);
    }

    pub(crate) fn class_changed(&mut self, change: &Change<StorageClass>, now: Instant) {
        self.volumes.set_class(&change.object().name_any(), present(change));
        self.tell(&Happening::Storage, now);
    }

    pub(crate) fn namespace_changed(&mut self, change: &Change<Namespace>, now: Instant) {
        let labels = present(change).map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
        self.snapshot.set_namespace(&change.object().name_any(), labels);
        self.tell(&Happening::Namespace, now);
    }

    pub(crate) fn service_changed(&mut self, change: &Change<Service>) {
        let service = change.object();
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let selector = present(change).and_then(|service| service.spec.as_ref()?.selector.clone());
        self.snapshot.set_service(key, selector);
    }

    fn tell_left(&mut self, pod: &Wanted, node: Option<&str>, now: Instant) {
        let node = node.and_then(|node| self.snapshot.node_named(node)).cloned();
        self.tell(&Happening::Left(pod, node.as_deref()), now);
    }

    fn tell(&mut self, happening: &Happening<'_>, now: Instant) {
        if !self.line.is_indifferent() {
            let known = self.snapshot.namespaces();
            self.line.wake(now, |pod, refused_by| happening.helps(pod, refused_by, known));
        }
    }
}

fn present<K>(change: &Change<K>) -> Option<Arc<K>> {
    match change {
        Change::Applied(object) => Some(object.clone()),
        Change::Deleted(_) => None,
    }
}

/// Whether the pod asks for this scheduler.
pub(crate) fn is_ours(pod: &Pod) -> bool {
    let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    name.unwrap_or(NAME) == NAME
}

/// Whether somebody still holds the pod back.
pub(crate) fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()))
}
