//! Which of the nodes that could take a pod should: a row for each score with its weight, each from 0 to 100.

mod affinity;
mod place;
mod resources;
mod spread;

use crate::fit::Question;
use crate::snapshot::{Slot, Snapshot};

/// The best that one score can give.
const BEST: i64 = 100;

type Score = fn(&Question<'_>, &mut Snapshot, &[Slot]) -> Option<Vec<i64>>;

/// Every score with its weight, as the public scheduling framework weighs them. One that has nothing to say says none.
const SCORES: [(i64, Score); 7] = [
    (3, |question, _, nodes| place::soft_taints(question, nodes)),
    (2, |question, _, nodes| place::liked(question, nodes)),
    (2, |question, snapshot, nodes| spread::evenness(question, snapshot, nodes)),
    (2, |question, snapshot, nodes| affinity::company(question, snapshot, nodes)),
    (1, |question, snapshot, nodes| Some(resources::free(question, snapshot, nodes))),
    (1, |question, snapshot, nodes| Some(resources::balance(question, snapshot, nodes))),
    (1, |question, snapshot, nodes| place::images(question, snapshot, nodes)),
];

/// The best node; of equal ones the first.
pub(crate) fn best(question: &Question<'_>, snapshot: &mut Snapshot, nodes: &[Slot]) -> Option<Slot> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let sums = sums(question, snapshot, nodes);
    let best = sums.iter().copied().max()?;
    sums.iter().position(|sum| *sum == best).map(|place| nodes[place])
}

/// The weighted sums, in the order of the nodes.
pub(crate) fn sums(question: &Question<'_>, snapshot: &mut Snapshot, nodes: &[Slot]) -> Vec<i64> {
    let mut sums = vec![0; nodes.len()];
    for (weight, score) in SCORES {
        for (sum, score) in sums.iter_mut().zip(score(question, snapshot, nodes).into_iter().flatten()) {
            *sum += weight * score;
        }
    }
    sums
}

/// Raw scores on the scale from 0 to 100 by the highest; none where all are nought.
fn by_highest(raw: Vec<i64>) -> Option<Vec<i64>> {
    let highest = raw.iter().copied().max().filter(|highest| *highest > 0)?;
    Some(raw.into_iter().map(|score| score * BEST / highest).collect())
}
