//! Room that stays: the more the better, and the more evenly of processor and memory the better.

use super::BEST;
use crate::fit::Question;
use crate::snapshot::{Slot, Snapshot};

/// The share of processor and memory that stays unrequested with the pod on the node.
pub(super) fn free(question: &Question<'_>, snapshot: &Snapshot, nodes: &[Slot]) -> Vec<i64> {
    let (cpu, memory) = question.wanted.requests.or_usual();
    let share = |taken: i64, asked: i64, all: i64| {
        let left = all.saturating_sub(taken).saturating_sub(asked).max(0);
        if all == 0 { 0 } else { i64::try_from(i128::from(left) * i128::from(BEST) / i128::from(all)).unwrap_or(0) }
    };
    let score = |slot: &Slot| {
        let node = snapshot.node(*slot);
        let (all, taken) = (node.allocatable(), node.usual());
        i64::midpoint(share(taken.0, cpu, all.cpu), share(taken.1, memory, all.memory))
    };
    nodes.iter().map(score).collect()
}

/// How alike the shares of processor and memory are that are requested with the pod on the node.
pub(super) fn balance(question: &Question<'_>, snapshot: &Snapshot, nodes: &[Slot]) -> Vec<i64> {
    let asked = &question.wanted.requests;
    let share = |taken: i64, asked: i64, all: i64| {
        let used = i128::from(taken) + i128::from(asked);
        if all == 0 { 1000 } else { (used * 1000 / i128::from(all)).min(1000) }
    };
    let score = |slot: &Slot| {
        let node = snapshot.node(*slot);
        let (all, taken) = (node.allocatable(), node.requested());
        let apart = (share(taken.cpu, asked.cpu, all.cpu) - share(taken.memory, asked.memory, all.memory)).abs();
        BEST - i64::try_from(apart / 20).unwrap_or(0)
    };
    nodes.iter().map(score).collect()
}
