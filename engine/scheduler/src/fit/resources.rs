//! Room for one more pod and for all that it asks for.

use std::sync::Arc;

use crate::reason::{Filter, Reason, Refusal};
use crate::snapshot::NodeInfo;
use crate::wanted::Wanted;

/// The pods that wait for others to leave the node and come before this one there.
pub(super) fn ahead<'a>(wanted: &'a Wanted, node: &'a NodeInfo) -> impl Iterator<Item = &'a Arc<Wanted>> {
    let nominees = node.nominees().iter();
    nominees.filter(|nominee| nominee.priority() >= wanted.priority() && nominee.uid() != wanted.uid())
}

pub(super) fn check(wanted: &Arc<Wanted>, node: &NodeInfo) -> Result<(), Refusal> {
    let mut short = Shortage::default();
    let all = node.allocatable();
    if node.nominees().is_empty() {
        short.compare(wanted, node.requested(), all);
    } else {
        let mut taken = node.requested().clone();
        for nominee in ahead(wanted, node) {
            taken.add(&nominee.requests);
            taken.pods += 1;
        }
        short.compare(wanted, &taken, all);
    }
    short.refusal.map_or(Ok(()), Err)
}

#[derive(Default)]
struct Shortage {
    refusal: Option<Refusal>,
}

impl Shortage {
    fn compare(&mut self, wanted: &Wanted, taken: &crate::Resources, all: &crate::Resources) {
        if taken.pods >= all.pods {
            self.note(Reason::TooManyPods, true);
        }
        let asked = &wanted.requests;
        self.one("cpu", asked.cpu, taken.cpu, all.cpu);
        self.one("memory", asked.memory, taken.memory, all.memory);
        self.one("ephemeral-storage", asked.storage, taken.storage, all.storage);
        for (name, amount) in asked.others() {
            self.one(name, amount, taken.other(name), all.other(name));
        }
    }

    fn one(&mut self, name: &str, asked: i64, taken: i64, all: i64) {
        if asked > 0 && asked > all.saturating_sub(taken) {
            self.note(Reason::Insufficient(name.into()), asked <= all);
        }
    }

    fn note(&mut self, reason: Reason, depends_on_pods: bool) {
        match &mut self.refusal {
            Some(refusal) => {
                refusal.depends_on_pods &= depends_on_pods;
                refusal.more.push(reason);
            }
            None => self.refusal = Some(Refusal { depends_on_pods, ..Refusal::one(Filter::Resources, reason) }),
        }
    }
}
