//! Which pods of lower priority would have to leave so that one that fits nowhere fits: on each node as few as possible,
//! those first that no disruption budget protects; then the node where it hurts the least.

mod harm;

use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::fit::{Question, Standings};
use crate::reason::{Reason, Refusal, Unfit};
use crate::snapshot::{Slot, Snapshot};
use crate::volumes::Volumes;
use crate::wanted::Wanted;
use harm::{Budgets, Harm};

/// So many nodes on which it would work are compared.
const COMPARED: usize = 100;
/// And this share of all nodes, in percent, where that is more.
const COMPARED_SHARE: usize = 10;

/// Who leaves which node.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The name of the node.
    pub node: String,
    /// Who leaves it, the most important first.
    pub victims: Vec<Arc<Wanted>>,
}

/// Why nobody is asked to leave without looking at nodes, if so.
pub fn is_out_of_question(pod: &Wanted, snapshot: &Snapshot) -> Option<&'static str> {
    if pod.spec().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let slot = pod.nominated().and_then(|node| snapshot.slot_of(node))?;
    let leaving = |other: &Arc<Wanted>| other.is_leaving() && other.priority() < pod.priority();
    let waits = snapshot.node(slot).pods().iter().any(leaving);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Who should leave which node for the pod, or why it would not help. The snapshot is as before afterwards.
pub fn preempt(
    pod: &Arc<Wanted>,
    snapshot: &mut Snapshot,
    volumes: &Volumes,
    budgets: &[PodDisruptionBudget],
) -> Result<Preemption, Unfit> {
    let budgets = Budgets::new(budgets);
    let mut unfit = Unfit { nodes: snapshot.many_nodes(), ..Unfit::default() };
    let mut best: Option<(Harm, Slot, Vec<Arc<Wanted>>)> = None;
    let mut compared = 0;
    let most = COMPARED.max(snapshot.many_nodes() * COMPARED_SHARE / 100);
    let mut not_helpful = 0;
    for slot in worth_a_try(pod, snapshot, volumes, &mut not_helpful) {
        match victims(pod, snapshot, volumes, &budgets, slot) {
            Ok((harm, victims)) => {
                compared += 1;
                if best.as_ref().is_none_or(|(least, ..)| harm < *least) {
                    best = Some((harm, slot, victims));
                }
            }
            Err(reasons) => reasons.iter().for_each(|reason| unfit.count(reason, 1)),
        }
        if compared >= most {
            break;
        }
    }
    if not_helpful > 0 {
        unfit.count(&"Preemption is not helpful for scheduling", not_helpful);
    }
    let found = best.map(|(_, slot, victims)| Preemption { node: snapshot.node(slot).name().to_owned(), victims });
    found.ok_or(unfit)
}

/// The nodes where fewer pods could help; counts the others.
fn worth_a_try(pod: &Arc<Wanted>, snapshot: &mut Snapshot, volumes: &Volumes, others: &mut usize) -> Vec<Slot> {
    let question = Question::new(pod, snapshot, volumes);
    let slots: Vec<Slot> = match &question.standings {
        Standings::All(_) => snapshot.in_turn().collect(),
        Standings::Named(some) => some.iter().map(|(slot, _)| *slot).collect(),
    };
    let helps = |slot: &Slot| question.ask(snapshot, *slot).is_err_and(|refusal| refusal.depends_on_pods);
    let found: Vec<Slot> = match question.volumes.before {
        Some(_) => Vec::new(),
        None => slots.into_iter().filter(helps).collect(),
    };
    *others = snapshot.many_nodes() - found.len();
    found
}

/// The fewest pods of that node that have to go, and what that costs.
fn victims(
    pod: &Arc<Wanted>,
    snapshot: &mut Snapshot,
    volumes: &Volumes,
    budgets: &Budgets<'_>,
    slot: Slot,
) -> Result<(Harm, Vec<Arc<Wanted>>), Vec<String>> {
    let is_lower = |other: &&Arc<Wanted>| other.priority() < pod.priority();
    let mut lower: Vec<Arc<Wanted>> = snapshot.node(slot).pods().iter().filter(is_lower).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    // Who matters most gets the place back first.
    lower.sort_by(harm::more_important_first);
    for other in &lower {
        snapshot.remove(&other.key());
    }
    let mut trial = Trial { pod, snapshot, volumes, slot };
    let spared = match trial.ask() {
        Ok(()) => Ok(trial.spare(&lower, &budgets.spent_by(&lower))),
        Err(refusal) => Err(refusal.reasons().map(Reason::to_string).collect()),
    };
    let node = snapshot.node(slot).name().to_owned();
    for other in &lower {
        snapshot.place(other, &node);
    }
    spared.map(|(broken, victims)| (Harm::of(broken, &victims), victims))
}

/// A node without the pods that are less important, to which they come back one by one.
struct Trial<'a> {
    pod: &'a Arc<Wanted>,
    snapshot: &'a mut Snapshot,
    volumes: &'a Volumes,
    slot: Slot,
}

impl Trial<'_> {
    fn ask(&mut self) -> Result<(), Refusal> {
        let question = Question::new(self.pod, self.snapshot, self.volumes);
        question.ask(self.snapshot, self.slot)?;
        if question.is_behind(self.snapshot, self.slot) {
            return question.ask_behind(self.snapshot, self.volumes, self.slot);
        }
        Ok(())
    }

    /// Lets come back who can, first of all those whose budget is spent. How many budgets are broken all the same, and who
    /// has to stay away.
    fn spare(&mut self, lower: &[Arc<Wanted>], is_spent: &[bool]) -> (usize, Vec<Arc<Wanted>>) {
        let node = self.snapshot.node(self.slot).name().to_owned();
        let (mut broken, mut victims) = (0, Vec::new());
        let in_turn = |spent: bool| lower.iter().zip(is_spent).filter(move |(_, is)| **is == spent);
        for (other, is_spent) in in_turn(true).chain(in_turn(false)) {
            self.snapshot.place(other, &node);
            if self.ask().is_err() {
                self.snapshot.remove(&other.key());
                broken += usize::from(*is_spent);
                victims.push(other.clone());
            }
        }
        victims.sort_by(harm::more_important_first);
        (broken, victims)
    }
}
