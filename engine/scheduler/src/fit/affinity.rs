//! Affinity to and from other pods that has to hold, the pod's own and that of the pods which are there.
//!
//! All of it comes down to three lists of domains: those that it has to be in, and those that it must not be in for its
//! own sake or for that of others.

use std::sync::Arc;

use crate::reason::{Filter, Reason, Refusal};
use crate::snapshot::{self, Slot, Snapshot};
use crate::wanted::{Counted, Force, Wanted, Who};

/// Domains of one topology: whether there is a pod in question, by domain.
struct Marked {
    topology: Arc<snapshot::Domains>,
    has: Vec<bool>,
}

impl Marked {
    fn new(topology: Arc<snapshot::Domains>, counts: &snapshot::Counts) -> Self {
        let mut has = vec![false; topology.many()];
        counts.keys().filter_map(|slot| topology.of(*slot)).for_each(|domain| has[domain] = true);
        Self { topology, has }
    }

    fn has(&self, slot: Slot) -> bool {
        self.topology.of(slot).is_some_and(|domain| self.has[domain])
    }
}

/// Where the pod has to be and where it must not be.
pub(super) struct Domains {
    with: Vec<Marked>,
    /// Nobody is there that it has to be with but its own kind, of which it is the first.
    is_first: bool,
    without: Vec<Marked>,
    others_without: Vec<Marked>,
}

impl Domains {
    pub(super) fn of(wanted: &Wanted, snapshot: &mut Snapshot) -> Self {
        let (with, is_first) = with(wanted, snapshot);
        Self { with, is_first, without: without(wanted, snapshot), others_without: others_without(wanted, snapshot) }
    }

    pub(super) fn check(&self, slot: Slot) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal::one(Filter::Affinity, reason));
        let follows = |it: &Marked| if self.is_first { it.topology.of(slot).is_some() } else { it.has(slot) };
        if !self.with.iter().all(follows) {
            return refuse(Reason::Affinity);
        }
        if self.without.iter().any(|it| it.has(slot)) {
            return refuse(Reason::AntiAffinity);
        }
        if self.others_without.iter().any(|it| it.has(slot)) {
            return refuse(Reason::OthersAntiAffinity);
        }
        Ok(())
    }
}

/// Pods count for an affinity only that all the terms are about.
fn with(wanted: &Wanted, snapshot: &mut Snapshot) -> (Vec<Marked>, bool) {
    let terms: Vec<_> = wanted.pulls.iter().filter(|pull| pull.force == Force::With).map(|pull| &pull.term).collect();
    if terms.is_empty() {
        return (Vec::new(), false);
    }
    let counted = Counted::All(terms.iter().map(|term| term.who.clone()).collect::<Vec<Who>>());
    let counts = snapshot.tally(&counted);
    let marked: Vec<_> = terms.iter().map(|term| Marked::new(snapshot.domains(&term.topology), &counts)).collect();
    let nobody = marked.iter().all(|it| !it.has.contains(&true));
    (marked, nobody && counted.is(&wanted.pod, snapshot.namespaces()))
}

fn without(wanted: &Wanted, snapshot: &mut Snapshot) -> Vec<Marked> {
    let terms = wanted.pulls.iter().filter(|pull| pull.force == Force::Without).map(|pull| &pull.term);
    terms
        .map(|term| {
            let counts = snapshot.tally(&Counted::All(vec![term.who.clone()]));
            Marked::new(snapshot.domains(&term.topology), &counts)
        })
        .collect()
}

fn others_without(wanted: &Wanted, snapshot: &mut Snapshot) -> Vec<Marked> {
    let about = snapshot.pulls().about(wanted, snapshot.namespaces());
    let refusing = about.filter(|(force, ..)| *force == Force::Without);
    let refusing: Vec<_> = refusing.map(|(_, topology, counts)| (topology.to_owned(), counts.clone())).collect();
    refusing.into_iter().map(|(topology, counts)| Marked::new(snapshot.domains(&topology), &counts)).collect()
}
