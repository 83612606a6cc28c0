//! Which domain of a topology each node is in: the nodes with the same value of one label.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Node;

use super::node::Slot;

/// The number of a domain; domains of one topology are numbered from nought.
pub(crate) type Domain = u32;

/// One topology.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    /// By slot; none where the node does not have the label.
    of: Vec<Option<Domain>>,
    numbers: HashMap<String, Domain>,
}

impl Domains {
    /// Notes the domain of the node in that slot, or that there is none.
    pub(super) fn set(&mut self, slot: Slot, topology: &str, node: Option<&Node>) {
        let value = node.and_then(|node| node.metadata.labels.as_ref()?.get(topology));
        let next = Domain::try_from(self.numbers.len()).unwrap_or(Domain::MAX);
        let domain = value.map(|value| *self.numbers.entry(value.clone()).or_insert(next));
        if self.of.len() <= slot {
            self.of.resize(slot + 1, None);
        }
        self.of[slot] = domain;
    }

    pub(crate) fn of(&self, slot: Slot) -> Option<usize> {
        self.of.get(slot).copied().flatten().map(|domain| domain as usize)
    }

    /// How many domains there are or have been.
    pub(crate) fn many(&self) -> usize {
        self.numbers.len()
    }

    /// The sum of what is counted by slot, by domain.
    pub(crate) fn sum<'a>(&self, counts: impl IntoIterator<Item = (&'a Slot, &'a i64)>) -> Vec<i64> {
        let mut sums = vec![0; self.many()];
        for (slot, count) in counts {
            if let Some(domain) = self.of(*slot) {
                sums[domain] += count;
            }
        }
        sums
    }
}
