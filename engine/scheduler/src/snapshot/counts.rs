//! How many pods of some kind are on which node, kept up to date as pods come and go; so that a rule about other pods
//! costs as much as there are nodes with such pods, and not as there are pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Namespaces;
use super::node::Slot;
use crate::wanted::{Counted, Force, Pull, Term, Wanted};

/// By slot; only those that have some.
pub(crate) type Counts = BTreeMap<Slot, i64>;

/// The pods that one question of a pod is about.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) counted: Counted,
    pub(super) counts: Arc<Counts>,
}

impl Tally {
    pub(super) fn change(&mut self, slot: Slot, pod: &Wanted, by: i64, known: &Namespaces) {
        if self.counted.is(&pod.pod, known) {
            add(Arc::make_mut(&mut self.counts), slot, by);
        }
    }
}

/// The pulls of placed pods, equal ones as one, and where the pods are that have them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulls {
    by_writing: HashMap<String, Kept>,
    asked_for_namespaces: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    force: Force,
    term: Term,
    counts: Arc<Counts>,
}

impl Pulls {
    pub(super) fn change(&mut self, slot: Slot, pulls: &[Pull], by: i64) {
        for pull in pulls {
            self.asked_for_namespaces |= pull.term.who.asks_for_namespaces();
            let kept = self.by_writing.entry(pull.written.clone()).or_insert_with(|| Kept {
                force: pull.force,
                term: pull.term.clone(),
                counts: Arc::default(),
            });
            add(Arc::make_mut(&mut kept.counts), slot, by);
            if kept.counts.is_empty() {
                self.by_writing.remove(&pull.written);
            }
        }
    }

    /// Those that are about the pod: force, topology, and where the pods are that have them.
    pub(crate) fn about<'a>(
        &'a self,
        pod: &'a Wanted,
        known: &'a Namespaces,
    ) -> impl Iterator<Item = (Force, &'a str, &'a Arc<Counts>)> {
        let about = self.by_writing.values().filter(|kept| kept.term.who.is(&pod.pod, known));
        about.map(|kept| (kept.force, kept.term.topology.as_str(), &kept.counts))
    }

    /// Whether one of them depended on the labels of namespaces.
    pub(crate) fn asked_for_namespaces(&self) -> bool {
        self.asked_for_namespaces
    }
}

fn add(counts: &mut Counts, slot: Slot, by: i64) {
    let count = counts.entry(slot).or_insert(0);
    *count += by;
    if *count == 0 {
        counts.remove(&slot);
    }
}
