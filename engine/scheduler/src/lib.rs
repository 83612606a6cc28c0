//! Chooses a node for every pod that has none.
//!
//! The choice itself ([`choose`]) is a pure function of the pod and a [`Snapshot`] of the cluster; around it stands a
//! client of the API that watches pods and nodes, binds, and says in the pod's condition and in an event why a pod
//! cannot be placed. A pod that fits nowhere is looked at again when something changed that could make it fit.

mod fit;
mod score;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

pub use fit::Reason;
pub use snapshot::{NodeInfo, Resources, Snapshot};
pub use watch::run;

use k8s_openapi::api::core::v1::Pod;

/// Why a pod fits on no node: how many nodes there are, and for each reason how many gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    nodes: usize,
    reasons: Vec<(Reason, usize)>,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0/{} nodes are available", self.nodes)?;
        for (place, (reason, count)) in self.reasons.iter().enumerate() {
            write!(f, "{} {count} {reason}", if place == 0 { ":" } else { "," })?;
        }
        f.write_str(".")
    }
}

/// The name of the node that `pod` should run on, or why there is none.
pub fn choose(pod: &Pod, snapshot: &Snapshot) -> Result<String, Unfit> {
    let mut reasons: Vec<(Reason, usize)> = Vec::new();
    let mut best: Option<(i64, &NodeInfo)> = None;
    for node in snapshot.nodes() {
        if let Err(reason) = fit::check(pod, node) {
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
            continue;
        }
        let score = score::score(pod, node);
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, node));
        }
    }
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    best.map(|(_, node)| node.name().to_owned()).ok_or(Unfit { nodes: snapshot.nodes().len(), reasons })
}
