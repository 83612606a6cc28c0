//! The decision: which node, or why none. A function of the pod and the snapshot, which it leaves as it was but for what is
//! kept to answer the next question sooner, and for where the next search begins.

use std::sync::Arc;

use crate::fit::{Question, Standings};
use crate::reason::{Filters, Reason, Refusal, Unfit};
use crate::score;
use crate::snapshot::{Slot, Snapshot};
use crate::volumes::{Step, Volumes};
use crate::wanted::Wanted;

/// So many nodes are looked at in any case.
const LEAST_SEARCHED: usize = 100;
/// And this share of them, in percent, however many there are.
const LEAST_SHARE: usize = 5;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The name of the node.
    pub node: String,
    /// What is to be done for its claims before it is bound.
    pub steps: Vec<(String, Step)>,
}

/// The node that `pod` should run on, or why there is none.
pub fn choose(pod: &Arc<Wanted>, snapshot: &mut Snapshot, volumes: &Volumes) -> Result<Choice, Unfit> {
    let question = Question::new(pod, snapshot, volumes);
    if let Some(before) = question.volumes.before.clone() {
        let mut filters = Filters::default();
        filters.add(crate::reason::Filter::Volumes);
        return Err(Unfit { nodes: snapshot.many_nodes(), before: Some(before), filters, ..Unfit::default() });
    }
    if let Some(slot) = nominated(&question, snapshot, volumes) {
        return Ok(choice(&question, snapshot, slot));
    }
    let mut search = Search::default();
    match &question.standings {
        Standings::Named(some) => {
            for (slot, _) in some {
                search.ask(&question, snapshot, *slot);
            }
            search.looked_at(snapshot.many_nodes(), some.len());
        }
        Standings::All(_) => search.all(&question, snapshot),
    }
    search.settle(&question, snapshot, volumes);
    match score::best(&question, snapshot, &search.fitting) {
        Some(slot) => Ok(choice(&question, snapshot, slot)),
        None => Err(search.unfit(snapshot.many_nodes())),
    }
}

/// The node that others were asked to leave for this pod, where it fits now.
fn nominated(question: &Question<'_>, snapshot: &mut Snapshot, volumes: &Volumes) -> Option<Slot> {
    let slot = snapshot.slot_of(question.wanted.nominated()?)?;
    let fits = question.ask(snapshot, slot).is_ok()
        && (!question.is_behind(snapshot, slot) || question.ask_behind(snapshot, volumes, slot).is_ok());
    fits.then_some(slot)
}

fn choice(question: &Question<'_>, snapshot: &Snapshot, slot: Slot) -> Choice {
    let info = snapshot.node(slot);
    let steps = info.node().and_then(|node| question.volumes.plan(node).ok()).unwrap_or_default();
    Choice { node: info.name().to_owned(), steps }
}

/// What was found on the nodes so far.
#[derive(Default)]
struct Search {
    fitting: Vec<Slot>,
    /// Those that fit unless the pods fit that others are to leave them for.
    doubtful: Vec<Slot>,
    reasons: Vec<(Reason, usize)>,
    filters: Filters,
}

impl Search {
    /// Goes on from where the last search ended, until enough nodes are found to choose among.
    fn all(&mut self, question: &Question<'_>, snapshot: &mut Snapshot) {
        let enough = enough(snapshot.many_nodes());
        let mut next = snapshot.next;
        for slot in snapshot.in_turn() {
            next = slot + 1;
            self.ask(question, snapshot, slot);
            if self.fitting.len() >= enough {
                break;
            }
        }
        // Of a few nodes all were looked at; beginning with the same one keeps the choice among equals the same.
        if snapshot.many_nodes() > LEAST_SEARCHED {
            snapshot.next = next;
        } else {
            snapshot.next = 0;
        }
    }

    fn ask(&mut self, question: &Question<'_>, snapshot: &Snapshot, slot: Slot) {
        match question.ask(snapshot, slot) {
            Ok(()) if question.is_behind(snapshot, slot) => self.doubtful.push(slot),
            Ok(()) => self.fitting.push(slot),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Asks those nodes again where others come first.
    fn settle(&mut self, question: &Question<'_>, snapshot: &mut Snapshot, volumes: &Volumes) {
        for slot in std::mem::take(&mut self.doubtful) {
            match question.ask_behind(snapshot, volumes, slot) {
                Ok(()) => self.fitting.push(slot),
                Err(refusal) => self.refuse(&refusal),
            }
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.filters.add(refusal.filter);
        for reason in refusal.reasons() {
            match self.reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, count)) => *count += 1,
                None => self.reasons.push((reason.clone(), 1)),
            }
        }
    }

    /// Notes that of all nodes only some were asked, since the pod names them.
    fn looked_at(&mut self, all: usize, asked: usize) {
        if all > asked {
            self.filters.add(crate::reason::Filter::Selection);
            self.reasons.push((Reason::NotNamed, all - asked));
        }
    }

    fn unfit(self, nodes: usize) -> Unfit {
        let mut unfit = Unfit { nodes, filters: self.filters, ..Unfit::default() };
        self.reasons.iter().for_each(|(reason, many)| unfit.count(reason, *many));
        unfit
    }
}

/// How many fitting nodes are enough to choose among: all of a few, a smaller share of more.
fn enough(nodes: usize) -> usize {
    let share = 50_usize.saturating_sub(nodes / 125).max(LEAST_SHARE);
    if nodes < LEAST_SEARCHED { usize::MAX } else { (nodes * share / 100).max(LEAST_SEARCHED) }
}
