//! What could help whom: for each thing that happens, whether a pod that was refused by these filters may fit now.
//!
//! To say yes too often costs a try; to say no wrongly would leave a pod waiting for ever.

use k8s_openapi::api::core::v1::Node;

use crate::reason::{Filter, Filters};
use crate::resources::Resources;
use crate::snapshot::{Namespaces, Standing};
use crate::wanted::{Force, Wanted};

/// Something that happened to the cluster.
pub(crate) enum Happening<'a> {
    /// A node is there or offers something else.
    Node(&'a Node),
    /// A node is gone, or is in other domains than before.
    Domains,
    /// A pod left a node or takes less of it; the node, where it is known.
    Left(&'a Wanted, Option<&'a Node>),
    /// A pod is on a node, or has other labels there.
    Placed(&'a Wanted),
    /// A claim, a volume or a storage class changed.
    Storage,
    /// The labels of a namespace changed.
    Namespace,
}

impl Happening<'_> {
    /// Whether it could help the pod.
    pub(crate) fn helps(&self, pod: &Wanted, refused_by: Filters, known: &Namespaces) -> bool {
        let any = |filters: &[Filter]| filters.iter().any(|filter| refused_by.has(*filter));
        match self {
            Self::Node(node) => Standing::of(pod, node).fits() && offers(node, pod) || refused_by.has(Filter::Spread),
            Self::Domains => any(&[Filter::Spread, Filter::Affinity]),
            Self::Left(other, node) => {
                let room = any(&[Filter::Resources, Filter::Ports]);
                let there = || node.is_none_or(|node| Standing::of(pod, node).fits());
                any(&[Filter::Spread, Filter::Affinity])
                    || room && there()
                    || refused_by.has(Filter::Volumes) && other.claims.iter().any(|claim| pod.claims.contains(claim))
            }
            Self::Placed(other) => {
                let wished = |pod: &Wanted| {
                    let with = pod.pulls.iter().filter(|pull| pull.force == Force::With);
                    with.into_iter().any(|pull| pull.term.who.is(&other.pod, known))
                };
                refused_by.has(Filter::Affinity) && wished(pod)
                    || refused_by.has(Filter::Spread) && pod.spread.iter().any(|it| it.counted.is(&other.pod, known))
            }
            Self::Storage => refused_by.has(Filter::Volumes),
            Self::Namespace => refused_by.has(Filter::Affinity),
        }
    }
}

/// Whether the node would have room for the pod if it were empty.
fn offers(node: &Node, pod: &Wanted) -> bool {
    let all = Resources::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
    let asked = &pod.requests;
    asked.cpu <= all.cpu
        && asked.memory <= all.memory
        && asked.storage <= all.storage
        && asked.others().all(|(name, amount)| amount <= all.other(name))
}

#[cfg(test)]
mod tests;
