//! Constraints of even spreading that must not be broken: with the pod, a domain may have so many more than the one with
//! the fewest.

use std::sync::Arc;

use super::Standings;
use crate::reason::{Filter, Reason, Refusal};
use crate::snapshot::{Domains, Slot, Snapshot, Standing};
use crate::wanted::{Spread, Wanted};

/// One constraint over the nodes as they are.
pub(super) struct Constraint {
    topology: Arc<Domains>,
    /// By domain.
    counts: Vec<i64>,
    /// The most that a domain may have before the pod.
    most: i64,
}

/// Whether a node counts for a constraint.
pub(crate) fn is_meant(spread: &Spread, standing: Standing) -> bool {
    (!spread.honours_affinity || standing.is_selected) && (!spread.honours_taints || standing.is_tolerated)
}

pub(super) fn constraints(wanted: &Wanted, snapshot: &mut Snapshot, standings: &Standings) -> Vec<Constraint> {
    let hard: Vec<&Spread> = wanted.spread.iter().filter(|it| it.is_hard).collect();
    let topologies: Vec<_> = hard.iter().map(|it| snapshot.domains(&it.topology)).collect();
    hard.iter()
        .zip(&topologies)
        .map(|(spread, topology)| {
            let tally = snapshot.tally(&spread.counted);
            let mut counts = vec![0; topology.many()];
            let mut is_there = vec![false; topology.many()];
            let in_all = |slot| topologies.iter().all(|topology| topology.of(slot).is_some());
            for slot in snapshot.present().filter(|slot| in_all(*slot)) {
                if let Some(domain) = topology.of(slot).filter(|_| is_meant(spread, standings.get(slot))) {
                    is_there[domain] = true;
                }
            }
            for (slot, count) in tally.iter().filter(|(slot, _)| in_all(**slot)) {
                if let Some(domain) = topology.of(*slot).filter(|_| is_meant(spread, standings.get(*slot))) {
                    counts[domain] += count;
                }
            }
            let own = i64::from(spread.counted.is(&wanted.pod, snapshot.namespaces()));
            let most = spread.max_skew + fewest(&counts, &is_there, spread.min_domains) - own;
            Constraint { topology: topology.clone(), counts, most }
        })
        .collect()
}

/// What the domain with the fewest has; none where there are fewer domains than asked for.
fn fewest(counts: &[i64], is_there: &[bool], min_domains: usize) -> i64 {
    let there = counts.iter().zip(is_there).filter(|(_, there)| **there);
    let (many, fewest) = there.fold((0, i64::MAX), |(many, fewest), (count, _)| (many + 1, fewest.min(*count)));
    if many < min_domains.max(1) { 0 } else { fewest }
}

pub(super) fn check(constraints: &[Constraint], slot: Slot) -> Result<(), Refusal> {
    for it in constraints {
        let Some(domain) = it.topology.of(slot) else {
            return Err(Refusal::one(Filter::Spread, Reason::NoDomain));
        };
        if it.counts[domain] > it.most {
            return Err(Refusal::one(Filter::Spread, Reason::Uneven));
        }
    }
    Ok(())
}
