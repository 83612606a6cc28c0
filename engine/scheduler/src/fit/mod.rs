//! Whether a pod may run on a node at all: a row for each filter, asked in this order until one refuses.
//!
//! What a filter has to know beside the node is found once for all nodes, in its part of the [`Question`].

mod affinity;
mod ports;
mod resources;
mod spread;
mod volumes;

use std::sync::Arc;

pub(crate) use spread::is_meant;

use crate::reason::{Filter, Reason, Refusal};
use crate::snapshot::{NodeInfo, Slot, Snapshot, Standing};
use crate::volumes::{Asked, Volumes};
use crate::wanted::Wanted;

/// What is asked of each node for one pod.
pub(crate) struct Question<'a> {
    pub(crate) wanted: &'a Arc<Wanted>,
    pub(crate) standings: Standings,
    affinity: affinity::Domains,
    spread: Vec<spread::Constraint>,
    pub(crate) volumes: Asked<'a>,
    /// Another pod has a claim that is for one pod alone.
    is_claim_taken: bool,
}

/// How the nodes stand by themselves.
pub(crate) enum Standings {
    /// All of them, by slot.
    All(Arc<Vec<Standing>>),
    /// Only those that the pod names.
    Named(Vec<(Slot, Standing)>),
}

impl Standings {
    fn of(wanted: &Arc<Wanted>, snapshot: &mut Snapshot) -> Self {
        let Some(names) = &wanted.named else { return Self::All(snapshot.standings(wanted)) };
        let mut slots: Vec<Slot> = names.iter().filter_map(|name| snapshot.slot_of(name)).collect();
        slots.sort_unstable();
        slots.dedup();
        let judged = slots.into_iter().filter_map(|slot| {
            let node = snapshot.node(slot).node()?;
            Some((slot, Standing::of(wanted, node)))
        });
        Self::Named(judged.collect())
    }

    pub(crate) fn get(&self, slot: Slot) -> Standing {
        match self {
            Self::All(all) => all.get(slot).copied().unwrap_or_default(),
            Self::Named(some) => {
                some.iter().find(|(named, _)| *named == slot).map(|(_, standing)| *standing).unwrap_or_default()
            }
        }
    }
}

type Check = fn(&Question<'_>, &NodeInfo, Slot) -> Result<(), Refusal>;

/// Every filter.
const FILTERS: [Check; 8] = [
    |question, _, slot| by_itself(question, slot, |it| it.is_open, Filter::Unschedulable, Reason::Unschedulable),
    |question, _, slot| by_itself(question, slot, |it| it.is_tolerated, Filter::Taints, Reason::Tainted),
    |question, _, slot| by_itself(question, slot, |it| it.is_selected, Filter::Selection, Reason::NotSelected),
    |question, node, _| ports::check(question.wanted, node),
    |question, node, _| resources::check(question.wanted, node),
    |question, node, _| volumes::check(question, node),
    |question, _, slot| spread::check(&question.spread, slot),
    |question, _, slot| question.affinity.check(slot),
];

impl<'a> Question<'a> {
    pub(crate) fn new(wanted: &'a Arc<Wanted>, snapshot: &mut Snapshot, volumes: &'a Volumes) -> Self {
        let standings = Standings::of(wanted, snapshot);
        let asked = volumes.asked(wanted);
        Self {
            affinity: affinity::Domains::of(wanted, snapshot),
            spread: spread::constraints(wanted, snapshot, &standings),
            is_claim_taken: asked.alone.iter().any(|claim| snapshot.is_claim_used(claim)),
            volumes: asked,
            standings,
            wanted,
        }
    }

    /// Whether there are pods that wait for others to leave the node and come before this one there.
    pub(crate) fn is_behind(&self, snapshot: &Snapshot, slot: Slot) -> bool {
        resources::ahead(self.wanted, snapshot.node(slot)).next().is_some()
    }

    /// Asks one node as if those were on it that come before the pod there: whom they keep away is kept away already. The
    /// snapshot is as before afterwards.
    pub(crate) fn ask_behind(&self, snapshot: &mut Snapshot, volumes: &Volumes, slot: Slot) -> Result<(), Refusal> {
        let ahead: Vec<_> = resources::ahead(self.wanted, snapshot.node(slot)).cloned().collect();
        let node = snapshot.node(slot).name().to_owned();
        for nominee in &ahead {
            snapshot.nominate(nominee, None);
            snapshot.place(nominee, &node);
        }
        let asked = Question::new(self.wanted, snapshot, volumes).ask(snapshot, slot);
        for nominee in &ahead {
            snapshot.remove(&nominee.key());
            snapshot.nominate(nominee, Some(&node));
        }
        asked
    }

    /// Asks one node; what the first filter has against it is the answer.
    pub(crate) fn ask(&self, snapshot: &Snapshot, slot: Slot) -> Result<(), Refusal> {
        let node = snapshot.node(slot);
        FILTERS.iter().try_for_each(|check| check(self, node, slot))
    }
}

fn by_itself(
    question: &Question<'_>,
    slot: Slot,
    holds: impl Fn(Standing) -> bool,
    filter: Filter,
    reason: Reason,
) -> Result<(), Refusal> {
    if holds(question.standings.get(slot)) { Ok(()) } else { Err(Refusal::one(filter, reason)) }
}
