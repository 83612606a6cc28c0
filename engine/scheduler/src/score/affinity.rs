//! Company that the pod likes or avoids, and that likes or avoids the pod.

use std::sync::Arc;

use super::BEST;
use crate::fit::Question;
use crate::snapshot::{Domains, Slot, Snapshot};
use crate::wanted::{Counted, Force};

/// What a pod weighs that has to be with this one, although it is not asked now.
const HELD: i64 = 1;

/// The sum over all preferred terms of the pods in the node's domains, on the scale between the worst and the best node.
pub(super) fn company(question: &Question<'_>, snapshot: &mut Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
    let weighed = weighed(question, snapshot);
    if weighed.is_empty() {
        return None;
    }
    let in_domains = |slot: &Slot| {
        let weights = weighed.iter().filter_map(|(domains, sums)| domains.of(*slot).map(|domain| sums[domain]));
        weights.fold(0, i64::saturating_add)
    };
    let raw: Vec<i64> = nodes.iter().map(in_domains).collect();
    let (worst, best) = (*raw.iter().min()?, *raw.iter().max()?);
    let wide = best.saturating_sub(worst);
    (wide > 0).then(|| raw.into_iter().map(|score| scaled(score.saturating_sub(worst), wide)).collect())
}

fn scaled(score: i64, wide: i64) -> i64 {
    i64::try_from(i128::from(BEST) * i128::from(score) / i128::from(wide)).unwrap_or(BEST)
}

/// Of each term the domains with what they weigh.
fn weighed(question: &Question<'_>, snapshot: &mut Snapshot) -> Vec<(Arc<Domains>, Vec<i64>)> {
    let mut found = Vec::new();
    let mut take = |domains: Arc<Domains>, mut sums: Vec<i64>, weight: i64| {
        for sum in &mut sums {
            *sum = sum.saturating_mul(weight);
        }
        found.push((domains, sums));
    };
    for pull in &question.wanted.pulls {
        let Force::Rather(weight) = pull.force else { continue };
        let counts = snapshot.tally(&Counted::All(vec![pull.term.who.clone()]));
        let domains = snapshot.domains(&pull.term.topology);
        let sums = domains.sum(counts.iter());
        take(domains, sums, weight);
    }
    let about = snapshot.pulls().about(question.wanted, snapshot.namespaces());
    let others: Vec<_> = about
        .filter_map(|(force, topology, counts)| match force {
            Force::Rather(weight) => Some((weight, topology.to_owned(), counts.clone())),
            Force::With => Some((HELD, topology.to_owned(), counts.clone())),
            Force::Without => None,
        })
        .collect();
    for (weight, topology, counts) in others {
        let domains = snapshot.domains(&topology);
        let sums = domains.sum(counts.iter());
        take(domains, sums, weight);
    }
    found
}
