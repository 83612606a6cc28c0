//! Even spreading that is wished for: by the pod's own soft constraints, or over nodes and zones where it has none at all
//! and others stand for it.

use std::sync::Arc;

use super::BEST;
use crate::fit::{Question, is_meant};
use crate::snapshot::{Domains, Slot, Snapshot};
use crate::wanted::{Spread, usual_spread};

/// One constraint over the nodes as they are.
struct Weighed {
    domains: Arc<Domains>,
    counts: Vec<i64>,
    /// More for a topology with more domains, where one pod makes less of a difference.
    weight: f64,
    max_skew: i64,
}

/// The fewer pods of the kind in the node's domains the better.
pub(super) fn evenness(question: &Question<'_>, snapshot: &mut Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
    let usual = question.wanted.spread.is_empty();
    let constraints: Vec<Spread> = match &question.wanted.siblings {
        Some(siblings) if usual => usual_spread(siblings),
        None if usual => snapshot.served(question.wanted).map(|counted| usual_spread(&counted))?,
        _ => question.wanted.spread.iter().filter(|it| !it.is_hard).cloned().collect(),
    };
    if constraints.is_empty() {
        return None;
    }
    let topologies: Vec<_> = constraints.iter().map(|it| snapshot.domains(&it.topology)).collect();
    // Without labels for zones the usual spreading still is over nodes.
    let counts_for = |slot: Slot| usual || topologies.iter().all(|topology| topology.of(slot).is_some());
    let weighed: Vec<Weighed> = constraints
        .iter()
        .zip(&topologies)
        .map(|(spread, domains)| weigh(question, snapshot, spread, domains, nodes, &counts_for))
        .collect();
    let raw = nodes.iter().map(|slot| counts_for(*slot).then(|| score(&weighed, *slot))).collect();
    Some(fewest_best(raw))
}

fn weigh(
    question: &Question<'_>,
    snapshot: &mut Snapshot,
    spread: &Spread,
    domains: &Arc<Domains>,
    nodes: &[Slot],
    counts_for: &impl Fn(Slot) -> bool,
) -> Weighed {
    let mut is_there = vec![false; domains.many()];
    nodes
        .iter()
        .filter(|slot| counts_for(**slot))
        .filter_map(|slot| domains.of(*slot))
        .for_each(|it| is_there[it] = true);
    let tally = snapshot.tally(&spread.counted);
    let meant = tally.iter().filter(|(slot, _)| is_meant(spread, question.standings.get(**slot)) && counts_for(**slot));
    let counts = domains.sum(meant);
    let many = u32::try_from(is_there.iter().filter(|there| **there).count()).unwrap_or(u32::MAX);
    Weighed { domains: domains.clone(), counts, weight: f64::from(many + 2).ln(), max_skew: spread.max_skew }
}

fn score(weighed: &[Weighed], slot: Slot) -> i64 {
    let one = |it: &Weighed| {
        let count = it.counts[it.domains.of(slot)?];
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        Some(count * it.weight + f64::from(u32::try_from(it.max_skew - 1).unwrap_or(0)))
    };
    let sum: f64 = weighed.iter().filter_map(one).sum();
    #[expect(clippy::cast_possible_truncation, reason = "counts of pods times a logarithm are far below the limit")]
    let rounded = sum.round() as i64;
    rounded
}

/// From 0 to 100, the lowest best; a node that does not count gets nothing.
fn fewest_best(raw: Vec<Option<i64>>) -> Vec<i64> {
    let (lowest, highest) = raw.iter().flatten().fold((i64::MAX, 0), |(low, high), it| (low.min(*it), high.max(*it)));
    let scaled = |score: i64| if highest == 0 { BEST } else { BEST * (highest + lowest - score) / highest };
    raw.into_iter().map(|score| score.map_or(0, scaled)).collect()
}
