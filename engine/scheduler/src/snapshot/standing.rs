//! What a pod's selectors, affinity and tolerations say of a node by itself. Pods of one template agree in all of these,
//! so each node is judged once for all of them and again when it changes.

use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};
use shipway_driver::matching;

use crate::wanted::Wanted;

/// The taint that a cordoned node counts as having.
const CORDON: &str = "node.kubernetes.io/unschedulable";
/// The effects that keep a pod away.
const HARD: [&str; 2] = ["NoSchedule", "NoExecute"];

/// A node in the eyes of a pod, pods on it aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It takes new pods, or this one in spite of that it does not.
    pub(crate) is_open: bool,
    /// All its hard taints are tolerated.
    pub(crate) is_tolerated: bool,
    /// The selector and the required affinity allow it.
    pub(crate) is_selected: bool,
    /// The weights of the preferences that it meets.
    pub(crate) liked: i32,
    /// How many taints it has that the pod would rather avoid.
    pub(crate) soft_taints: u16,
}

impl Standing {
    pub(crate) fn of(wanted: &Wanted, node: &Node) -> Self {
        let empty = PodSpec::default();
        let (spec, tolerations) = (wanted.spec().unwrap_or(&empty), wanted.tolerations());
        let has = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        Self {
            is_open: is_open(node, tolerations),
            is_tolerated: matching::untolerated(has, tolerations, &HARD).is_none(),
            is_selected: matching::allows_node(spec, node),
            liked: liked(spec, node),
            soft_taints: soft_taints(has, tolerations),
        }
    }

    /// Whether nothing about the node itself is in the way.
    pub(crate) fn fits(self) -> bool {
        self.is_open && self.is_tolerated && self.is_selected
    }
}

fn is_open(node: &Node, tolerations: &[Toleration]) -> bool {
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true) {
        return true;
    }
    let cordon = Taint { key: CORDON.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    tolerations.iter().any(|toleration| matching::tolerates(toleration, &cordon))
}

fn liked(spec: &PodSpec, node: &Node) -> i32 {
    let affinity = matching::node_affinity(spec);
    let terms = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = terms.into_iter().flatten().filter(|it| matching::term_selects_node(&it.preference, node));
    met.fold(0, |sum, it| sum.saturating_add(it.weight))
}

fn soft_taints(taints: &[Taint], tolerations: &[Toleration]) -> u16 {
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let many = soft.filter(|taint| !tolerations.iter().any(|it| matching::tolerates(it, taint))).count();
    u16::try_from(many).unwrap_or(u16::MAX)
}
